"""What outlines of noise cost: one region without end and the specks in its holes.

    python benchmarks/outline_noise.py [--sides 1000 2000 4000]

A mask as a network gives it that has learnt nothing, which should cost what its
vertices cost, not their square. Prints for each size the polygons and their vertices,
the processor time a megapixel, and the memory above that of the mask. Each
measurement is a process of its own.
"""

import argparse
import subprocess
import sys
import time

import numpy as np
import shapely
from outline_memory import make_ground, peak
from scipy import ndimage

from bdloss.geo.polygonize import outline_strips

BLUR = 2.0  # pixels, the standard deviation of what makes noise of regions
SHARE = 0.55  # of the mask; beyond a half regions join from side to side
ROWS = 512  # of a strip


def make_mask(side: int) -> np.ndarray:
    """Return a square mask of blurred noise."""
    noise = np.random.default_rng(0).standard_normal((side, side), np.float32)
    noise = ndimage.gaussian_filter(noise, BLUR)
    return (noise < np.quantile(noise[::7, ::7], SHARE)).astype(np.uint8)


def measure(side: int) -> None:
    """Outline a mask of that many rows and columns, and print what it took."""
    mask = make_mask(side)
    ground = make_ground(side)
    strips = (
        (row, np.stack([mask[row : row + ROWS]] * 2)) for row in range(0, side, ROWS)
    )
    began, before = time.process_time(), peak()
    count = vertices = 0
    for outlines in outline_strips(strips, ground, min_area=5.0, simplify=1.0):
        count += len(outlines.polygons)
        vertices += int(shapely.get_num_coordinates(outlines.polygons).sum())
    seconds = time.process_time() - began
    print(
        f"{side:5} {count:9} {vertices:9} {seconds / side**2 * 1e6:14.2f} "
        f"{peak() - before:9.0f}"
    )


def main() -> None:
    """Run each measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return measure(arguments.one)
    print(f"{'side':>5} {'polygons':>9} {'vertices':>9} {'cpu s a Mpx':>14} {'MB':>9}")
    for side in arguments.sides:
        subprocess.run([sys.executable, __file__, "--one", str(side)], check=True)
    return None


if __name__ == "__main__":
    main()
