"""A margin around outlines that true walls lie in, as `bdloss calibrate` found it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bdloss.constants import IGNORED, PROBABILITY_SCALE
from bdloss.errors import DamagedFileError, InputError
from bdloss.files import DAMAGED, atomic_path

SUFFIX = ".margin.json"  # in the place of that of the model
DISTANCE, PROBABILITY = "distance", "probability"
MOST_DOUBT = 0.5  # of a pixel that is as likely building as not


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Which share of true walls lies near predicted ones, and how near.

    Attributes:
        radius: Of the margin by distance: its half width, in metres.
        doubt: Of that by probability: the least `doubt_of` a pixel in it, in (0, 0.5];
            None if only the whole image would keep the promise.
        alpha: Share of a true wall that lies beyond the margin, on average over units.
        unit: What the promise is about: `scene` or `site`.
        units: How many there were.
        scenes: Digests of the images, by their names.
        left_out: Names of scenes without a wall.
        model: Digest of the model's file.
        made: How the outlines were made: settings of inference and products by name.
        resampled: What images were brought to before, in metres a pixel, or `no`.
        date: When it was found, as `2026-11-27`.
        bdloss: Version that found it.

    Example:
        >>> town = Margin(radius=0.9, doubt=0.1, alpha=0.1, unit="scene", units=12)
        >>> town.promise()
        '90 % of the true walls of a scene, on average, lie within 0.9 m'
        >>> town.promise("probability")
        '90 % of the true walls of a scene, on average, lie where doubt is 0.1 or more'
    """

    radius: float
    doubt: float | None
    alpha: float
    unit: str
    units: int
    scenes: Mapping[str, str] | None = None
    left_out: tuple[str, ...] = ()
    model: str = ""
    made: Mapping[str, Any] | None = None
    resampled: Sequence[float | str] = ()
    date: str = ""
    bdloss: str = ""

    @property
    def doubt_steps(self) -> int:
        """The least doubt, as `doubt_of` counts it."""
        assert self.doubt is not None
        return math.ceil(self.doubt * PROBABILITY_SCALE)

    def promise(self, by: str = DISTANCE) -> str:
        """Return what is promised, in a line.

        Args:
            by: `DISTANCE` or `PROBABILITY`.
        """
        where = f"within {self.radius:g} m"
        if by == PROBABILITY:
            where = f"where doubt is {self.doubt:g} or more"
        return (
            f"{100 * (1 - self.alpha):g} % of the true walls of a {self.unit}, on "
            f"average, lie {where}"
        )

    def check(self, model: str, made: Mapping[str, Any]) -> None:
        """Refuse outlines of another model, or made in another way.

        Args:
            model: Digest of its file.
            made: How the outlines are made, and `resampled`.

        Raises:
            ValueError: If the promise is not about them.
        """
        if model != self.model:
            raise InputError(
                "the margin is of another model; bdloss calibrate makes one for this"
            )
        for key, value in (self.made or {}).items():
            if made.get(key) != value:
                raise InputError(
                    f"the margin was calibrated with {key} = {value}, not "
                    f"{made.get(key)}"
                )
        if self.resampled and made.get("resampled") not in self.resampled:
            values = ", ".join(map(str, self.resampled))
            raise InputError(
                f"the margin was calibrated on images resampled to {values}, not "
                f"{made.get('resampled')} (in metres, or no)"
            )


def margin_path(model: str | PathLike) -> Path:
    """Return where the margin of a model lies: beside it, or here for `buildings`.

    Example:
        >>> margin_path("runs/town/model.keras").as_posix()
        'runs/town/model.margin.json'
        >>> margin_path("buildings").as_posix()
        'buildings.margin.json'
    """
    return Path(model).with_suffix(SUFFIX)


def write_margin(margin: Margin, model: str | PathLike) -> Path:
    """Write a margin beside its model; one that is there is replaced."""
    path = margin_path(model)
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(asdict(margin), indent=2) + "\n")
    return path


def read_margin(model: str | PathLike, by: str = DISTANCE) -> Margin:
    """Read the margin of a model.

    Args:
        model: Path of its file, or `buildings`.
        by: `DISTANCE` or `PROBABILITY`.

    Raises:
        FileNotFoundError: If it has none.
        ValueError: If the file is damaged, or it has none of this kind.
    """
    path = margin_path(model)
    if not path.is_file():
        raise FileNotFoundError(
            f"no margin for this model; bdloss calibrate makes it: {path}"
        )
    try:
        margin = Margin(**json.loads(path.read_text()))
        doubt = MOST_DOUBT if margin.doubt is None else margin.doubt
        numbers = np.array([margin.radius, doubt, margin.alpha], float)
    except DAMAGED as error:
        raise DamagedFileError(f"damaged margin: {path} ({error})") from error
    if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise InputError(f"a margin must have finite numbers: {path}")
    if by == PROBABILITY and margin.doubt is None:
        raise InputError(f"no margin by probability keeps the promise: {path}")
    return margin


def doubt_of(mask: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return how near to a change between building and not each pixel lies.

    Args:
        mask: Array of shape `(height, width)`, uint8: 1 building, 0 not, 255 unknown.
        probabilities: Array of the same shape, uint8, 0 to `PROBABILITY_SCALE`.

    Returns:
        Array of the same shape, uint8, 0 to 127 steps of 1 / `PROBABILITY_SCALE`: the
        most of `min(p, 1 - p)` of the pixel and its eight neighbours, and `MOST_DOUBT`
        where these are not all building or all not.
    """
    doubt = np.minimum(probabilities, PROBABILITY_SCALE - probabilities)
    doubt[mask == IGNORED] = 0
    square = np.ones((3, 3), np.uint8)
    most = cv2.dilate(doubt, square)
    building = cv2.dilate((mask == 1).astype(np.uint8), square)
    ground = cv2.dilate((mask == 0).astype(np.uint8), square)
    most[(building == 1) & (ground == 1)] = round(MOST_DOUBT * PROBABILITY_SCALE)
    return most


def doubt_of_strips(
    strips: Iterable[tuple[int, np.ndarray]],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield `doubt_of` strips of rows, as if they were one.

    Args:
        strips: From the top: the row that each begins with, and mask and probabilities,
            `(2 or more, rows, width)`.
    """
    above: np.ndarray | None = None  # the row over `held`
    held: tuple[int, np.ndarray] | None = None
    for row, layers in strips:
        layers = layers[:2]
        if held is not None:
            yield _doubt_between(above, held, layers[:, :1])
            above = held[1][:, -1:]
        held = row, layers
    if held is not None:
        yield _doubt_between(above, held, None)


def _doubt_between(
    above: np.ndarray | None, held: tuple[int, np.ndarray], below: np.ndarray | None
) -> tuple[int, np.ndarray]:
    row, layers = held
    parts = [part for part in (above, layers, below) if part is not None]
    doubt = doubt_of(*np.concatenate(parts, axis=1))
    first = 0 if above is None else 1
    return row, doubt[first : first + layers.shape[1]]
