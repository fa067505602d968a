"""bdloss calibrate: which margin of a model's outlines holds true walls."""

from pathlib import Path
from typing import Any

import click

from bdloss.cli.command import Command, one_line_errors, start_keras
from bdloss.cli.options import EXISTING, FOLDER, outline_options


@click.command(cls=Command)
@click.argument("model", type=EXISTING)
@click.option(
    "--data",
    type=FOLDER,
    required=True,
    help="Scenes that it has not learned from: images/ beside masks/ or outlines.",
)
@click.option(
    "--alpha",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of true walls that may lie beyond the margin, on average.",
)
@click.option(
    "--unit",
    type=click.Choice(["scene", "site"]),
    default="scene",
    show_default=True,
    help="What the average is over; scenes whose names begin alike are a site.",
)
@click.option(
    "--tta",
    type=click.Choice(["none", "flips", "d4"]),
    help="As predict will be told.  [the model's]",
)
@outline_options
@click.option("--overwrite", is_flag=True, help="Replace a margin that is there.")
def calibrate(
    model: Path,
    data: Path,
    alpha: float,
    unit: str,
    tta: str | None,
    overwrite: bool,
    **outlines: Any,
) -> None:
    """Find the margin around outlines that true walls lie in, with a promise.

    It holds for scenes of the same kind as those of --data, not for other towns,
    cameras or seasons. Writes MODEL.margin.json beside the model, for predict --margin;
    that of buildings, which comes with bdloss, is written here.
    """
    start_keras()
    with one_line_errors():
        from bdloss.data.folder import read_folder
        from bdloss.files import refuse_existing
        from bdloss.inference.calibration import calibrate as find_margin
        from bdloss.inference.margin import (
            DISTANCE,
            PROBABILITY,
            margin_path,
            write_margin,
        )
        from bdloss.models import load_predictor

        path = margin_path(model)
        refuse_existing(path, overwrite)
        scenes = read_folder(data, validation=0).train
        margin = find_margin(
            load_predictor(model),
            scenes,
            alpha,
            unit,
            outlines=outlines,
            progress=click.echo,
            tta=tta,
        )
        write_margin(margin, model)
    like = f"(of {margin.units} {unit}s like these)"
    click.echo(f"{margin.promise(DISTANCE)} {like}")
    if margin.doubt is None:
        click.echo("by probability: only the whole image would keep the promise")
    else:
        click.echo(f"by probability: {margin.promise(PROBABILITY)} {like}")
    click.echo(str(path))
