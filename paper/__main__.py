"""python -m paper run | cost | draw | outlines | edges: see `paper`."""

from pathlib import Path

import click

from bdloss.cli.command import Group, one_line_errors, start_keras
from bdloss.cli.options import EXISTING, FOLDER, Shard

RESULTS = Path("docs/results")  # a folder for each study, called after its file
STORE = "runs.json"  # there: what is not trained again
RUNS = Path("runs/study")
STUDY = click.argument("study", type=EXISTING)
FINISHED = click.option(
    "--runs",
    type=FOLDER,
    default=RUNS,
    show_default=True,
    help="Folder of all run folders.",
)


@click.group(cls=Group)
def main() -> None:
    """The paper's tables and figures: every loss on every data set with every seed."""


@main.command()
@STUDY
@click.option(
    "--out",
    type=FOLDER,
    default=RUNS,
    show_default=True,
    help="Folder of all run folders.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="A data set or a loss, or losses, or ablations; what all of them name.",
)
@click.option("--seed", type=int, help="The only seed.")
@click.option(
    "--kept",
    type=EXISTING,
    metavar="FILE",
    help="Results of runs that are not trained again, or none.  "
    f"[{RESULTS}/STUDY/{STORE}]",
)
@click.option(
    "--shard",
    type=Shard(),
    default="1/1",
    metavar="I/N",
    help="One of N equal parts, as in 2/8.",
)
def run(
    study: Path,
    out: Path,
    only: tuple[str, ...],
    seed: int | None,
    kept: Path | None,
    shard: tuple[int, int],
) -> None:
    """Train what is not trained yet, a process a run.

    A study that was stopped goes on where it was when the command is given again.
    """
    with one_line_errors():
        from paper.plan import choose_runs, read_study
        from paper.results import kept_runs
        from paper.trainer import run_study

        plan = read_study(study)
        runs = choose_runs(plan, only, seed, shard)
        store = kept or RESULTS / study.stem / STORE
        failed = run_study(plan, runs, out, kept_runs(plan, store))
        if failed:
            names = ", ".join(str(run.folder(out)) for run in failed)
            raise click.ClickException(f"these runs failed: {names}")


@main.command()
@STUDY
@click.option(
    "--out", type=FOLDER, default=RUNS, show_default=True, help="Folder to write to."
)
def cost(study: Path, out: Path) -> None:
    """Measure the seconds a step of each loss takes."""
    with one_line_errors():
        from paper.plan import read_study
        from paper.trainer import measure_costs

        measure_costs(read_study(study), out)


@main.command()
@STUDY
@FINISHED
@click.option("--out", type=FOLDER, help=f"Folder to write to.  [{RESULTS}/STUDY]")
def draw(study: Path, runs: Path, out: Path | None) -> None:
    """Make tables and figures of the runs that are finished."""
    with one_line_errors():
        start_keras()
        from paper.plan import read_study
        from paper.summary import draw_study

        draw_study(read_study(study), runs, out or RESULTS / study.stem)


@main.command()
@STUDY
@FINISHED
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS / "outlines.md",
    show_default=True,
    help="File to write the table to.",
)
def outlines(study: Path, runs: Path, out: Path) -> None:
    """Score the outlines of networks: whole, split, with straight walls."""
    with one_line_errors():
        start_keras()
        from paper.outlines import compare_outlines
        from paper.plan import read_study

        click.echo(compare_outlines(read_study(study), runs, out))


@main.command()
@click.option(
    "--out",
    type=FOLDER,
    default=RESULTS,
    show_default=True,
    help="Folder to write the table and the picture to.",
)
def edges(out: Path) -> None:
    """Show what an edge that nobody can know makes of each loss, in minutes."""
    with one_line_errors():
        start_keras()
        from paper.uncertain_edges import compare_losses

        click.echo(compare_losses(out))
    click.echo(f"written: {out / 'edges.md'} and edges.png")


if __name__ == "__main__":
    main(prog_name="python -m paper")
