"""Model files: a Keras model with the metadata that prediction needs.

Keras is imported where a network is, so that metadata are read without it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bdloss.colours import COLOUR
from bdloss.constants import BUILDING, CONTACT
from bdloss.errors import DamagedFileError, InputError, first_line
from bdloss.files import DAMAGED, atomic_path
from bdloss.memory import refuse_beyond_memory
from bdloss.models.targets import class_names
from bdloss.startup import load_keras

if TYPE_CHECKING:
    import keras

METADATA_FILE = "bdloss.json"  # inside the .keras file, which is a zip
SHIPPED = "buildings"  # the model that comes with the package
DEFAULT_PATCH_SIZE = 512  # pixels, for a model that does not say what it was trained on


def save_model(model: keras.Model, path: Path, metadata: dict[str, Any]) -> None:
    """Save a model with the metadata that prediction needs.

    Args:
        model: Any Keras model.
        path: File that ends in `.keras`; replaced whole if it exists.
        metadata: What is known of the model: bands, classes, targets, colours, window,
            resolution in metres, threshold, name, network (how it was built), scenes
            (digests of the images that it has seen, by name).
    """
    with atomic_path(path) as partial:
        model.save(partial)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(METADATA_FILE, json.dumps(metadata, indent=2))


def find_model(path: str | PathLike) -> Path:
    """Return the file of a model.

    Args:
        path: Its path, or `buildings` for the model that comes with the package.

    Example:
        >>> find_model("runs/town/model.keras").name, find_model("buildings").name
        ('model.keras', 'buildings.keras')
    """
    if Path(path) == Path(SHIPPED):
        return Path(__file__).parents[1] / "weights" / f"{SHIPPED}.keras"
    return Path(path)


def digest_of(path: str | PathLike) -> str:
    """Return what changes whenever the file of a model changes.

    Args:
        path: A model, as `find_model` takes it.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = find_model(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model ready to predict, and what must be known of it.

    Attributes:
        name: What it is called.
        predict: Callable from pixels `(batch, side, side, bands)`, 0..255, to
            probabilities `(batch, side, side, maps)`, as NumPy arrays.
        band_count: Number of bands that it takes.
        patch_size: Side of the patches that it was trained on, in pixels.
        multiple: What the side of a patch must be a multiple of.
        threshold: Probability from which a pixel is of a class.
        resolution: Side of a pixel that it is best at, in metres; None if unknown.
        needs_resolution: Whether it refuses an image of which that is unknown, unless
            it is told how to take it.
        tta: Test-time augmentation that it was scored with, a name in `tta.MODES`.
        targets: Names of its maps: the classes, then `contact` if it has that map.
        colours: The colour of each class, `#rrggbb`; empty for none of its own.
        digest: What changes whenever the file changes; empty for no file.
        scenes: Digests of the images that it has learned from, by their names.
        load_network: Returns the Keras model that predicts; None for another callable.
    """

    name: str
    predict: Callable[[np.ndarray], np.ndarray]
    band_count: int
    patch_size: int
    multiple: int
    threshold: float
    resolution: float | None
    needs_resolution: bool = False
    tta: str = "none"
    targets: tuple[str, ...] = (BUILDING,)
    colours: tuple[str, ...] = ()
    digest: str = ""
    scenes: Mapping[str, str] = field(default_factory=dict, hash=False)
    load_network: Callable[[], keras.Model] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it tells apart, as their maps come."""
        return tuple(class_names(self.targets))

    @property
    def has_contact(self) -> bool:
        """Whether its last map says where two buildings are in contact."""
        return CONTACT in self.targets

    def check_window(self, window: int) -> None:
        """Refuse a window that the network cannot halve often enough.

        Args:
            window: Side in pixels.

        Raises:
            ValueError: If it is not a multiple of `multiple`.
        """
        if window < 1 or window % self.multiple:
            raise InputError(
                f"window must be a multiple of {self.multiple} pixels for this model, "
                f"got {window}"
            )
        # Pixels and probabilities, in float32, are the least of it.
        needed = 4 * window**2 * (self.band_count + len(self.targets))
        refuse_beyond_memory(needed, f"a window of {window} x {window} pixels")


def load_predictor(path: str | PathLike, lazy: bool = False) -> Predictor:
    """Load a model to predict with.

    Args:
        path: A `.keras` file, or a name, as `find_model` takes it: of this package, or
            any other of a network from `(batch, height, width, bands)` to one map of
            probabilities, or to those that its metadata name.
        lazy: Whether the network, and Keras, are loaded when they are first needed, by
            `startup.load_keras`; a file whose metadata do not say what it takes is
            loaded at once.

    Returns:
        The predictor.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a Keras model, or not such a network.
    """
    shipped, path = Path(path) == Path(SHIPPED), find_model(path)
    metadata = read_metadata(path)
    targets = tuple(metadata.get("targets", metadata.get("classes", (BUILDING,))))

    @functools.cache
    def load_network() -> keras.Model:
        if lazy:
            load_keras()
        return _load_network(path, targets)

    bands, window = metadata.get("bands"), metadata.get("window")
    if not (lazy and bands and window):
        _, side, _, bands = load_network().input_shape
        window = window or side or DEFAULT_PATCH_SIZE
    return Predictor(
        name=SHIPPED if shipped else metadata.get("name", path.stem),
        predict=lambda batch: load_network().predict_on_batch(batch),
        band_count=bands,
        patch_size=window,
        multiple=metadata.get("multiple", 1),
        threshold=metadata.get("threshold", 0.5),
        resolution=metadata.get("resolution"),
        needs_resolution=shipped,
        tta=metadata.get("tta", "none"),
        targets=targets,
        colours=tuple(metadata.get("colours", ())),
        digest=digest_of(path),
        scenes=metadata.get("scenes", {}),
        load_network=load_network,
    )


def _load_network(path: Path, targets: tuple[str, ...]) -> keras.Model:
    """Load a network that takes known bands and gives these maps."""
    network = _read_network(path)
    taken, given = network.input_shape, network.output_shape
    if not isinstance(taken, tuple) or len(taken) != 4 or taken[-1] is None:
        raise InputError(
            f"a model must take images of known bands, got {taken}: {path}"
        )
    if not isinstance(given, tuple) or len(given) != 4 or given[-1] != len(targets):
        wanted = "one map of buildings" if len(targets) == 1 else f"maps of {targets}"
        raise InputError(f"a model must give {wanted}, got {given}: {path}")
    return network


def load_model(path: str | PathLike) -> tuple[keras.Model, dict[str, Any]]:
    """Load a model, in Keras's safe mode, and its metadata.

    Args:
        path: A `.keras` file, or a name, as `find_model` takes it.

    Returns:
        The model, not compiled, and its metadata (empty for a model that another
        program saved).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a Keras model.
    """
    path = find_model(path)
    metadata = read_metadata(path)
    return _read_network(path), metadata


def _read_network(path: Path) -> keras.Model:
    """Read the Keras model of a file, whose metadata were read."""
    import keras

    import bdloss.models.unet  # noqa: F401, whose layers a model may have

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of an odd file Keras raises what it comes to
        raise InputError(f"not a Keras model: {path} ({first_line(error)})") from error


def read_metadata(path: str | PathLike) -> dict[str, Any]:
    """Read the metadata of a model, without the model.

    Args:
        path: A `.keras` file, or a name, as `find_model` takes it.

    Returns:
        The metadata, as `save_model` takes them, and what else `bdloss train` writes;
        empty for a model that another program saved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a Keras model.
    """
    path = find_model(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"not a Keras model: {path}")
    if path.suffix != ".keras":  # or Keras refuses it, in five lines
        raise InputError(f"a model must be a file that ends in .keras, got {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
            refuse_beyond_memory(size, f"the model {path}")
            known = METADATA_FILE in archive.namelist()
            text = archive.read(METADATA_FILE) if known else b"{}"
    except DAMAGED as error:
        raise DamagedFileError(f"not a Keras model: {path} ({error})") from error
    try:
        metadata = json.loads(text)
    except DAMAGED as error:
        raise DamagedFileError(
            f"damaged {METADATA_FILE} in this model: {path}"
        ) from error
    _check_metadata(metadata, path)
    return metadata


def _check_metadata(metadata: Any, path: Path) -> None:
    """Refuse metadata that no model can have."""
    if not isinstance(metadata, dict):
        raise InputError(
            f"{METADATA_FILE} of a model must be a table, got {metadata!r}: {path}"
        )
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "name": (lambda v: isinstance(v, str), "a text"),
        "bands": (_is_whole, "a whole number above 0"),
        "window": (_is_whole, "a whole number above 0"),
        "multiple": (_is_whole, "a whole number above 0"),
        "threshold": (lambda v: _is_number(v) and 0 <= v <= 1, "in [0, 1]"),
        "resolution": (
            lambda v: v is None or (_is_number(v) and 0 < v < math.inf),
            "a number of metres above 0",
        ),
        "tta": (lambda v: isinstance(v, str), "a text"),
        "network": (lambda v: isinstance(v, dict), "a table"),
        "scenes": (lambda v: isinstance(v, dict), "a table"),
        "classes": (_is_names, "a list of different names"),
        "targets": (
            lambda v: _is_names(v) and v in _possible_targets(metadata),
            f"its classes, or these and {CONTACT}",
        ),
        "colours": (
            lambda v: _are_colours(v, len(metadata.get("classes", [BUILDING]))),
            "a colour (#rrggbb) for each class",
        ),
    }
    for key, (holds, rule) in rules.items():
        if key in metadata and not holds(metadata[key]):
            raise InputError(
                f"{key} of a model must be {rule}, got {metadata[key]!r}: {path}"
            )


def _is_names(value: Any) -> bool:
    names = isinstance(value, list) and all(isinstance(v, str) and v for v in value)
    return names and 0 < len(value) == len(set(value))


def _are_colours(value: Any, number: int) -> bool:
    texts = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return texts and len(value) == number and all(map(COLOUR.fullmatch, value))


def _possible_targets(metadata: dict[str, Any]) -> list[list[str]]:
    classes = metadata.get("classes", [BUILDING])
    return [classes, [*classes, CONTACT]]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
