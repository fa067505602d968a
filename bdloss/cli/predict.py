"""bdloss predict, bdloss merge: the buildings of orthophotos."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from bdloss.cli.command import (
    Command,
    failure_line,
    for_each,
    one_line_errors,
    report_failures,
    start_keras,
)
from bdloss.cli.options import (
    EXISTING,
    FOLDER,
    AreaOfInterest,
    Finite,
    Numbers,
    Raster,
    Resolution,
    Shard,
    model_option,
    output_options,
)
from bdloss.constants import AUTO, BUILDING, ENGINES, KERAS
from bdloss.errors import InputError, NoOverlapError
from bdloss.memory import keep_freed_memory

BAR = (
    "{desc} {percentage:3.0f}% |{bar:20}| {n:.1f} of {total:.1f} Mpx, {remaining} left"
)
ROUNDING = 1e-6  # megapixels, by which the sum of all parts may differ from the whole
HOW = ("window", "overlap", "batch", "threshold", "tta", "mean", "resolution")


@click.command(cls=Command)
@click.argument("rasters", nargs=-1, required=True, type=Raster())
@model_option
@click.option("--out", type=FOLDER, default=Path(), help="Folder to write.  [here]")
@click.option(
    "--threshold",
    type=Finite(0, 1),
    help="Probability from which a pixel is building.  [the model's]",
)
@click.option("--bands", type=Numbers(), help="Bands to read, as in 3,2,1.")
@click.option(
    "--resolution",
    type=Resolution(),
    metavar="METRES",
    default=AUTO,
    show_default=True,
    help="Of what the model sees, or native; auto: the model's, if another.",
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
    "--engine",
    type=click.Choice([AUTO, *ENGINES]),
    default=AUTO,
    show_default=True,
    help="What computes; auto: the fastest exact one, where it is worth it.",
)
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
@click.option(
    "--aoi",
    type=AreaOfInterest(),
    metavar="AREA",
    help="Predict here only: a vector file, or xmin,ymin,xmax,ymax.",
)
@click.option("--aoi-crs", metavar="CRS", help="CRS of the four.  [the raster's]")
@click.option(
    "--aoi-edge",
    type=click.Choice(["cut", "whole"]),
    default="cut",
    show_default=True,
    help="Cut buildings there, or keep those whole whose middle is inside.",
)
@output_options
@click.option(
    "--compare",
    type=FOLDER,
    help="Another --out, whose outlines the page shows beside these.",
)
@click.option(
    "--masks",
    type=EXISTING,
    help="Truth to score against: a folder of masks, a mask, or a file of outlines.",
)
@click.option(
    "--shard",
    type=Shard(),
    default="1/1",
    metavar="I/N",
    help="Do the I-th of N parts: of the rasters, or of the rows of one (see merge).",
)
@click.option(
    "--scheduler",
    metavar="WHERE",
    help="Of Dask workers that predict: tcp://host:port, local:N or slurm:N.",
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
    bands: tuple[int, ...] | None,
    nodata: float | None,
    aoi: Path | tuple[float, ...] | None,
    aoi_crs: str | None,
    aoi_edge: str,
    margin: str | None,
    report: bool,
    compare: Path | None,
    masks: Path | None,
    shard: tuple[int, int],
    scheduler: str | None,
    resume: bool,
    engine: str,
    overwrite: bool,
    **options: Any,
) -> None:
    """Draw the buildings of orthophotos.

    Writes NAME_mask.tif and NAME_buildings.gpkg of each, and what the options ask for.
    RASTERS are files, folders of them, and addresses (a URL, a /vsi path). A run that
    was stopped goes on where it was when the same command is given again.
    """
    with one_line_errors(), TemporaryDirectory() as aside:
        from bdloss.evaluation.predictions import PredictionScores
        from bdloss.geo.orthophoto import Orthophoto
        from bdloss.inference import predict as front
        from bdloss.inference.engines import is_at_hand
        from bdloss.models import find_model, load_predictor

        if scheduler and engine == AUTO:
            engine = KERAS  # workers may differ in what is the fastest
        without_keras = is_at_hand(model, engine)
        if without_keras:
            keep_freed_memory()
        elif not scheduler:
            start_keras()
        options |= _read_margin(model, margin)
        images = front.find_images(rasters)
        how = {name: options.pop(name) for name in HOW}
        files = (find_model(model), masks, aoi)
        read = [path for path in files if isinstance(path, Path)]
        _check_outputs(images, out, options, read)
        if aoi_crs and not isinstance(aoi, tuple):
            raise InputError("--aoi-crs is the CRS of an --aoi of four numbers")
        several = len(images) > 1
        for option, wanted in (("--margin", margin), ("--report", report)):
            if wanted and shard != (1, 1) and not several:
                raise InputError(f"{option} is of whole rasters: give it to merge")
        if compare and not report:
            raise InputError("--compare is shown in a --report")
        if compare and not options["polygons"]:
            raise InputError("--compare is of outlines, which --no-polygons leaves out")
        if scheduler:
            for option, value in (
                ("--masks", masks),
                ("--report", report),
                ("--shard", shard != (1, 1)),
                ("--no-resume", not resume),
            ):
                if value:
                    raise InputError(f"{option} does not go with --scheduler")
        elif several:
            images, shard = images[shard[0] - 1 :: shard[1]], (1, 1)
        elif shard != (1, 1) and not resume:
            raise InputError("--no-resume would remove the rows of other shards, too")

        def read_raster(image: Path) -> Orthophoto | None:
            """Return a raster with its area; None if it lies outside of it."""
            orthophoto = Orthophoto.read(image, bands, nodata)
            try:
                if aoi is not None:
                    orthophoto = orthophoto.within(aoi, aoi_crs, aoi_edge)
            except NoOverlapError:
                if not several:
                    raise
                click.echo(f"{image.name}: outside of the area of interest")
                return None
            return orthophoto

        if margin:
            click.echo(f"margin: {options['margin'].promise(margin)}")
        if scheduler:
            how |= {"engine": engine, "overwrite": overwrite}
            _predict_by_workers(
                *(scheduler, not without_keras, images, read_raster),
                *(model, out, options, how),
            )
            return
        predictor = load_predictor(model, lazy=without_keras)
        if masks and len(predictor.classes) > 1:
            raise InputError(
                "--masks scores one class, the model has "
                f"{', '.join(predictor.classes)}; score --class takes one of them"
            )
        scores = PredictionScores(masks)
        irregular = PredictionScores(masks)

        def predict_one(image: Path) -> None:
            orthophoto = read_raster(image)
            if orthophoto is None:
                return
            truth = scores.reduced_truth(orthophoto)
            products = _name_products(image, out, options, overlay_mask=truth)
            if masks and products.regularize and products.polygons:
                plain = Path(aside, products.polygons.name)
                products = dataclasses.replace(products, irregular=plain)
            if report:
                _check_page(image, out, products, overwrite)
            other = _other_outlines(products, compare)
            with _megapixels(orthophoto) as bar:
                result = front.predict_raster(
                    orthophoto,
                    predictor,
                    products,
                    shard=shard,
                    overwrite=overwrite,
                    resume=resume,
                    engine=engine,
                    progress=bar.update,
                    **how,
                )
            if shard[1] > 1:
                part = f"part {shard[0]}/{shard[1]} of its rows, for merge, in {out}"
                click.echo(f"{image.name}: {part}")
                return
            _describe(image, result)
            judged = scores.add(
                orthophoto,
                products.mask,
                products.polygons,
                margin=products.counted_margin,
                judge=report,
            )
            if report:
                known = {"truth": scores.find(orthophoto), "other": other}
                _write_page(image, out, products, result, overwrite, judged, **known)
            if result.regularized:
                irregular.add(orthophoto, products.mask, products.irregular)

        failures = for_each(images, predict_one)
        scores.write(out / "metrics.json")
    for line in [*scores.lines(), *scores.lines_of_change(irregular)]:
        click.echo(line)
    report_failures(failures, len(images))


@click.command(cls=Command)
@click.argument("rasters", nargs=-1, required=True, type=Raster())
@model_option
@click.option("--out", type=FOLDER, default=Path(), help="The shards' --out.  [here]")
@output_options
def merge(
    rasters: tuple[Path, ...],
    model: Path,
    out: Path,
    margin: str | None,
    report: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Put together what predict --shard made.

    RASTERS are those that predict was given. The result is that of one predict; the
    options say what to write, as there; --model is looked at for its --margin alone.
    The shards write into one --out, or their folders are copied together into it.
    """
    with one_line_errors():
        from bdloss.inference import predict as front

        options |= _read_margin(model, margin)
        images = front.find_images(rasters)
        _check_outputs(images, out, options)

        def merge_one(image: Path) -> None:
            products = _name_products(image, out, options)
            if report:
                _check_page(image, out, products, overwrite)
            result = front.merge_shards(image, products, overwrite=overwrite)
            _describe(image, result)
            if report:
                _write_page(image, out, products, result, overwrite)

        failures = for_each(images, merge_one)
    report_failures(failures, len(images))


