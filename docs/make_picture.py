"""Draw the README's picture: orthophoto, truth and prediction of a sample scene.

python docs/make_picture.py runs/demo/prediction/banepa_south_mask.tif
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from bdloss import plots
from bdloss.data.scenes import Scene, load_scene
from bdloss.geo.raster import open_raster, read_mask
from bdloss.geo.windows import Window

SAMPLE = Path("samples/banepa")
PART = Window(row=285, col=20, height=260, width=330)
ZOOM = 2
GAP = 12  # pixels


def main(mask: Path) -> None:
    """Write docs/banepa.jpg."""
    image = SAMPLE / "images" / "banepa_south.tif"
    outlines = SAMPLE / "buildings.geojson"
    scene = load_scene(Scene("south", image, outlines, PART))
    with open_raster(mask) as source:
        pred = read_mask(source, PART)
    empty = np.zeros_like(pred)
    panels = [
        plots.draw_outlines(scene.pixels, empty, zoom=ZOOM),
        plots.draw_outlines(scene.pixels, empty, scene.mask, zoom=ZOOM),
        plots.draw_outlines(scene.pixels, pred, zoom=ZOOM),
    ]
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    picture = np.hstack([panels[0], gap, panels[1], gap, panels[2]])
    cv2.imwrite("docs/banepa.jpg", picture[..., ::-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
