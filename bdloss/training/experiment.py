"""Experiments as TOML files: what may stand in one, read, changed and checked."""

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bdloss import losses, models
from bdloss.data.augment import Strength
from bdloss.errors import InputError
from bdloss.geo.raster import RESOLUTIONS
from bdloss.inference.tta import MODES
from bdloss.memory import refuse_beyond_memory

EXTRAS = (*losses.EXTRAS, "none")
POLICIES = ("search", "ramp", "steps", "constant")
SCHEDULES = ("constant", "cosine")
# Beyond these a network or a metric would not fit into any memory, or never end.
LARGEST = {"filters": 1024, "blocks": 10, "tolerance": 100.0, "workers": 256}
MOST_EPOCHS = 100_000
SAMPLINGS = ("random", "grid")
COMPILED = {"auto": "auto", "on": True, "off": False}  # as Keras takes it


@dataclass(frozen=True)
class Loss:
    """What is minimised: `BCE + w * extra + (1 - w) * IoU`."""

    extra: str = "boundary"  # boundary | dice | ss | vgg | none
    theta0: int = 3  # window side, pixels (Eq. 1)
    theta: int = 5  # window side, pixels (Eq. 2)
    smooth: float = 1.0  # pixels
    lam: float = 0.5  # weight of the specificity, for the loss ss
    boundary: str = "pooling"  # pooling | sobel, how the boundary loss finds edges
    bce: bool = True  # whether BCE is added
    vgg: str = "imagenet"  # imagenet | a file of VGG19 weights, for the loss vgg

    def check(self) -> None:
        """Raise a ValueError for a setting out of its range."""
        _check_choice("loss.extra", self.extra, EXTRAS)
        _check_choice("loss.boundary", self.boundary, losses.BOUNDARIES)
        _check_share("loss.lam", self.lam)


@dataclass(frozen=True)
class Weight:
    """The weight w of the extra loss; the boundary loss's moves over epochs.

    It is `start` until epoch `first`. The others "did not require any adjustments while
    training" (Section 4.2): theirs is `baseline` throughout.
    """

    baseline: float = 0.5  # w of dice, ss and vgg
    policy: str = "ramp"  # search | ramp | steps | constant
    start: float = 0.1
    end: float = 0.5  # of a ramp
    first: int = 0  # epoch at which w begins to change, counted from 0
    last: int = 10  # epoch at which a ramp has reached its end
    values: list[float] = field(default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 0.9])
    every: int = 30  # epochs between two steps, or two searches among `values`
    probe_epochs: int = 0  # epochs a branch of a search is tried for; 0: all of them

    def check(self) -> None:
        """Raise a ValueError for a setting out of its range."""
        _check_choice("weight.policy", self.policy, POLICIES)
        for name in ("baseline", "start", "end"):
            _check_share(f"weight.{name}", getattr(self, name))
        for value in self.values:
            _check_share("weight.values", value)
        if not self.values:
            raise InputError("weight.values needs at least one weight, got none")
        _check_positive("weight.every", self.every)
        if not 0 <= self.probe_epochs <= self.every:
            raise InputError(
                f"weight.probe_epochs must lie in [0, every = {self.every}], "
                f"got {self.probe_epochs}"
            )
        if self.first < 0:
            raise InputError(f"weight.first must be at least 0, got {self.first}")
        if self.policy == "ramp" and not self.first < self.last:
            raise InputError(
                "weight.last must come after weight.first, "
                f"got first = {self.first}, last = {self.last}"
            )


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    epochs: int = 20
    learning_rate: float = 1e-3
    schedule: str = "constant"  # constant | cosine (down to zero within the stage)
    trainable: str = "all"  # decoder | decoder and batch norm | all
    plateau: int = 0  # epochs without a better validation loss that lower the rate
    factor: float = 0.1  # what they multiply it by

    def check(self) -> None:
        """Raise a ValueError for a setting out of its range."""
        _check_positive("stage.epochs", self.epochs)
        if self.epochs > MOST_EPOCHS:
            raise InputError(
                f"stage.epochs must be at most {MOST_EPOCHS}, got {self.epochs}"
            )
        _check_positive("stage.learning_rate", self.learning_rate)
        _check_choice("stage.schedule", self.schedule, SCHEDULES)
        _check_choice("stage.trainable", self.trainable, models.TRAINABLE)
        _check_at_least_0("stage.plateau", self.plateau)
        if not 0.0 < self.factor < 1.0:
            raise InputError(
                f"stage.factor must lie between 0 and 1, got {self.factor}"
            )
        if self.plateau and self.schedule != "constant":
            raise InputError(
                "stage.plateau needs schedule = constant, got " + self.schedule
            )


