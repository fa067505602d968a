"""Run folders: what a training writes, and whether it may go on with what is there."""

import json
import platform
import resource
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

import bdloss
from bdloss.errors import DamagedFileError, InputError, OutputExistsError
from bdloss.files import ASIDE, DAMAGED, atomic_path
from bdloss.settings import flatten
from bdloss.training.checkpoints import newest_epoch
from bdloss.training.experiment import (
    Experiment,
    make_experiment,
    read_file,
    write_experiment,
)

# Written at the end, or epoch by epoch; what `experiment.toml` is not among.
PRODUCTS = (
    *("metrics.json", "model.keras", "history.csv", "curves.png", "samples.png"),
    "report.html",
    *("search.csv", "search.png"),
)
RESUMABLE = ("patches.workers", "fit.tensorboard")  # may change when it is resumed
PACKAGES = ("keras", "segmodels-keras", "numpy", "rasterio")


class RunFolder:
    """The folder of a run.

    Attributes:
        path: The folder; it need not exist.
        settings: `experiment.toml` in it, which says that it is a run.
        result: `metrics.json` in it, which says that the run is finished.
        checkpoints: Folder of what it goes on from, until it is finished.
        logs: Folder for TensorBoard.
        samples: Picture of scenes and their prediction, `samples.png` in it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.settings = path / "experiment.toml"
        self.result = path / "metrics.json"
        self.checkpoints = path / "checkpoints"
        self.logs = path / "logs"
        self.samples = path / "samples.png"

    def check_is_run(self) -> None:
        """Refuse a folder of something else, to go on with or to clear."""
        if not self.path.exists() or self.settings.is_file():
            return
        # Killed while it wrote its first file, a run is nothing but a part of that.
        folder = self.path.is_dir()
        if not folder or any(ASIDE not in p.name for p in self.path.iterdir()):
            raise OutputExistsError(
                f"{self.path} exists and is no run; give another --out"
            )

    def check_settings(self, experiment: Experiment) -> None:
        """Refuse a run that was begun with other settings."""
        if not self.settings.is_file():
            return
        begun = flatten(make_experiment(read_file(self.settings)).model_dump())
        now = flatten(experiment.model_dump())
        for key in {**begun, **now}:
            if begun.get(key) != now.get(key) and key not in RESUMABLE:
                raise InputError(
                    f"{self.path} was begun with {key} = {begun.get(key)}, not "
                    f"{now.get(key)}; give another --out, or --fresh to start over"
                )

    def check_epoch(self, newest: int) -> None:
        """Refuse to go on from what another process has gone on from meanwhile.

        Args:
            newest: Epoch of the newest checkpoint when it was read.
        """
        if self.result.exists() or newest_epoch(self.checkpoints) != newest:
            raise InputError(
                "another process has trained meanwhile; give the command again: "
                f"{self.path}"
            )

    def clear(self) -> None:
        """Remove what an earlier run has left, the settings last."""
        for folder in (self.checkpoints, self.logs):
            shutil.rmtree(folder, ignore_errors=True)
        for name in PRODUCTS:
            (self.path / name).unlink(missing_ok=True)
        self.settings.unlink(missing_ok=True)

    def write_settings(self, experiment: Experiment) -> None:
        """Write the settings as they are used."""
        with atomic_path(self.settings) as partial:
            partial.write_text(write_experiment(experiment))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write what came out; the run is then finished."""
        with atomic_path(self.result) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n")
        shutil.rmtree(self.checkpoints)

    def read_result(self) -> dict[str, Any]:
        """Read what came out of a run that is finished.

        Raises:
            ValueError: If the file is damaged.
        """
        shutil.rmtree(self.checkpoints, ignore_errors=True)  # killed before it could
        try:
            result = dict(json.loads(self.result.read_text()).items())
            parts = [result[part] for part in ("validation", "test") if part in result]
            if all({"iou", "bf1_3", "bf1_5"} <= part.keys() for part in parts):
                return result
        except DAMAGED:
            pass
        raise DamagedFileError(f"damaged; give --fresh to start over: {self.result}")


def environment(devices: str) -> dict[str, Any]:
    """Return what a result depends on beside the settings.

    Args:
        devices: What trained it.

    Returns:
        Most memory held, in megabytes, versions of packages, state of the checkout
        and kind of machine.
    """
    return {
        "memory_mb": round(_peak_memory() / 1e6),
        "versions": {
            "bdloss": bdloss.__version__,  # which need not be installed
            **{name: version(name) for name in (*PACKAGES, keras.backend.backend())},
        },
        "git": _git_state(),
        "machine": f"{platform.machine()}, {platform.system()}, Python "
        f"{platform.python_version()}, {devices}",
    }


def _git_state() -> str | None:
    """Return commit and state of the checkout that this runs from, if it is one."""
    root = Path(bdloss.__file__).parents[1]
    if not (root / ".git").exists() or not shutil.which("git"):
        return None
    done = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def _peak_memory() -> int:
    """Return the most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
