"""bdloss train."""

from pathlib import Path

import click

from bdloss.cli.command import Command, one_line_errors, start_keras
from bdloss.cli.options import EXISTING, FOLDER, experiment_options


@click.command(cls=Command)
@experiment_options
@click.option("--out", type=FOLDER, help="Run folder to write.  [runs/NAME]")
@click.option(
    "--from",
    "start",
    type=EXISTING,
    metavar="MODEL",
    help="A model.keras to start from, in the place of [model].",
)
@click.option(
    "--loss", metavar="NAME", help="oriented, boundary (the paper's), none, ..."
)
@click.option(
    "--devices",
    default="1",
    metavar="N",
    help="How many GPUs train together, or all.  [1]",
)
@click.option(
    "--mixed-precision",
    is_flag=True,
    default=None,
    help="Compute in float16, for GPUs with tensor cores.",
)
@click.option("--fresh", is_flag=True, help="Start over what was begun in --out.")
def train(
    dataset: str | None,
    config: Path | None,
    data: Path | None,
    out: Path | None,
    start: Path | None,
    loss: str | None,
    changes: tuple[str, ...],
    seed: int | None,
    devices: str,
    mixed_precision: bool | None,
    fresh: bool,
) -> None:
    """Train a network; without options, on the sample that comes with the project.

    A run that was stopped goes on where it was when the command is given again.
    """
    with one_line_errors():
        start_keras(together=True)
        from bdloss.evaluation.scores import Scores
        from bdloss.evaluation.tables import one_line
        from bdloss.training import run
        from bdloss.training.experiment import load_experiment

        overrides = {
            "dataset.root": data,
            "seed": seed,
            "fit.mixed_precision": mixed_precision,
            "loss.extra": loss,
        }
        name, experiment = load_experiment(dataset, config, overrides, changes, start)
        folder = out or Path("runs") / name
        result = run.train(experiment, folder, devices=devices, fresh=fresh)
    if not result:  # another process of several tells
        return
    for part in ("validation", "test"):
        if part in result:
            click.echo(f"{part:<11} {one_line(Scores.from_json(result[part]))}")
            for name, values in result[part].get("classes", {}).items():
                click.echo(f"  {name:<9} {one_line(Scores.from_json(values))}")
    click.echo(f"model       {folder / 'model.keras'}")
    click.echo(f"pictures    {folder / 'curves.png'}, {folder / 'samples.png'}")
