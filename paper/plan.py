"""What a study trains: data sets, losses, ablations and seeds, of its file."""

import copy
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bdloss.errors import InputError
from paper.ablations import SPECIALS
from paper.features import FEATURES

PARTS = ("datasets", "losses", "ablations")
NEEDED = ("seeds", "threads", "reference", "compared", "datasets", "losses")


class Variant(NamedTuple):
    """A loss, or an ablation.

    Attributes:
        name: Of its folder.
        label: Of its rows and lines.
        changes: What `--set` would say.
        special: What no setting says: one of `SPECIALS`, or nothing.
        seeds: Those it is run with, for each data set that it is run on.
    """

    name: str
    label: str
    changes: list[str]
    special: str
    seeds: dict[str, list[int]]


class Study(NamedTuple):
    """A study file: see `paper/paper.toml`.

    Attributes:
        datasets: Settings of the experiment on each, or on each fold of one.
        folds: Which of these are the folds of each data set, whose scores are shown
            together; one that has none is its own.
        labels: What each data set is called in tables.
        drawn: The test scenes whose pictures may be shown; all of a data set that is
            not named.
        credits: Whose pictures these are, where that must be said.
        losses: Those of the paper's tables.
        ablations: What differs from `compared` in one thing each.
        reference: The loss that differences are taken to.
        compared: The loss that is drawn beside it.
        threads: Of each run.
    """

    datasets: dict[str, dict[str, Any]]
    folds: dict[str, list[str]]
    labels: dict[str, str]
    drawn: dict[str, list[str]]
    credits: dict[str, str]
    losses: list[Variant]
    ablations: list[Variant]
    reference: str
    compared: str
    threads: int


class Run(NamedTuple):
    """One training of a study."""

    dataset: str
    variant: Variant
    seed: int

    def folder(self, out: Path) -> Path:
        """Return where it is, in the folder of the study."""
        return out / self.dataset / self.variant.name / f"seed{self.seed}"


def read_study(path: Path) -> Study:
    """Read a study file.

    Args:
        path: A TOML file, see `paper/paper.toml`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not TOML, or not a study.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a TOML file: {path} ({error})") from error
    for key in NEEDED:
        if key not in table:
            raise InputError(f"a study file must have {key}, {path} has none")
    for part in PARTS:
        tables = table.get(part, {})
        parts = [tables, *(tables.values() if isinstance(tables, dict) else ())]
        if not all(isinstance(one, dict) for one in parts):
            raise InputError(f"{part} must be tables [{part}.NAME], got {tables!r}")
    described = complete(table["datasets"])
    labels = {name: one.pop("label", name) for name, one in described.items()}
    drawn, credits = (
        {name: one.pop(key) for name, one in described.items() if key in one}
        for key in ("drawn", "credit")
    )
    datasets, folds = unfold(described)

    def make_variant(name: str, one: dict[str, Any]) -> Variant:
        seeds = one.get("seeds", table["seeds"])
        if not isinstance(seeds, dict):
            seeds = dict.fromkeys(folds, seeds)
        seeds = {fold: seeds[key] for key in seeds for fold in folds.get(key, [])}
        label, special = one.get("label", name), one.get("special", "")
        return Variant(name, label, one.get("set", []), special, seeds)

    def variants(part: str) -> list[Variant]:
        return [make_variant(name, one) for name, one in table.get(part, {}).items()]

    study = Study(
        datasets,
        folds,
        labels,
        drawn,
        credits,
        variants("losses"),
        variants("ablations"),
        table["reference"],
        table["compared"],
        table["threads"],
    )
    names = [variant.name for variant in study.losses]
    for name in (study.reference, study.compared):
        if name not in names:
            raise InputError(f"a study compares two of its losses, got {name!r}")
    for variant in [*study.losses, *study.ablations]:
        for name, features in FEATURES.items():
            if f"loss.vgg={name}" in variant.changes and (
                features.label not in variant.label
            ):
                raise InputError(
                    f"its label says that {variant.name} has {features.label}, "
                    f"got {variant.label!r}"
                )
        if variant.special not in ("", *SPECIALS):
            raise InputError(
                f"special must be one of {', '.join(SPECIALS)}, got {variant.special!r}"
            )
    return study


def complete(datasets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return data sets with the tables and values of those that they are `like`.

    Raises:
        ValueError: If that is none of them, or is itself like another.

    Example:
        >>> complete({"a": {"weight": 1, "stage": 2}, "b": {"like": "a", "stage": 3}})
        {'a': {'weight': 1, 'stage': 2}, 'b': {'weight': 1, 'stage': 3}}
    """
    completed = {}
    for name, own in datasets.items():
        other = datasets.get(own["like"], own) if "like" in own else {}
        if "like" in other:
            raise InputError(
                f"{name} must be like a data set that is like no other, "
                f"got {own['like']!r}"
            )
        merged = copy.deepcopy({**other, **own})
        merged.pop("like", None)
        completed[name] = merged
    return completed


