"""bdloss score, figure, theta: how well it fits, how the loss works, which theta."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from bdloss.cli.command import Command, one_line_errors, start_keras
from bdloss.cli.options import EXISTING, FOLDER, Finite, Length, class_option
from bdloss.errors import InputError


@click.command(cls=Command)
@click.argument("predictions", type=EXISTING)
@click.argument("truths", type=EXISTING)
@click.option("--out", type=FOLDER, help="Folder for JSON, Markdown and pictures.")
@click.option("--images", type=EXISTING, help="Orthophotos, to stand in the pictures.")
@click.option(
    "--distance",
    type=Length(),
    default="3",
    show_default=True,
    help="Depth of Boundary IoU, in pixels, or in metres as in 0.9m.",
)
@click.option(
    "--resolution",
    type=Finite(0, min_open=True),
    metavar="METRES",
    default=0.3,
    show_default=True,
    help="Metres a pixel, where both sides are outlines.",
)
@click.option(
    "--margin",
    type=Finite(0, min_open=True),
    metavar="METRES",
    help="Count true walls so near to predicted outlines, as of predict --margin.",
)
@click.option(
    "--report",
    is_flag=True,
    help="Write a page of each of --images into --out, NAME_report.html.",
)
@class_option
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
def score(
    predictions: Path,
    truths: Path,
    out: Path | None,
    images: Path | None,
    distance: dict[str, Any],
    resolution: float,
    margin: float | None,
    report: bool,
    value: int | None,
    overwrite: bool,
) -> None:
    """Score predicted masks or outlines against true ones.

    PREDICTIONS and TRUTHS are masks, files of outlines in any CRS, or folders of them,
    paired by name (NAME.tif or NAME_mask.tif, NAME_buildings.gpkg); one file of
    outlines does for all TRUTHS. docs/scores.md says what each score sees.
    """
    with one_line_errors():
        from bdloss.evaluation import pairs, scoring, tables
        from bdloss.report.prediction import check_pages, report_pair

        on_scored = None
        if report:
            if not (out and images):
                raise InputError("--report needs --images, and --out for its pages")
            known = pairs.images_by_name(images)
            found, _ = pairs.find_pairs(predictions, truths, value)
            check_pages(found, known, out, overwrite)
            on_scored = partial(report_pair, known)
        result = scoring.score_rasters(
            predictions,
            truths,
            out,
            images,
            overwrite=overwrite,
            on_scored=on_scored,
            resolution=resolution,
            margin=margin,
            value=value,
            **distance,
        )
    for table in tables.tabulate_scores(result).values():
        click.echo(tables.as_plain_text(table) + "\n")
    for note in tables.note_scores(result):
        click.echo(note)
    if out:
        pages = ", pages" if report else ""
        click.echo(f"written: {out / 'scores.json'}, scores.md{pages} and pictures")


@click.command(cls=Command)
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
@class_option
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def figure(prediction: Path, truth: Path, out: Path, **options: Any) -> None:
    """Draw the steps of the boundary loss, as Figure 1 of the paper does.

    PREDICTION is a mask or a NAME_prob.tif, TRUTH a mask or a file of outlines.
    """
    start_keras()
    with one_line_errors():
        from bdloss.evaluation.loss_figure import draw_stages

        window = draw_stages(prediction, truth, out, **options)
    click.echo(f"{out}: row {window.row}, column {window.col}")


@click.command(cls=Command)
@click.argument("truths", nargs=-1, type=EXISTING)
@click.option("--dataset", default="folder", show_default=True, help="Kind of --data.")
@click.option("--data", type=FOLDER, help="A data set, instead of single files.")
@click.option(
    "--resolution", type=Finite(0, min_open=True), help="Metres a pixel of outlines."
)
@click.option(
    "--share",
    type=Finite(0, 1),
    default=0.05,
    show_default=True,
    help="Share of buildings that may stand closer than theta.",
)
@class_option
@click.option("--out", type=EXISTING, help="Histogram to write (PNG).")
@click.option("--overwrite", is_flag=True, help="Replace a histogram that exists.")
def theta(
    truths: tuple[Path, ...],
    dataset: str,
    data: Path | None,
    resolution: float | None,
    share: float,
    value: int | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Say which theta the gaps between buildings allow."""
    with one_line_errors():
        from bdloss.evaluation import gaps
        from bdloss.files import refuse_existing, refuse_overlap

        refuse_overlap([out] if out else [], truths)
        if bool(truths) == bool(data):
            raise InputError("give masks and outlines, or --data, and not both")
        if data and value is not None:
            raise InputError("--class is of masks that are given, not of --data")
        if out:
            refuse_existing(out, overwrite)
        if data:
            measured = gaps.measure_dataset(dataset, data)
        else:
            measured = gaps.measure_files(truths, resolution, value)
        rows = gaps.tabulate_advice(measured, share)
        if out:
            gaps.draw_gaps(measured, out, share)
    for name, text in rows:
        click.echo(f"{name:<14}{text}")
