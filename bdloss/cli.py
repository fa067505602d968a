"""The commands: each parses, loads, calls one function and prints.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

import contextlib
import math
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from bdloss.errors import InputError, OutputExistsError

EXISTING = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)
BAR = (
    "{desc} {percentage:3.0f}% |{bar:20}| {n:.1f} of {total:.1f} Mpx, {remaining} left"
)
DEBUG = "bdloss.debug"  # whether errors are shown whole
THETAS = (3, 5, 7)  # window sides, pixels, that people choose from
DEFAULT = "banepa"  # the experiment of `train` without options


class BadInput(click.ClickException):
    """One line on standard error and exit code 2."""

    exit_code = 2


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Return the numbers of a text."""
        try:
            return tuple(int(word) for word in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 3,2,1", param, ctx)


class _Finite(click.FloatRange):
    """A number in a range that is one."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the number of a text."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class _Shard(click.ParamType):
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


class Fault(click.ClickException):
    """One line on what is our fault, and exit code 70."""

    exit_code = 70


def _allow_remote(ctx: click.Context, _: click.Parameter, allowed: bool) -> None:
    """Let the process, and those that it starts, open what files name."""
    if allowed:
        from bdloss.geo.trust import ALLOW_REMOTE

        os.environ[ALLOW_REMOTE] = "1"


class _Command(click.Command):
    """A command with `--debug`, whose own faults are one line too."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                callback=lambda ctx, _, value: ctx.meta.update({DEBUG: value}),
                help="Show all of an error, and where it came from.",
            )
        )
        self.params.append(
            click.Option(
                ["--allow-remote"],
                is_flag=True,
                expose_value=False,
                callback=_allow_remote,
                help="Let files name remote ones, see docs/security.md.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BadInput as error:
            if ctx.meta[DEBUG] and error.__cause__:
                raise error.__cause__ from None
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.meta[DEBUG]:
                raise
            raise Fault(f"{_place_of(error)}; --debug shows all of it") from error


class _Group(click.Group):
    """A group of such commands."""

    command_class = _Command
    group_class = type


def _place_of(error: BaseException) -> str:
    """Say what went wrong inside, and where, in a line."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parent
    ours = [frame for frame in frames if package in Path(frame.filename).parents]
    frame = (ours or frames)[-1]
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return (
        f"this is a fault of bdloss, not of your input: {what} "
        f"({Path(frame.filename).name}, line {frame.lineno})"
    )


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn what the user can mend into one line."""
    try:
        yield
    except (InputError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInput(lines[0]) from error


def _start_keras(together: bool = False) -> None:
    """Load Keras without its backend's start-up messages.

    With `together`, find the processes that train with this one, if there are any.
    TensorFlow writes some of them to the file descriptor, whatever its log level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    screen = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras

        if together:
            from bdloss.training import devices

            devices.join_processes()
        keras.ops.zeros(())  # looks for devices
    finally:
        os.dup2(screen, 2)
        os.close(screen)


@click.group(cls=_Group)
@click.version_option(package_name="bdloss")
def main() -> None:
    """Sharp building edges from orthophotos."""


@main.command()
@click.option("--dataset", metavar="NAME", help="An experiment that comes with us.")
@click.option("--config", type=EXISTING, help="An experiment file of your own (TOML).")
@click.option("--data", type=FOLDER, help="Folder of the data set.")
@click.option("--out", type=FOLDER, help="Run folder to write.  [runs/NAME]")
@click.option("--loss", metavar="NAME", help="boundary, dice, ss, vgg or none.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change any setting, as in --set loss.theta=7 --set stage.0.epochs=1.",
)
@click.option("--seed", type=int, help="Seed of all randomness.  [0]")
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
    with _one_line_errors():
        _start_keras(together=True)
        from bdloss.training import experiment as experiments
        from bdloss.training import run as training

        if dataset and config:
            raise InputError("give --dataset or --config, not both")
        name = config.stem if config else dataset or DEFAULT
        settings = (
            experiments.read_file(config) if config else experiments.read_named(name)
        )
        options = {"data": data, "seed": seed, "mixed_precision": mixed_precision}
        _change(settings, options, loss, changes)
        experiment = experiments.make_experiment(settings)
        folder = out or Path("runs") / name
        result = training.train(
            experiment, folder, devices=devices, fresh=fresh, say=click.echo
        )
    if not result:  # another process of several tells
        return
    for part in ("validation", "test"):
        if part in result:
            click.echo(f"{part:<11} {_scores(result[part])}")
    click.echo(f"model       {folder / 'model.keras'}")
    click.echo(f"pictures    {folder / 'curves.png'}, {folder / 'samples.png'}")


def _change(
    settings: dict[str, Any],
    options: dict[str, Any],
    loss: str | None,
    changes: tuple[str, ...],
) -> None:
    """Put the options of the command line into the settings of a file."""
    from bdloss.training.experiment import change

    for key, value in options.items():
        if value is not None:
            settings[key] = str(value) if isinstance(value, Path) else value
    if loss is not None:
        settings.setdefault("loss", {})["extra"] = loss
    for assignment in changes:
        change(settings, assignment)


def _scores(scores: dict[str, Any]) -> str:
    """Return scores as one line for a person."""
    names = {"iou": "IoU", "bf1_3": "BF1 (3 px)", "bf1_5": "BF1 (5 px)"}
    return "   ".join(
        f"{label} " + ("none" if scores[key] is None else f"{scores[key]:.3f}")
        for key, label in names.items()
    )


def _output_options(command: Callable) -> Callable:
    """Add the options that say what is written of a map."""
    options = [
        click.option("--prob", is_flag=True, help="Write probabilities (0..254) too."),
        click.option("--polygons/--no-polygons", default=True, help="Write outlines."),
        click.option(
            "--vector",
            type=click.Choice(["gpkg", "geojson", "fgb"]),
            default="gpkg",
            show_default=True,
            help="Format of the outlines.",
        ),
        click.option(
            "--min-area",
            type=_Finite(0),
            metavar="M2",
            default=5.0,
            show_default=True,
            help="Smallest polygon, square metres.",
        ),
        click.option(
            "--simplify",
            type=_Finite(0),
            metavar="PIXELS",
            default=1.0,
            show_default=True,
            help="Tolerance of outlines, pixels.",
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
        click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
    ]
    for option in reversed(options):  # the first decorator is applied last
        command = option(command)
    return command


@main.command()
@click.argument("rasters", nargs=-1, required=True, type=EXISTING)
@click.option("--model", required=True, type=EXISTING, help="A model.keras.")
@click.option("--out", type=FOLDER, default=Path(), help="Folder to write.  [here]")
@click.option(
    "--threshold",
    type=_Finite(0, 1),
    help="Probability from which a pixel is building.  [the model's]",
)
@click.option("--bands", type=_Numbers(), help="Bands to read, as in 3,2,1.")
@click.option(
    "--resolution",
    type=_Finite(0, min_open=True),
    metavar="METRES",
    help="Resample to this for the model; outputs stay on the input's grid.",
)
@click.option(
    "--nodata",
    type=float,
    metavar="VALUE",
    help="Where all bands have this, the image has no data, though it does not say so.",
)
@click.option("--window", type=int, help="Side of a window in pixels.  [the model's]")
@click.option("--overlap", type=int, help="Pixels that windows share.  [a quarter]")
@click.option("--batch", type=int, help="Windows a step.  [4; on a GPU measured]")
@click.option(
    "--tta",
    type=click.Choice(["none", "flips", "d4"]),
    help="Average over flips, or flips and turns.  [the model's]",
)
@click.option(
    "--mean",
    type=click.Choice(["arithmetic", "geometric"]),
    default="arithmetic",
    show_default=True,
    help="Mean that --tta takes.",
)
@_output_options
@click.option(
    "--masks",
    type=EXISTING,
    help="Truth to score against: a folder of masks, a mask, or a file of outlines.",
)
@click.option(
    "--shard",
    type=_Shard(),
    default="1/1",
    metavar="I/N",
    help="Do the I-th of N parts: of the rasters, or of the rows of one (see merge).",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Keep finished outputs and go on with half-finished ones.  [resume]",
)
def predict(
    rasters: tuple[Path, ...],
    model: Path,
    out: Path,
    masks: Path | None,
    shard: tuple[int, int],
    **options: Any,
) -> None:
    """Draw the buildings of orthophotos.

    Writes NAME_mask.tif and NAME_buildings.gpkg of each, and what the options ask for.
    RASTERS are files, folders of them, and addresses (a URL, a /vsi path). A run that
    was stopped goes on where it was when the same command is given again.
    """
    _start_keras()
    with _one_line_errors():
        import json

        from bdloss.evaluation import scoring
        from bdloss.files import atomic_path
        from bdloss.geo.orthophoto import Orthophoto
        from bdloss.inference import pipeline
        from bdloss.models import load_predictor

        images = pipeline.find_images(rasters)
        settings = pipeline.Settings(**options)
        read = [model, *([masks] if masks else [])]
        pipeline.check_outputs(images, out, settings, read)
        if len(images) > 1:
            images, shard = images[shard[0] - 1 :: shard[1]], (1, 1)
        predictor = load_predictor(model)
        counted = {}

        def map_one(image: Path) -> None:
            orthophoto = Orthophoto.read(image, settings.bands, settings.nodata)
            with _megapixels(orthophoto) as bar:
                mapped = pipeline.map_buildings(
                    orthophoto,
                    predictor,
                    out,
                    settings,
                    masks,
                    shard,
                    bar.update,
                    bar.write,
                )
            if shard[1] > 1:
                part = f"part {shard[0]}/{shard[1]} of its rows, for merge, in {out}"
                click.echo(f"{image.name}: {part}")
                return
            _describe(image, mapped)
            if mapped.counts is not None:
                counted[image.stem] = mapped.counts

        failures = _for_each(images, map_one)
        scores = {name: scoring.summarise([one]) for name, one in counted.items()}
        if scores:
            scores["all"] = scoring.summarise(counted.values())
            with atomic_path(out / "metrics.json") as partial:
                partial.write_text(json.dumps(scores, indent=2) + "\n")
    width = max((len(name) for name in scores), default=0)
    for name, values in scores.items():
        click.echo(f"{name:<{width}}  {_scores(values)}")
    _report_failures(failures, len(images))


@main.command()
@click.argument("rasters", nargs=-1, required=True, type=EXISTING)
@click.option("--out", type=FOLDER, default=Path(), help="The shards' --out.  [here]")
@_output_options
def merge(rasters: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Put together what predict --shard made.

    RASTERS are those that predict was given. The result is that of one predict; the
    options say what to write, as there. The shards write into one --out, or their
    folders are copied together into it.
    """
    _start_keras()
    with _one_line_errors():
        from bdloss.inference import pipeline

        settings = pipeline.Settings(**options)
        images = pipeline.find_images(rasters)
        pipeline.check_outputs(images, out, settings)
        failures = _for_each(
            images,
            lambda image: _describe(
                image, pipeline.merge_buildings(image, out, settings)
            ),
        )
    _report_failures(failures, len(images))


@main.command()
@click.argument("model", type=EXISTING)
@click.option("--out", "-o", type=EXISTING, help="ONNX file to write.  [MODEL.onnx]")
@click.option("--window", type=int, help="Side of a patch in pixels.  [the model's]")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def export(model: Path, out: Path | None, window: int | None, overwrite: bool) -> None:
    """Write a model as ONNX.

    The QGIS plugin Deepness and GeoDeep read it with all that they must be told.
    """
    _start_keras()
    with _one_line_errors():
        from bdloss.files import refuse_overlap
        from bdloss.inference.onnx import export_onnx
        from bdloss.models import load_predictor

        path = out or model.with_suffix(".onnx")
        refuse_overlap([path], [model])
        metadata = export_onnx(load_predictor(model), path, window, overwrite)
    click.echo(f"{path}")
    for key, value in metadata.items():
        click.echo(f"  {key:<20}  {value}")


def _for_each(images: list[Path], work: Callable[[Path], Any]) -> list[str]:
    """Do the work for each raster; return a line for each that it failed with."""
    failures = []
    for image in images:
        try:
            work(image)
        except Exception as error:  # whatever it is, the others are done
            if len(images) == 1:
                raise
            known = isinstance(error, (InputError, OSError))
            what = f"{error}" if known else _place_of(error)
            failures.append(f"{image.name}: {what}".splitlines()[0])
    return failures


def _report_failures(failures: list[str], images: int) -> None:
    """Name what went wrong with some of several rasters; exit code 1."""
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    if failures:
        raise click.ClickException(f"{len(failures)} of {images} rasters failed")


def _megapixels(orthophoto: Any) -> Any:
    """Return a progress bar over the pixels of an orthophoto."""
    from tqdm import tqdm

    total = orthophoto.geobox.width * orthophoto.geobox.height / 1e6
    return tqdm(total=total, desc=orthophoto.path.name, bar_format=BAR)


def _describe(raster: Path, mapped: Any) -> None:
    """Name the files that came of a raster."""
    found = "" if mapped.buildings is None else f"{mapped.buildings} buildings: "
    kept = "kept: " if mapped.kept else ""
    files = ", ".join(str(path) for path in mapped.files)
    click.echo(f"{raster.name}: {kept}{found}{files}")


@main.command()
@click.argument("predictions", type=EXISTING)
@click.argument("truths", type=EXISTING)
@click.option("--out", type=FOLDER, help="Folder for JSON, Markdown and pictures.")
@click.option("--images", type=EXISTING, help="Orthophotos, to stand in the pictures.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
def score(
    predictions: Path,
    truths: Path,
    out: Path | None,
    images: Path | None,
    overwrite: bool,
) -> None:
    """Score predicted masks against true ones.

    PREDICTIONS and TRUTHS are masks or folders of them, paired by name (NAME.tif or
    NAME_mask.tif); one file of outlines does for all TRUTHS.
    """
    _start_keras()
    with _one_line_errors():
        from bdloss.evaluation import scoring, tables

        result = scoring.score_rasters(
            predictions, truths, out, images, overwrite=overwrite
        )
    table = tables.tabulate_scores(result)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *values in table:
        cells = zip(values, widths[1:], strict=True)
        texts = [
            f"{first:<{widths[0]}}",
            *(f"{text:>{width}}" for text, width in cells),
        ]
        click.echo("  ".join(texts))
    for note in tables.note_scores(result):
        click.echo(note)
    if out:
        click.echo(f"written: {out / 'scores.json'}, scores.md and pictures")


@main.command()
@click.argument("prediction", type=EXISTING)
@click.argument("truth", type=EXISTING)
@click.option("--image", type=EXISTING, help="The orthophoto, to stand beside them.")
@click.option(
    "--out",
    type=EXISTING,
    default=Path("figure.png"),
    show_default=True,
    help="PNG file to write.",
)
@click.option(
    "--corner",
    type=int,
    nargs=2,
    metavar="ROW COLUMN",
    help="Where the window is.  [where the true boundary is longest]",
)
@click.option(
    "--side",
    type=click.IntRange(min=8),
    default=256,
    show_default=True,
    help="Side of the window, pixels.",
)
@click.option("--theta0", type=int, default=3, show_default=True, help="Of Eq. 1.")
@click.option("--theta", type=int, default=5, show_default=True, help="Of Eq. 2.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def figure(prediction: Path, truth: Path, out: Path, **options: Any) -> None:
    """Draw the steps of the boundary loss, as Figure 1 of the paper does.

    PREDICTION is a mask or a NAME_prob.tif, TRUTH a mask or a file of outlines.
    """
    _start_keras()
    with _one_line_errors():
        from bdloss.evaluation import scoring

        window = scoring.draw_stages(prediction, truth, out, **options)
    click.echo(f"{out}: row {window.row}, column {window.col}")


@main.command()
@click.argument("truths", nargs=-1, type=EXISTING)
@click.option("--dataset", default="folder", show_default=True, help="Kind of --data.")
@click.option("--data", type=FOLDER, help="A data set, instead of single files.")
@click.option(
    "--resolution", type=_Finite(0, min_open=True), help="Metres a pixel of outlines."
)
@click.option(
    "--share",
    type=_Finite(0, 1),
    default=0.05,
    show_default=True,
    help="Share of buildings that may stand closer than theta.",
)
@click.option("--out", type=EXISTING, help="Histogram to write (PNG).")
@click.option("--overwrite", is_flag=True, help="Replace a histogram that exists.")
def theta(
    truths: tuple[Path, ...],
    dataset: str,
    data: Path | None,
    resolution: float | None,
    share: float,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Say which theta the gaps between buildings allow."""
    with _one_line_errors():
        from bdloss.data import datasets
        from bdloss.evaluation import gaps
        from bdloss.files import refuse_overlap

        refuse_overlap([out] if out else [], truths)
        if bool(truths) == bool(data):
            raise InputError("give masks and outlines, or --data, and not both")
        if out and out.exists() and not overwrite:
            raise OutputExistsError(f"{out} exists; give --overwrite")
        if data:
            if dataset not in datasets.READERS:
                raise InputError(
                    f"dataset must be one of {', '.join(datasets.READERS)}, "
                    f"got {dataset!r}"
                )
            splits = datasets.READERS[dataset](data)
            whole = {s.name: s._replace(area=None) for part in splits for s in part}
            found = gaps.measure_scenes(whole.values(), click.echo)
        else:
            found = gaps.measure_files(truths, resolution, click.echo)
        advice = gaps.advise(found, share)
        if out:
            gaps.draw_gaps(found, out, share)
    rows = [
        ("buildings", f"{advice.buildings}, {advice.alone} of them alone"),
        ("smallest gap", f"{advice.smallest:g} pixels: theta {advice.theta or 'none'}"),
        (
            f"all but {share:.0%}",
            f"{advice.quantile:g} pixels: theta {advice.robust_theta or 'none'}",
        ),
    ]
    for side in THETAS:
        closer = gaps.share_closer(found, side)
        rows.append((f"theta {side}", f"{closer:.0%} of buildings stand too close"))
    for name, value in rows:
        click.echo(f"{name:<14}{value}")


@main.group("data")
def data_group() -> None:
    """Check a data set, look at what is trained on, clear what was cached."""


@data_group.command("check")
@click.option("--dataset", required=True, metavar="NAME", help="As in train.")
@click.option("--data", required=True, type=FOLDER, help="Folder of the data set.")
@click.option("--quick", is_flag=True, help="Open the files only.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="As bands=rgbir+dsm."
)
def check_data(dataset: str, data: Path, quick: bool, changes: tuple[str, ...]) -> None:
    """List what is missing, unreadable, mismatched or suspicious, and the totals.

    The exit code is 1 if anything is missing, unreadable or mismatched.
    """
    _start_keras()
    with _one_line_errors():
        from bdloss.data import check
        from bdloss.training import experiment as experiments
        from bdloss.training import run as training

        settings: dict[str, Any] = {}
        for assignment in changes:
            experiments.change(settings, assignment)
        settings |= {"dataset": dataset, "data": str(data)}
        splits = training.read_splits(experiments.make_experiment(settings))
        found = []
        for fault in check.check_splits(splits, dataset, quick):
            click.echo(f"{fault.kind:<10}  {fault.text}")
            found.append(fault)
        if not quick:
            for part, scenes in splits._asdict().items():
                click.echo(f"{part:<10}  {check.count_scenes(scenes)}")
    grave = sum(fault.is_grave for fault in found)
    click.echo(f"faults      {grave}, and {len(found) - grave} to look at")
    if grave:
        raise SystemExit(1)


@data_group.command()
@click.option("--dataset", metavar="NAME", help="An experiment that comes with us.")
@click.option("--config", type=EXISTING, help="An experiment file of your own (TOML).")
@click.option("--data", type=FOLDER, help="Folder of the data set.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change any setting, as in --set patch=512 --set augment=strong.",
)
@click.option("--seed", type=int, help="Seed of positions and augmentation.  [0]")
@click.option(
    "--out",
    type=EXISTING,
    default=Path("patches.png"),
    show_default=True,
    help="PNG file to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def show(
    dataset: str | None,
    config: Path | None,
    data: Path | None,
    changes: tuple[str, ...],
    seed: int | None,
    out: Path,
    overwrite: bool,
) -> None:
    """Draw patches as training sees them, augmented and with outlines."""
    _start_keras()
    with _one_line_errors():
        from bdloss.data import cache
        from bdloss.data.contact_sheet import draw_contact_sheet
        from bdloss.files import refuse_overlap
        from bdloss.training import experiment as experiments
        from bdloss.training import run as training

        if dataset and config:
            raise InputError("give --dataset or --config, not both")
        settings = (
            experiments.read_file(config)
            if config
            else experiments.read_named(dataset or DEFAULT)
        )
        _change(settings, {"data": data, "seed": seed}, None, changes)
        experiment = experiments.make_experiment(settings)
        folder = cache.default_folder()
        scenes = training.read_splits(experiment).train
        refuse_overlap([out], [path for scene in scenes for path in scene[1:3]])
        draw_contact_sheet(
            # What is cached is used; nothing is decoded whole for a few patches.
            [cache.load_cached(scene, folder, limit=0) for scene in scenes],
            out,
            patch=experiment.patch,
            augment=experiment.augment,
            building_bias=experiment.building_bias,
            seed=experiment.seed,
            overwrite=overwrite,
        )
    click.echo(f"{out}: outlines in yellow, ignored pixels dark")


@data_group.command("clear-cache")
@click.option("--cache", type=FOLDER, help="The cache.  [~/.cache/bdloss]")
def clear_cache(cache: Path | None) -> None:
    """Remove the scenes that trainings have decoded."""
    with _one_line_errors():
        from bdloss.data import cache as caches

        folder = cache or caches.default_folder()
        freed = caches.clear_cache(folder)
    click.echo(f"{folder}: {freed / 1e9:.2f} GB removed")