@dataclass(frozen=True)
class Experiment:
    """One training, whole: its data, its network, its loss and its schedule."""

    dataset: str = "folder"
    data: str = ""
    validation: float | list[str] = 0.2  # share of each scene, or names of scenes
    test: list[str] = field(default_factory=list)  # names of scenes
    resolution: float = 0.0  # metres a pixel that scenes are brought to; 0: as they are
    bands: str = "rgb"  # potsdam: rgb | irrg | rgbir | rgbir+dsm | rgbir+ndsm
    labels: str = "full"  # potsdam: full | eroded
    shadows: str = "both"  # aicd: with | without | both
    classes: list[str] = field(default_factory=list)  # aicd: of changes; none for all
    scenes: int = 800  # synthetic: how many are made
    height: int = 600  # synthetic: rows of a scene, in pixels; columns are 4/3 of them
    backbone: str = "plain"
    encoder_weights: str = ""  # imagenet | a file | nothing for random weights
    filters: int = 16
    blocks: int = 4
    skips: bool = True  # whether convnn has skip connections
    momentum: float = models.BATCH_NORM_MOMENTUM  # of batch norm's moving averages
    patch: int = 256  # pixels
    batch: int = 8  # patches
    sampling: str = "random"  # of training patches: random | grid (shuffled)
    steps: int = 0  # batches an epoch; 0: as many pixels as there are, or all the grid
    augment: Strength = "light"  # none | light | strong
    building_bias: float = (
        0.0  # share of patches drawn again until they show a building
    )
    threshold: float = 0.5  # probability from which a pixel is building
    tta: str = "none"  # none | flips | d4, when scenes are scored and predicted
    tolerance: float = 3.0  # distance in pixels, of BF1 while training
    clip: float = 0.0  # norm that gradients are cut to; 0 leaves them
    patience: int = 0  # epochs without a better validation IoU that end it; 0: never
    mixed_precision: bool = False  # float16 inside, for GPUs with tensor cores
    jit_compile: str = "auto"  # auto (by XLA on one GPU, and on JAX) | on | off
    workers: int = 2  # threads that load patches
    tensorboard: bool = True  # whether logs are written, with TensorFlow
    seed: int = 0
    loss: Loss = field(default_factory=Loss)
    weight: Weight = field(default_factory=Weight)
    stage: list[Stage] = field(default_factory=lambda: [Stage()])

    def check(self) -> None:
        """Raise a ValueError for a setting out of its range."""
        for name in ("filters", "blocks", "patch", "batch", "workers", "tolerance"):
            _check_positive(name, getattr(self, name))
        for name, most in LARGEST.items():
            if not getattr(self, name) <= most:
                raise InputError(
                    f"{name} must be at most {most}, got {getattr(self, name)}"
                )
        if self.resolution and not RESOLUTIONS[0] <= self.resolution <= RESOLUTIONS[1]:
            raise InputError(
                f"resolution must be 0, or from {RESOLUTIONS[0]} to {RESOLUTIONS[1]} "
                f"metres, got {self.resolution}"
            )
        # An image band, the mask and probabilities, in float32, are the least of it.
        needed = 4 * self.batch * self.patch**2 * 3
        what = f"a batch of {self.batch} patches of {self.patch} pixels"
        refuse_beyond_memory(needed, what)
        _check_choice("augment", self.augment, get_args(Strength))
        _check_choice("jit_compile", self.jit_compile, COMPILED)
        _check_choice("tta", self.tta, MODES)
        _check_choice("sampling", self.sampling, SAMPLINGS)
        if self.sampling == "grid" and self.building_bias:
            raise InputError(
                "building_bias is of sampling = random: a grid takes all patches, "
                f"got {self.building_bias}"
            )
        for name in ("threshold", "building_bias", "momentum"):
            _check_share(name, getattr(self, name))
        for name in ("clip", "patience"):
            _check_at_least_0(name, getattr(self, name))
        multiple = models.size_multiple(self.backbone, self.blocks)
        if self.patch % multiple:
            raise InputError(
                f"patch must be a multiple of {multiple} for {self.backbone}, "
                f"got {self.patch}"
            )
        if self.encoder_weights and self.backbone in models.WITHOUT_ENCODER_WEIGHTS:
            raise InputError(
                "encoder_weights are of networks with an encoder, got "
                f"{self.encoder_weights!r} for {self.backbone}"
            )
        if not self.skips and self.backbone != "convnn":
            raise InputError(
                f"skips can be left out of convnn only, got backbone {self.backbone!r}"
            )
        if not self.stage:
            raise InputError("an experiment needs at least one [[stage]], got none")
        self.loss.check()
        self.weight.check()
        for stage in self.stage:
            stage.check()

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stage)

    @property
    def searches(self) -> bool:
        """Whether the weight w is searched."""
        return self.loss.extra == "boundary" and self.weight.policy == "search"