def _predict_by_workers(
    scheduler: str,
    with_keras: bool,
    images: Sequence[Path],
    read_raster: Callable[[Path], Any],
    model: Path,
    out: Path,
    options: dict[str, Any],
    how: dict[str, Any],
) -> None:
    """Predict orthophotos on the workers of a Dask cluster."""
    from tqdm import tqdm

    from bdloss.inference import cluster
    from bdloss.models import SHIPPED, digest_of

    tasks: list[cluster.Task] = []
    named = model if model == Path(SHIPPED) else model.absolute()
    digest = digest_of(model)

    def plan(image: Path) -> None:
        orthophoto = read_raster(image)
        if orthophoto is not None:
            products = _name_products(image, out.absolute(), options)
            tasks.append(
                cluster.Task.plan(
                    orthophoto,
                    products=products,
                    model=named,
                    digest=digest,
                    settings=how,
                )
            )

    there = [image.absolute() if image.exists() else image for image in images]
    failures = for_each(there, plan)  # an address stays one
    if not tasks:
        report_failures(failures, len(images))
        return
    total = sum(task.megapixels for task in tasks) + ROUNDING
    try:
        with (
            cluster.connect(scheduler, with_keras) as client,
            tqdm(total=total, desc=f"{len(tasks)} rasters", bar_format=BAR) as bar,
        ):
            for task, result in cluster.predict_on_workers(client, tasks, bar.update):
                image = task.orthophoto.path
                if not isinstance(result, Exception):
                    with tqdm.external_write_mode():
                        _describe(image, result)
                elif len(images) == 1:
                    raise result
                else:
                    failures.append(failure_line(image, result))
    except (InputError, OSError):
        for failure in failures:  # found before the cluster was gone
            click.echo(f"Error: {failure}", err=True)
        raise
    report_failures(failures, len(images))


