"""Data sets by their names."""

from os import PathLike
from typing import Annotated, Any

from pydantic import Field

from bdloss.data.aicd import AicdSettings
from bdloss.data.folder import FolderSettings
from bdloss.data.inria import InriaSettings
from bdloss.data.potsdam import PotsdamSettings
from bdloss.data.scenes import DatasetSettings, Splits
from bdloss.data.synthetic import SyntheticSettings
from bdloss.data.unpacked import check_choice
from bdloss.errors import InputError
from bdloss.settings import make_settings

DATASETS: dict[str, type[DatasetSettings]] = {
    "folder": FolderSettings,
    "inria": InriaSettings,
    "potsdam": PotsdamSettings,
    "aicd": AicdSettings,
    "synthetic": SyntheticSettings,
}
AnyDataset = Annotated[
    FolderSettings | InriaSettings | PotsdamSettings | AicdSettings | SyntheticSettings,
    Field(discriminator="name"),
]


def read_dataset(name: str, root: str | PathLike, **settings: Any) -> Splits:
    """Find the scenes of a dataset.

    Args:
        name: One of `DATASETS`.
        root: Its folder.
        settings: Of this dataset, see `settings_of`.

    Returns:
        The scenes by what they are for.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no such dataset, it has no such setting, or as its
            reader says.
    """
    taken = settings_of(name)
    for setting in settings:
        if setting not in taken:
            raise InputError(
                f"{name} takes the settings {', '.join(taken)}, got {setting!r}"
            )
    return make_settings(DATASETS[name], {**settings, "root": str(root)}).read()


def settings_of(name: str) -> list[str]:
    """Return the names of the settings of a dataset, beside its name and folder.

    Args:
        name: One of `DATASETS`.

    Raises:
        ValueError: If there is no such dataset.

    Example:
        >>> settings_of("aicd")
        ['shadows', 'classes']
    """
    check_choice("dataset", name, DATASETS)
    fields = DATASETS[name].model_fields
    return [field for field in fields if field not in DatasetSettings.model_fields]