def config_names() -> list[str]:
    """Return the names of the experiments that come with the package."""
    return sorted(path.name[:-5] for path in _configs() if path.name.endswith(".toml"))


def _configs() -> list[Any]:
    """Return the experiment files: of the wheel, or of the checkout beside it."""
    package = Path(__file__).parents[1]
    inside, beside = package / "configs", package.parent / "configs"
    return list((inside if inside.is_dir() else beside).iterdir())


def read_named(name: str) -> dict[str, Any]:
    """Read an experiment that comes with the package.

    Args:
        name: Its name without the ending, one of `config_names`.

    Returns:
        Settings as they stand in the file.

    Raises:
        ValueError: If there is none of this name.
    """
    for path in _configs():
        if path.name == f"{name}.toml":
            return tomllib.loads(path.read_text())
    raise InputError(
        f"dataset must be one of {', '.join(config_names())}, got {name!r}"
    )


def read_file(path: Path) -> dict[str, Any]:
    """Read an experiment file.

    Args:
        path: A TOML file.

    Returns:
        Settings as they stand in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))  # some editors leave a mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a TOML file: {path} ({error})") from error


def change(settings: dict[str, Any], assignment: str) -> None:
    """Change one setting in place, as `--set` says it.

    Args:
        settings: Settings as they stand in a file.
        assignment: `key=value`, the key with dots for tables and numbers from 0 for
            stages: `loss.theta=7`, `stage.0.epochs=1`. The value is TOML; what is
            not TOML is text.

    Raises:
        ValueError: If there is no `=`, or no such stage.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputError(f"a setting must read key=value, got {assignment!r}")
    try:
        table = tomllib.loads(f"value = {text}")
        # More lines than one would be more settings than one.
        value = table["value"] if list(table) == ["value"] else text
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    *tables, last = key.split(".")
    place: Any = settings
    for part in tables:
        if isinstance(place, list):
            place = _item(place, part, key)
        elif not isinstance(place, dict):
            break
        else:
            place = place.setdefault(part, {})
    if not isinstance(place, dict):
        raise InputError(f"{key} does not name a setting")
    place[last] = value


def _item(stages: list, number: str, key: str) -> Any:
    if not number.isdigit() or int(number) >= len(stages):
        raise InputError(
            f"{key}: stages are counted from 0 to {len(stages) - 1}, got {number}"
        )
    return stages[int(number)]


