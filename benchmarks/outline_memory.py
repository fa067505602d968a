"""Memory of sorting and writing very many outlines.

    python benchmarks/outline_memory.py [--outlines 5000000]

Prints, for each format, the processor time and the peak of memory above that of the
imports, of outlines that come out of order, in parts of 250 as a strip finishes them.
Each measurement is a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from bdloss.geo.geobox import GeoBox
from bdloss.geo.outline_spool import OutlineSpool
from bdloss.geo.outline_writer import FORMATS, create_outlines

PART = 250  # outlines
PITCH = 100  # pixels, from a building to the next: 100 in a megapixel
RESOLUTION = 0.3


def measure(suffix: str, number: int) -> None:
    """Sort and write that many outlines, and print what it took."""
    side = int(np.ceil(np.sqrt(number)))
    size = side * PITCH
    ground = make_ground(size)
    began, before = time.process_time(), peak()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows")
        rows.mkdir()
        spool = OutlineSpool(rows, ground, probability=float)
        for first in range(0, number, PART):
            indexes = np.arange(first, min(first + PART, number))
            # A part is finished a row of buildings late or early.
            row, col = indexes // side, indexes % side
            row = np.minimum(row + indexes % 2, side - 1)
            x = 400000 + col * PITCH * RESOLUTION
            y = 3500000 - row * PITCH * RESOLUTION
            spool.add(house(x, y), probability=indexes / number)
        sorting = peak()
        with create_outlines(Path(folder, f"all{suffix}"), ground.crs) as writer:
            for polygons, facts in spool.sorted():
                numbers = writer.count + np.arange(1, len(polygons) + 1)
                writer.write(polygons, id=numbers, **facts)
        size = Path(folder, f"all{suffix}").stat().st_size
    print(
        f"{suffix[1:]:10} {time.process_time() - began:7.0f} "
        f"{sorting - before:9.0f} {peak() - before:9.0f} {size / 1e6:8.0f}"
    )


def make_ground(side: int) -> GeoBox:
    """Return where a raster of that many rows and columns lies."""
    transform = Affine(RESOLUTION, 0, 400000, 0, -RESOLUTION, 3500000)
    return GeoBox(side, side, transform, CRS.from_epsg(32645))


def house(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return polygons of six corners with their top left there."""
    shape = np.array([(0, 0), (12, 0), (12, -6), (7, -6), (7, -11), (0, -11), (0, 0)])
    return shapely.polygons(shape + np.stack([x, y], axis=1)[:, np.newaxis])


def peak() -> float:
    """Return the largest memory of the process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Run each measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--outlines", type=int, default=5_000_000)
    parser.add_argument("--formats", nargs="+", default=["gpkg", "fgb", "parquet"])
    parser.add_argument("--one", choices=FORMATS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return measure(arguments.one, arguments.outlines)
    print(f"{'format':10} {'cpu s':>7} {'sort, MB':>9} {'peak, MB':>9} {'file, MB':>8}")
    for name in arguments.formats:
        command = [sys.executable, __file__, "--outlines", str(arguments.outlines)]
        subprocess.run([*command, "--one", f".{name}"], check=True)
    return None


if __name__ == "__main__":
    main()