def _name_products(image: Path, out: Path, options: dict[str, Any], **more: Any) -> Any:
    from bdloss.inference.products import Products

    return Products.in_folder(out, image.stem, **options, **more)


def _read_margin(model: Path, margin: str | None) -> dict[str, Any]:
    """Return what `Products` must know of a margin, if one is wanted."""
    from bdloss.inference.margin import read_margin

    if margin is None:
        return {}
    return {"margin": read_margin(model, margin), "margin_by": margin}


def _page_of(image: Path, out: Path) -> Path:
    return out / f"{image.stem}_report.html"


def _check_page(image: Path, out: Path, products: Any, overwrite: bool) -> None:
    """Refuse a page that is there where the other files are not."""
    from bdloss.files import refuse_existing

    if not products.mask.exists():
        refuse_existing(_page_of(image, out), overwrite)


def _write_page(
    image: Path,
    out: Path,
    products: Any,
    result: Any,
    overwrite: bool,
    judged: Any = None,
    **known: Path | None,
) -> None:
    """Write the page of a raster, unless it is there as its other files are."""
    from bdloss.report.prediction import write_report

    page = _page_of(image, out)
    if result.kept and page.exists():
        click.echo(f"{image.name}: kept: {page}; --overwrite writes it anew")
        return
    write_report(
        products.as_prediction(image, **known), page, judged, overwrite=overwrite
    )
    click.echo(f"{image.name}: {page}")


def _other_outlines(products: Any, folder: Path | None) -> Path | None:
    """Return the outlines of another prediction of the same raster."""
    if folder is None:
        return None
    path = folder / products.polygons.name
    if not path.is_file():
        raise FileNotFoundError(f"no outlines to compare with: {path}")
    return path


def _check_outputs(
    images: Sequence[Path],
    out: Path,
    options: dict[str, Any],
    read: Sequence[Path] = (),
) -> None:
    """Refuse to write over what is read, before anything is."""
    from bdloss.files import refuse_overlap

    outputs = [_name_products(image, out, options).paths for image in images]
    refuse_overlap([path for paths in outputs for path in paths], [*images, *read])
    if any(path.is_dir() and path.resolve() == out.resolve() for path in read):
        raise InputError(f"truth must lie in a folder that is not --out, got {out}")


def _megapixels(orthophoto: Any) -> Any:
    """Return a progress bar over the pixels of an orthophoto that are predicted."""
    from tqdm import tqdm

    total = orthophoto.window.width * orthophoto.window.height / 1e6 + ROUNDING
    return tqdm(total=total, desc=orthophoto.path.name, bar_format=BAR)


def _describe(image: Path, result: Any) -> None:
    """Name the files that were written for a raster."""
    what = "buildings" if result.classes == (BUILDING,) else "outlines"
    number = "" if result.polygons is None else f"{result.polygons} {what}: "
    kept = "kept: " if result.kept else ""
    files = ", ".join(str(path) for path in result.files)
    click.echo(f"{image.name}: {kept}{number}{files}")
    if result.regularized:
        regular, before, after = result.regularized
        click.echo(
            f"{image.name}: {regular} of {result.polygons} have right angles; "
            f"{before} vertices became {after}"
        )
