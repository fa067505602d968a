"""Experiments as TOML files: what may stand in one, read, changed and checked."""

import copy
import logging
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, model_validator

from bdloss import models
from bdloss.constants import CONTACT
from bdloss.data.datasets import DATASETS, AnyDataset, settings_of
from bdloss.data.folder import FolderSettings
from bdloss.data.patches import PatchSettings
from bdloss.data.scenes import Resolution
from bdloss.errors import InputError
from bdloss.settings import Fraction, Settings, make_settings
from bdloss.training.loss import LossSettings
from bdloss.training.network import ModelSettings
from bdloss.training.schedules import MOVED, StageSettings, WeightSettings
from bdloss.training.start import network_of
from bdloss.training.trainer import FitSettings

logger = logging.getLogger(__name__)

NAMED = 5  # renamed settings that a warning names
DEFAULT = "banepa"  # the experiment that is trained if none is named
# Settings of 0.1 stood side by side: their names, and those of now.
RENAMED = {
    "dataset": "dataset.name",
    "data": "dataset.root",
    "validation": "dataset.validation",
    "test": "dataset.test",
    "resolution": "dataset.resolution",
    "bands": "dataset.bands",
    "labels": "dataset.labels",
    "shadows": "dataset.shadows",
    "classes": "dataset.classes",
    "scenes": "dataset.scenes",
    "height": "dataset.height",
    "backbone": "model.backbone",
    "encoder_weights": "model.encoder_weights",
    "filters": "model.filters",
    "blocks": "model.blocks",
    "skips": "model.skips",
    "momentum": "model.momentum",
    "patch": "patches.size",
    "batch": "patches.batch_size",
    "sampling": "patches.sampling",
    "steps": "patches.steps",
    "augment": "patches.augment",
    "building_bias": "patches.building_bias",
    "workers": "patches.workers",
    "tolerance": "fit.tolerance",
    "clip": "fit.clipnorm",
    "patience": "fit.patience",
    "mixed_precision": "fit.mixed_precision",
    "jit_compile": "fit.jit_compile",
    "tensorboard": "fit.tensorboard",
    "threshold": "prediction.threshold",
    "tta": "prediction.tta",
}


class PredictionSettings(Settings):
    """How scenes are scored, and what a model tells `bdloss predict`."""

    threshold: Fraction = 0.5  # probability from which a pixel is building
    tta: Literal["none", "flips", "d4"] = "none"
    resolution: Resolution = 0.0  # metres a pixel that it is best at; 0: the scenes'


