"""bdloss export."""

from pathlib import Path

import click

from bdloss.cli.command import Command, one_line_errors, start_keras
from bdloss.cli.options import EXISTING


@click.command(cls=Command)
@click.argument("model", type=EXISTING)
@click.option("--out", "-o", type=EXISTING, help="ONNX file to write.  [MODEL.onnx]")
@click.option("--window", type=int, help="Side of a patch in pixels.  [the model's]")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def export(model: Path, out: Path | None, window: int | None, overwrite: bool) -> None:
    """Write a model as ONNX.

    The QGIS plugin Deepness and GeoDeep read it with all that they must be told.
    """
    start_keras()
    with one_line_errors():
        from bdloss.files import refuse_overlap
        from bdloss.inference.onnx import export_onnx
        from bdloss.models import load_predictor

        path = out or model.with_suffix(".onnx")
        refuse_overlap([path], [model])
        metadata = export_onnx(load_predictor(model), path, window, overwrite)
    click.echo(f"{path}")
    for key, value in metadata.items():
        click.echo(f"  {key:<20}  {value}")
