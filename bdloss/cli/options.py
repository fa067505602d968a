"""Options that several commands take, and the kinds of their values."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

EXISTING = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Raster(click.ParamType):
    """A file, a folder, a URL or a `/vsi` path."""

    name = "raster"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Return the path of a text."""
        from bdloss.geo.trust import path_of

        return path_of(value)


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Return the numbers of a text."""
        try:
            return tuple(int(word) for word in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 3,2,1", param, ctx)


class AreaOfInterest(click.ParamType):
    """A vector file, or four numbers with commas or spaces between them."""

    name = "area"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path | tuple[float, ...]:
        """Return the file or the numbers of a text."""
        try:
            numbers = tuple(float(word) for word in value.replace(",", " ").split())
        except ValueError:
            return Path(value)
        if len(numbers) != 4:
            self.fail(f"{value!r} is not like xmin,ymin,xmax,ymax", param, ctx)
        return numbers


class Finite(click.FloatRange):
    """A number in a range that is one."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the number of a text."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Resolution(click.ParamType):
    """Metres, or which of two to take."""

    name = "metres"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        """Return the number or the name of a text."""
        if value in ("auto", "native"):
            return value
        try:
            metres = float(value)
        except ValueError:
            metres = 0.0
        if not 0 < metres < math.inf:
            self.fail(f"{value!r} is neither auto, native nor metres", param, ctx)
        return metres


class Length(click.ParamType):
    """A length in pixels, as in 3, or in metres, as in 0.9m."""

    name = "length"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, float]:
        """Return the argument of `score_rasters` that it is."""
        number, _, rest = str(value).partition("m")
        try:
            length = float(number) if rest == "" and number != value else int(value)
        except ValueError:
            length = 0
        if not 0 < length < math.inf:
            self.fail(f"{value!r} is neither pixels, as 3, nor metres, as 0.9m", param)
        return {"distance_m" if isinstance(length, float) else "distance": length}


class Shard(click.ParamType):
    """One part of several, as in 2/8."""

    name = "shard"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Return which part, from 1, and how many there are."""
        try:
            part, parts = (int(word) for word in value.split("/"))
        except ValueError:
            self.fail(f"{value!r} is not like 2/8", param, ctx)
        if not 1 <= part <= parts:
            self.fail(f"a shard is from 1/N to N/N, got {value}", param, ctx)
        return part, parts


model_option = click.option(
    "--model",
    type=EXISTING,
    default=Path("buildings"),
    show_default=True,
    help="A model.keras; buildings comes with bdloss: docs/model.md.",
)


def outline_options(command: Callable) -> Callable:
    """Add the options that say how outlines are made."""
    options = [
        click.option(
            "--min-area",
            type=Finite(0),
            metavar="M2",
            default=5.0,
            show_default=True,
            help="Smallest polygon, square metres.",
        ),
        click.option(
            "--simplify",
            type=Finite(0),
            metavar="PIXELS",
            default=1.0,
            show_default=True,
            help="Tolerance of outlines, pixels.",
        ),
        click.option(
            "--min-hole",
            type=Finite(0),
            metavar="M2",
            default=0.0,
            show_default=True,
            help="Smallest hole of a polygon, square metres.",
        ),
        click.option(
            "--regularize",
            is_flag=True,
            help="Give buildings right angles and straight walls.",
        ),
        click.option(
            "--min-iou",
            type=Finite(0, 1),
            default=0.9,
            show_default=True,
            help="With its pixels, for a building to be regularized.",
        ),
        click.option(
            "--split/--no-split",
            default=True,
            help="Outline touching buildings one by one, if the model knows contact.",
        ),
    ]
    return _add(options, command)


def output_options(command: Callable) -> Callable:
    """Add the options that say what is written of a map, and how."""
    options = [
        click.option("--prob", is_flag=True, help="Write probabilities (0..254) too."),
        click.option("--polygons/--no-polygons", default=True, help="Write outlines."),
        click.option(
            "--vector",
            type=click.Choice(["gpkg", "geojson", "fgb", "parquet"]),
            default="gpkg",
            show_default=True,
            help="Format of the outlines.",
        ),
        click.option(
            "--format",
            type=click.Choice(["geotiff", "inria"]),
            default="geotiff",
            show_default=True,
            help="inria: masks of 0 and 255, named as the images, to submit.",
        ),
        click.option("--cog", is_flag=True, help="Write cloud-optimised GeoTIFFs."),
        click.option("--overviews", is_flag=True, help="Give rasters overviews."),
        click.option(
            "--overlay", is_flag=True, help="Draw the outlines on the image (PNG)."
        ),
        click.option(
            "--margin",
            type=click.Choice(["distance", "probability"]),
            help="Write where true walls lie, as bdloss calibrate found it.",
        ),
        click.option(
            "--report", is_flag=True, help="Write a page to look at, NAME_report.html."
        ),
        click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
    ]
    return outline_options(_add(options, command))


class_option = click.option(
    "--class",
    "value",
    type=int,
    metavar="VALUE",
    help="In masks, the value of the class to look at.  [all but 0]",
)


def experiment_options(command: Callable) -> Callable:
    """Add the options that name an experiment and change it."""
    options = [
        click.option(
            "--dataset", metavar="NAME", help="An experiment that comes with us."
        ),
        click.option(
            "--config", type=EXISTING, help="An experiment file of your own (TOML)."
        ),
        click.option("--data", type=FOLDER, help="Folder of the data set."),
        click.option(
            "--set",
            "changes",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change any setting, as in --set loss.theta=7 --set stage.0.epochs=1.",
        ),
        click.option("--seed", type=int, help="Seed of all randomness.  [0]"),
    ]
    return _add(options, command)


def _add(options: list[Callable], command: Callable) -> Callable:
    for option in reversed(options):  # the first decorator is applied last
        command = option(command)
    return command