def make_experiment(settings: dict[str, Any]) -> Experiment:
    """Check settings and make the experiment.

    Args:
        settings: Settings as they stand in a file.

    Returns:
        The experiment.

    Raises:
        ValueError: If a key is unknown (it names the nearest known one), a value is
            of another type, or out of its range.

    Example:
        >>> make_experiment({"loss": {"theta": 7}}).loss.theta
        7
        >>> make_experiment({"pach": 512})
        Traceback (most recent call last):
        bdloss.errors.InputError: unknown setting 'pach'; did you mean 'patch'?
    """
    experiment = _make(Experiment, settings, "")
    experiment.check()
    return experiment


def _make(kind: type, settings: Any, where: str) -> Any:
    if not isinstance(settings, dict):
        raise InputError(f"{where.rstrip('.')} must be a table, got {settings!r}")
    known = get_type_hints(kind)
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise InputError(
                f"unknown setting {where + key!r}; did you mean {where + near!r}?"
            )
    return kind(
        **{
            key: _convert(known[key], value, where + key)
            for key, value in settings.items()
        }
    )


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _make(kind, value, f"{where}.")  # type: ignore[arg-type]
    if get_origin(kind) is list and dataclasses.is_dataclass(get_args(kind)[0]):
        if not isinstance(value, list):
            raise InputError(f"{where} must be written [[{where}]], got {value!r}")
        return [
            _make(get_args(kind)[0], item, f"{where}.{i}.")
            for i, item in enumerate(value)
        ]
    if get_origin(kind) is Literal:
        kind = str
    kinds = get_args(kind) if get_origin(kind) not in (list, None) else (kind,)
    for wanted in kinds:
        if get_origin(wanted) is list:
            (item,) = get_args(wanted)
            if isinstance(value, list):
                if item is float and all(type(v) in (int, float) for v in value):
                    return [float(v) for v in value]
                if all(type(v) is item for v in value):
                    return value
        elif wanted is float and type(value) in (int, float):
            return float(value)
        elif type(value) is wanted:
            return value
    names = " or ".join(_kind_name(wanted) for wanted in kinds)
    raise InputError(f"{where} must be {names}, got {value!r}")


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is list:
        return "a list of numbers" if get_args(kind) == (float,) else "a list of texts"
    return {int: "a whole number", float: "a number", str: "a text", bool: "a bool"}[
        kind
    ]


def write_experiment(experiment: Experiment) -> str:
    """Return an experiment as the TOML file from which it can be run again.

    Args:
        experiment: The experiment as it was run.

    Returns:
        Text of a TOML file.
    """
    settings = dataclasses.asdict(experiment)
    lines = [
        f"{key} = {_toml(value)}"
        for key, value in settings.items()
        if key not in ("loss", "weight", "stage")
    ]
    for name in ("loss", "weight"):
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in settings[name].items()]
    for stage in settings["stage"]:
        lines += ["", "[[stage]]"]
        lines += [f"{key} = {_toml(value)}" for key, value in stage.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, str):
        # A text of JSON is one of TOML, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def flatten(settings: Any, where: str = "") -> dict[str, Any]:
    """Return settings under the names that `--set` gives them.

    Args:
        settings: A table, a list of tables, or a value.
        where: Name so far.

    Example:
        >>> flatten({"seed": 1, "stage": [{"epochs": 3}]})
        {'seed': 1, 'stage.0.epochs': 3}
    """
    if isinstance(settings, dict):
        items = list(settings.items())
    elif isinstance(settings, list) and settings and isinstance(settings[0], dict):
        items = [(str(i), table) for i, table in enumerate(settings)]
    else:
        return {where: settings}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{where}.{key}" if where else key)
    return flat


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name} must be above 0, got {value}")


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} must lie in [0, 1], got {value}")


def _check_at_least_0(name: str, value: float) -> None:
    if not value >= 0:
        raise InputError(f"{name} must be at least 0, got {value}")
