"""Draw what each score sees: a block of houses, predicted well and badly.

python docs/make_scores.py

writes docs/scores/*.png and the table in docs/scores.md; a test holds the table.
"""

from pathlib import Path

import cv2
import numpy as np
from affine import Affine

from bdloss import plots
from bdloss.evaluation.scoring import score_masks
from bdloss.geo.geobox import GeoBox
from bdloss.geo.polygonize import mask_to_polygons
from bdloss.metrics.polygons import count_polygons

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- the table -->", "<!-- end of the table -->"
HEIGHT, WIDTH = 96, 136  # pixels
# Top row, left column, height and width of each house; gaps of 6 pixels between two.
HOUSES = (
    *((10, 10, 22, 30), (10, 46, 22, 26), (10, 84, 30, 36)),
    *((44, 10, 36, 24), (50, 46, 26, 30), (52, 90, 28, 34)),
)
ZOOM = 2


def truth() -> np.ndarray:
    """Return the mask of the block."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, col, height, width in HOUSES:
        mask[row : row + height, col : col + width] = 1
    return mask


def predictions() -> dict[str, np.ndarray]:
    """Return predictions of the block by what is wrong with them."""
    mask = truth()
    band = _dilate(mask, 5) - _erode(mask, 5)  # two pixels to either side of the edge
    coin = np.random.default_rng(0).integers(0, 2, mask.shape, np.uint8)
    merged = mask.copy()
    merged[10:32, 40:46] = 1
    missed = mask.copy()
    missed[50:76, 46:76] = 0
    return {
        "perfect": mask,
        "shifted by 1 pixel": np.roll(mask, 1, axis=1),
        "shifted by 2 pixels": np.roll(mask, 2, axis=1),
        "shifted by 4 pixels": np.roll(mask, 4, axis=1),
        "2 pixels too large": _dilate(mask, 5),
        "teeth, 1 pixel every 2": _teeth(mask, 1),
        "teeth, 2 pixels every 4": _teeth(mask, 2),
        "random flips in the band": np.where(band == 1, coin, mask).astype(np.uint8),
        "corners rounded": cv2.morphologyEx(
            mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17))
        ),
        "walls that wobble": _wobble(),
        "two neighbours merged": merged,
        "one house missed": missed,
    }


def _dilate(mask: np.ndarray, side: int) -> np.ndarray:
    return cv2.dilate(mask, np.ones((side, side), np.uint8))


def _erode(mask: np.ndarray, side: int) -> np.ndarray:
    return cv2.erode(mask, np.ones((side, side), np.uint8))


def _teeth(mask: np.ndarray, size: int) -> np.ndarray:
    """Put teeth as wide and as long as `size` on all walls, as far apart."""
    toothed = mask.copy()
    for row, col, height, width in HOUSES:
        for start in range(0, width, 2 * size):
            part = slice(col + start, min(col + start + size, col + width))
            toothed[row - size : row, part] = 1
            toothed[row + height : row + height + size, part] = 1
        for start in range(0, height, 2 * size):
            part = slice(row + start, min(row + start + size, row + height))
            toothed[part, col - size : col] = 1
            toothed[part, col + width : col + width + size] = 1
    return toothed


def _wobble() -> np.ndarray:
    """Move each wall in and out by up to two pixels, slowly along it."""
    random = np.random.default_rng(1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, col, height, width in HOUSES:
        rows, cols = np.mgrid[:HEIGHT, :WIDTH]
        phases, periods = random.uniform(0, 2 * np.pi, 4), random.uniform(14, 22, 4)

        def off(along: np.ndarray, wall: int, phases=phases, periods=periods):
            return 2 * np.sin(2 * np.pi * along / periods[wall] + phases[wall])

        inside = (rows >= row + off(cols, 0)) & (rows < row + height + off(cols, 1))
        inside &= (cols >= col + off(rows, 2)) & (cols < col + width + off(rows, 3))
        mask |= inside.astype(np.uint8)
    return mask


def table() -> list[list[str]]:
    """Return the table: a row a prediction, a column a score."""
    true = truth()
    head = ["", "IoU", "BF1 3 px", "Boundary IoU 3 px", "one-to-one F 3 px"]
    head += ["boundary, of the true", "ASSD px", "building F1", "merged"]
    rows = [[*head, "PoLiS px", "N-ratio"]]
    for name, pred in predictions().items():
        scores = score_masks([(true, pred)])
        polygons = count_polygons(_outline(true), _outline(pred))
        values = [
            *(scores.iou, scores.boundary[3].f1, scores.boundary_iou),
            *(scores.matched.f1, scores.boundary_ratio, scores.distances.assd),
            scores.instances.f1,
        ]
        cells = [f"{value:.3f}" for value in values]
        cells += [str(scores.instances.merged), f"{polygons.polis:.2f}"]
        rows.append([name, *cells, f"{polygons.n_ratio:.2f}"])
    return rows


def as_text(rows: list[list[str]]) -> str:
    """Return the table in Markdown, with a picture in each row."""
    head, *others = rows
    lines = [["", *head], ["---", "---", *["---:"] * (len(head) - 1)]]
    for name, *cells in others:
        picture = f"![{name}](scores/{file_name(name)})"
        lines.append([picture, name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Write the pictures and the table."""
    (FOLDER / "scores").mkdir(exist_ok=True)
    true = truth()
    for name, pred in predictions().items():
        marks = plots.mark_errors(true, pred, tolerance=1)
        picture = plots.colour_errors(marks).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
        plots.write_picture(picture, FOLDER / "scores" / file_name(name))
    page = FOLDER / "scores.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{as_text(table())}\n\n{END}{after}")


def _outline(mask: np.ndarray) -> list:
    """Return the outlines of a mask, as they are written unless one asks for others."""
    geobox = GeoBox(HEIGHT, WIDTH, Affine.identity(), None)
    return mask_to_polygons(mask, geobox, simplify=1.0)


def file_name(name: str) -> str:
    """Return the name of the picture of a row."""
    return "_".join(name.replace(",", "").split()) + ".png"


if __name__ == "__main__":
    main()
