"""Draw a part of a sample scene: orthophoto, true outlines, predicted ones.

    python docs/make_picture.py banepa_south_buildings.gpkg --out docs/banepa.jpg

draws the README's picture; with several files of outlines, these side by side.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import shapely

from bdloss.data.scenes import Scene, load_scene
from bdloss.geo.area import to_pixels
from bdloss.geo.geobox import geobox_of
from bdloss.geo.raster import open_raster
from bdloss.geo.vector import read_outlines
from bdloss.geo.windows import Window

SAMPLE = Path("samples/banepa")
PART = Window(row=285, col=20, height=260, width=330)
ZOOM = 3
GAP = 12  # pixels
SHIFT = 4  # bits behind the point of a coordinate of OpenCV
YELLOW, RED = (255, 220, 0), (255, 40, 40)


def main(outlines: list[Path], out: Path) -> None:
    """Write the picture."""
    image, truth = SAMPLE / "images" / "banepa_south.tif", SAMPLE / "buildings.geojson"
    pixels = load_scene(Scene("south", image, truth, PART)).pixels
    panels = [
        draw_polygons(pixels, image, None, YELLOW),
        draw_polygons(pixels, image, truth, YELLOW),
        *(draw_polygons(pixels, image, file, RED) for file in outlines),
    ]
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)]
    picture = np.hstack(parts[1:])[..., ::-1]
    cv2.imwrite(str(out), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


def draw_polygons(
    pixels: np.ndarray, image: Path, file: Path | None, colour: tuple[int, int, int]
) -> np.ndarray:
    """Return a part of an orthophoto, enlarged, with the polygons of a file on it."""
    size = (ZOOM * PART.width, ZOOM * PART.height)
    picture = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    if file is not None:
        with open_raster(image) as source:
            geobox = geobox_of(source)
        polygons = np.array(read_outlines(file, geobox.crs), object)
        for ring in shapely.get_rings(to_pixels(polygons, geobox)):
            xy = (shapely.get_coordinates(ring) - (PART.col, PART.row)) * ZOOM
            line = np.rint(xy * 2**SHIFT).astype(np.int32)
            cv2.polylines(picture, [line], True, colour, 2, cv2.LINE_AA, SHIFT)
    return picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("outlines", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    main(args.outlines, args.out)
