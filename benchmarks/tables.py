"""The paper's tables and figures: every loss on every data set with every seed.

    python benchmarks/tables.py run benchmarks/study/paper.toml --out runs/study
    python benchmarks/tables.py draw benchmarks/study/paper.toml --runs runs/study

The first trains, a process a run, and goes on where it was stopped; `--only synthetic
--only boundary --seed 0` does a part of it, `--shard 2/8` one of eight equal parts; on
one machine, give the command once for each core. What is kept in docs/results/runs.json
is not trained again; `--kept none` does. The second makes Tables 1 and 2,
curves and windows side by side out of what is finished. `tables.py cost`, on a machine
with nothing else to do, measures the seconds a step of each loss before.

A study file names data sets, losses and ablations. A data set is an experiment as
`train.py` takes it, a loss the `--set` assignments that make it.
"""

import argparse
import sys
from pathlib import Path

from study.plan import choose_runs, read_study
from study.results import kept_runs
from study.summary import draw_study
from study.trainer import measure_costs, run_study

RESULTS = Path("docs/results/runs.json")  # what is not trained again


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train what is not trained yet")
    running.add_argument("study", type=Path)
    running.add_argument("--out", type=Path, default=Path("runs/study"))
    running.add_argument("--only", action="append", default=[], metavar="NAME")
    running.add_argument("--seed", type=int)
    running.add_argument("--kept", type=Path, default=RESULTS, metavar="FILE")
    running.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N")
    costing = commands.add_parser("cost", help="measure the seconds a step")
    costing.add_argument("study", type=Path)
    costing.add_argument("--out", type=Path, default=Path("runs/study"))
    drawing = commands.add_parser("draw", help="make tables and figures")
    drawing.add_argument("study", type=Path)
    drawing.add_argument("--runs", type=Path, default=Path("runs/study"))
    drawing.add_argument("--out", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    try:
        study = read_study(given.study)
        if given.command == "draw":
            draw_study(study, given.runs, given.out)
        elif given.command == "cost":
            measure_costs(study, given.out)
        else:
            runs = choose_runs(study, given.only, given.seed, given.shard)
            kept = kept_runs(study, given.kept)
            failed = run_study(study, runs, given.out, kept)
            if failed:
                names = ", ".join(str(run.folder(given.out)) for run in failed)
                raise ValueError(f"these runs failed: {names}")
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


def _shard(text: str) -> tuple[int, int]:
    part, parts = (int(word) for word in text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError(f"a shard is from 1/N to N/N, got {text}")
    return part, parts


if __name__ == "__main__":
    main()
