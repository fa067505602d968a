"""What an uncertain edge makes of each loss: a toy without a network.

    python -m paper edges

One map of free logits is fitted to houses of which nobody can know where the walls are:
rectangles whose four sides move. What a loss makes of that is its answer to an edge
that a network cannot know either: where one that means well draws a straight wall in
the midst, one that can be fooled draws a comb. The map is scored on other draws.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import keras
import numpy as np
from keras import ops

from bdloss import losses, plots
from bdloss.evaluation.scores import Scores
from bdloss.evaluation.scoring import score_masks
from bdloss.evaluation.tables import as_markdown

SIDE = 56  # pixels
HOUSE = (14, 42, 16, 40)  # top, bottom, left and right on average
SPREAD = 2.0  # pixels, standard deviation of each side
DRAWS = 24
STEPS = 300
LEARNING_RATE = 0.1
SEEDS = (0, 1, 2)
ZOOM = 4  # of the picture
HEAD = """# What an uncertain edge makes of each loss

Made by `python -m paper edges`; do not edit. One map is fitted to 24 rectangles whose
sides move by 2 pixels, and scored on 24 others; mean of three seeds, in percent.
"""

Loss = Callable[[], keras.losses.Loss]
CANDIDATES: dict[str, Loss] = {
    "L_IoU": partial(losses.CombinedLoss, None),
    "the paper's, w = 0.5": partial(losses.CombinedLoss, "boundary"),
    "the paper's, w = 0.9": partial(losses.CombinedLoss, "boundary", w=0.9),
    "L_Dice, w = 0.5": partial(losses.CombinedLoss, "dice"),
    "L_SS, w = 0.5": partial(losses.CombinedLoss, "ss"),
    **{
        f"oriented, theta {theta}, w = 0.5": partial(
            losses.CombinedLoss, losses.OrientedBoundaryLoss(theta)
        )
        for theta in (3, 5, 9)
    },
    "oriented, theta 9, w = 0.9": partial(losses.CombinedLoss, "oriented", w=0.9),
    "edge, theta 9, w = 0.5": partial(losses.CombinedLoss, "edge"),
}


class Fitted(NamedTuple):
    """What a loss made of uncertain edges.

    Attributes:
        scores: Mean of each score over the seeds.
        probabilities: The map of the first seed, of shape `(SIDE, SIDE)`.
    """

    scores: dict[str, float]
    probabilities: np.ndarray


MEASURED: dict[str, Callable[[Scores], float]] = {
    "IoU": lambda scores: scores.iou,
    "BF1, 3 px": lambda scores: scores.boundary[3].f1,
    "Boundary IoU, 3 px": lambda scores: scores.boundary_iou,
    "one-to-one F, 3 px": lambda scores: scores.matched.f1,
    "boundary, of the true": lambda scores: scores.boundary_ratio,
}


class FreeMap(keras.layers.Layer):
    """A map of probabilities that is nothing but weights, the same for each image."""

    def build(self, shape: tuple) -> None:
        """Make the logits, near 0."""
        self.logits = self.add_weight(
            shape=(1, SIDE, SIDE, 1),
            initializer=keras.initializers.RandomNormal(0, 0.1),
        )

    def call(self, images):
        """Return the map once for each image."""
        return ops.sigmoid(ops.zeros_like(images) + self.logits)


def draw_houses(rng: np.random.Generator) -> np.ndarray:
    """Return houses whose walls moved, of shape `(DRAWS, SIDE, SIDE, 1)`, 0 or 1."""
    masks = np.zeros((DRAWS, SIDE, SIDE, 1), np.uint8)
    for mask in masks:
        moved = np.rint(HOUSE + rng.normal(0, SPREAD, 4)).astype(int)
        top, bottom, left, right = moved.clip(0, SIDE)
        mask[top:bottom, left:right] = 1
    return masks


def fit_map(loss: keras.losses.Loss, houses: np.ndarray, seed: int = 0) -> np.ndarray:
    """Fit one map to all houses at once.

    Args:
        loss: What is minimised, a mean over the houses.
        houses: As `draw_houses` makes them.
        seed: Of the first logits.

    Returns:
        Probabilities of shape `(SIDE, SIDE)`.
    """
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(images, FreeMap()(images))
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, jit_compile=True)
    batch = np.zeros(houses.shape, np.float32)
    for _ in range(STEPS):
        model.train_on_batch(batch, houses)
    return model.predict_on_batch(batch)[0, ..., 0]


def fit_loss(loss: Loss, seeds: tuple[int, ...] = SEEDS) -> Fitted:
    """Fit a map for each seed, and score it on houses that it has not seen."""
    maps, scores = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        maps.append(fit_map(loss(), draw_houses(rng), seed))
        pred = (maps[-1] >= 0.5).astype(np.uint8)
        others = draw_houses(rng)[..., 0]
        scores.append(score_masks((house, pred) for house in others))
    means = {
        name: float(np.mean([read(one) for one in scores]))
        for name, read in MEASURED.items()
    }
    return Fitted(means, maps[0])


def tabulate(fitted: Mapping[str, Fitted]) -> str:
    """Return a row for each loss as Markdown, in percent."""
    rows = [["BCE + w L + (1 - w) L_IoU", *MEASURED]]
    for name, one in fitted.items():
        rows.append([name, *(f"{100 * one.scores[key]:.2f}" for key in MEASURED)])
    return as_markdown(rows)


def draw_maps(fitted: Mapping[str, Fitted]) -> np.ndarray:
    """Draw the maps side by side, white where a house is sure, black where none is."""
    tiles = []
    for name, one in fitted.items():
        grey = np.rint(255 * one.probabilities).astype(np.uint8)
        tile = np.repeat(np.repeat(grey, ZOOM, 0), ZOOM, 1)
        tile = cv2.copyMakeBorder(tile, 24, 4, 4, 4, cv2.BORDER_CONSTANT, value=255)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(tile, name, (4, 16), font, 0.42, 0, 1, cv2.LINE_AA)
        tiles.append(tile)
    wide = min(3, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % wide)
    rows = [np.hstack(tiles[i : i + wide]) for i in range(0, len(tiles), wide)]
    return cv2.cvtColor(np.vstack(rows), cv2.COLOR_GRAY2RGB)


def compare_losses(out: Path, candidates: Mapping[str, Loss] = CANDIDATES) -> str:
    """Write `edges.md` and `edges.png` of all losses; return the table."""
    fitted = {name: fit_loss(loss) for name, loss in candidates.items()}
    table = tabulate(fitted)
    out.mkdir(parents=True, exist_ok=True)
    (out / "edges.md").write_text(f"{HEAD}\n{table}\n")
    plots.write_picture(draw_maps(fitted), out / "edges.png")
    return table