class Experiment(Settings):
    """One training, whole: its data, its network, its loss and its schedule."""

    seed: int = 0
    dataset: AnyDataset = FolderSettings()
    model: ModelSettings = ModelSettings()
    patches: PatchSettings = PatchSettings()
    loss: LossSettings = LossSettings()  # BCE + w * extra + (1 - w) * IoU
    weight: WeightSettings = WeightSettings()  # w over epochs
    fit: FitSettings = FitSettings()
    prediction: PredictionSettings = PredictionSettings()
    stage: list[StageSettings] = Field(default=[StageSettings()], min_length=1)

    @model_validator(mode="after")
    def _check(self) -> "Experiment":
        model = self.model
        multiple = models.size_multiple(model.backbone, model.blocks)
        if self.patches.size % multiple:
            raise InputError(
                f"patches.size must be a multiple of {multiple} for {model.backbone}, "
                f"got {self.patches.size}"
            )
        known = (*self.dataset.class_names, CONTACT)
        for name in self.loss.class_weights:
            if name not in known:
                raise InputError(
                    f"loss.class_weights are of {', '.join(known)}, got {name!r}"
                )
        return self

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stage)

    @property
    def searches(self) -> bool:
        """Whether the weight w is searched."""
        return self.loss.extra in MOVED and self.weight.policy == "search"


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
        Settings as they stand in the file, those of 0.1 under their names of now.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        text = path.read_text("utf-8-sig")  # some editors leave a mark
        return rename_settings(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a TOML file: {path} ({error})") from error


def rename_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their names of now, and warn if some had those of 0.1.

    Args:
        settings: Settings as they stand in a file. Those of other data sets than the
            one that is named, which did nothing, are left out.
    """
    renamed = {key: value for key, value in settings.items() if key not in RENAMED}
    old = {key: settings[key] for key in RENAMED if key in settings}
    if isinstance(old.get("dataset"), dict):  # a table, as now
        renamed["dataset"] = dict(old.pop("dataset"))
    if not old:
        return renamed
    kind = old.get("dataset", renamed.get("dataset", {}).get("name", "folder"))
    if kind != "aicd":
        old.pop("classes", None)  # which then were those of AICD
    for key, value in old.items():
        table, _, name = RENAMED[key].partition(".")
        foreign = table == "dataset" and key not in ("dataset", "data")
        if not foreign or kind not in DATASETS or name in settings_of(kind):
            renamed[table] = {**renamed.get(table, {}), name: value}
    names = [f"{key} is now {RENAMED[key]}" for key in list(old)[:NAMED]]
    if len(old) > NAMED:
        names.append(f"and {len(old) - NAMED} more, see docs/training.md")
    logger.warning("renamed: %s", ", ".join(names))
    return renamed


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
    if key in RENAMED and not isinstance(value, dict):
        logger.warning("renamed: %s is now %s", key, RENAMED[key])
        key = RENAMED[key]
    _put(settings, key, value)


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    node: Any = settings
    for part in tables:
        if isinstance(node, list):
            node = _item(node, part, key)
        elif not isinstance(node, dict):
            break
        else:
            node = node.setdefault(part, {})
    if not isinstance(node, dict):
        raise InputError(f"{key} does not name a setting")
    node[last] = value


def _item(stages: list, number: str, key: str) -> Any:
    if not number.isdigit() or int(number) >= len(stages):
        raise InputError(
            f"{key}: stages are counted from 0 to {len(stages) - 1}, got {number}"
        )
    return stages[int(number)]


def load_experiment(
    named: str | None,
    file: Path | None,
    overrides: Mapping[str, Any],
    assignments: Sequence[str] = (),
    start: Path | None = None,
) -> tuple[str, Experiment]:
    """Read an experiment, change it as a command line says, and check it.

    Args:
        named: One of `config_names`; None for `DEFAULT`, or the file.
        file: A file of one's own, in its place.
        overrides: Values by the names of settings; those that are None are left out.
        assignments: As in `change`, after them.
        start: A trained model to start from, in the place of `[model]`.

    Returns:
        Its name, and the experiment.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If both are given, or as `read_named`, `change`, `network_of` and
            `make_experiment` say.
    """
    if named and file:
        raise InputError("give --dataset or --config, not both")
    name = file.stem if file else named or DEFAULT
    settings = read_file(file) if file else read_named(name)
    if start:
        settings["model"] = {"start": str(start)}
    for key, value in overrides.items():
        if value is not None:
            _put(settings, key, str(value) if isinstance(value, Path) else value)
    for assignment in assignments:
        change(settings, assignment)
    model = settings.get("model")
    if isinstance(model, dict) and model.get("start"):
        settings["model"] = network_of(Path(str(model["start"])), model)
    return name, make_experiment(settings)


def make_experiment(settings: Mapping[str, Any]) -> Experiment:
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
        >>> make_experiment({"sed": 4})
        Traceback (most recent call last):
        bdloss.errors.InputError: unknown setting 'sed'; did you mean 'seed'?
    """
    table = copy.deepcopy(rename_settings(settings))
    if isinstance(table.get("dataset"), dict):
        table["dataset"].setdefault("name", "folder")
    return make_settings(Experiment, table, RENAMED)


def write_experiment(experiment: Experiment) -> str:
    """Return an experiment as the TOML file from which it can be run again.

    Args:
        experiment: The experiment as it was run.

    Returns:
        Text of a TOML file.
    """
    return tomli_w.dumps(experiment.model_dump())