def unfold(
    datasets: dict[str, dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Return a data set for each of `folds`, and which are those of each name.

    Example:
        >>> unfold({"town": {"dataset": {"root": "a"}, "folds": [{"test": ["b"]}]}})
        ({'town_1': {'dataset': {'root': 'a', 'test': ['b']}}}, {'town': ['town_1']})
    """
    unfolded: dict[str, dict[str, Any]] = {}
    names: dict[str, list[str]] = {}
    for name, whole in datasets.items():
        settings = {key: value for key, value in whole.items() if key != "folds"}
        found = {name: settings}
        if "folds" in whole:
            dataset = settings.get("dataset", {})
            found = {
                f"{name}_{number}": {**settings, "dataset": {**dataset, **fold}}
                for number, fold in enumerate(whole["folds"], 1)
            }
        unfolded |= found
        names[name] = list(found)
    return unfolded, names


def list_runs(study: Study) -> list[Run]:
    """Return all runs: losses before ablations, and seed by seed."""
    runs = []
    for part in (study.losses, study.ablations):
        for dataset in study.datasets:
            planned = [(variant, variant.seeds.get(dataset, [])) for variant in part]
            runs += [
                Run(dataset, variant, seed)
                for seed in sorted({seed for _, seeds in planned for seed in seeds})
                for variant, seeds in planned
                if seed in seeds
            ]
    return runs


def choose_runs(
    study: Study,
    only: Sequence[str] = (),
    seed: int | None = None,
    shard: tuple[int, int] = (1, 1),
) -> list[Run]:
    """Return the runs that are asked for.

    Args:
        study: The study.
        only: Names of data sets, or of all folds of one, and of losses, or "losses",
            or "ablations"; a run is taken if all of them are its own.
        seed: The only seed.
        shard: Which part, from 1, of how many.
    """
    chosen = []
    for run in list_runs(study):
        part = "losses" if run.variant in study.losses else "ablations"
        of = {name for name, folds in study.folds.items() if run.dataset in folds}
        named = {run.dataset, *of, run.variant.name, part}
        if named.issuperset(only) and seed in (None, run.seed):
            chosen.append(run)
    if not chosen:
        wanted = [*only, *([] if seed is None else [f"seed {seed}"])]
        raise InputError(f"no run of the study is of {', '.join(wanted)}")
    return chosen[shard[0] - 1 :: shard[1]]


def make_settings(study: Study, run: Run, out: Path) -> dict[str, Any]:
    """Return the settings of a run's experiment, as they would stand in a file."""
    from bdloss.training import experiment as experiments

    settings = experiments.rename_settings(copy.deepcopy(study.datasets[run.dataset]))
    settings["seed"] = run.seed
    for assignment in run.variant.changes:
        experiments.change(settings, assignment)
    loss = settings.get("loss", {})
    if (name := loss.get("vgg")) in FEATURES:
        loss["vgg"] = str(out / FEATURES[name].file)
    return settings
