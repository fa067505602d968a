"""bdloss data: what is trained on, checked, looked at, and cached."""

from pathlib import Path

import click

from bdloss.cli.command import Group, one_line_errors, start_keras
from bdloss.cli.options import EXISTING, FOLDER, experiment_options


@click.group("data", cls=Group)
def data() -> None:
    """Check a data set, look at what is trained on, clear what was cached."""


@data.command("check")
@experiment_options
@click.option("--quick", is_flag=True, help="Open the files only.")
def check_data(
    dataset: str | None,
    config: Path | None,
    data: Path | None,
    changes: tuple[str, ...],
    seed: int | None,
    quick: bool,
) -> None:
    """List what is missing, unreadable, mismatched or suspicious, and the totals.

    The exit code is 1 if anything is missing, unreadable or mismatched.
    """
    start_keras()
    with one_line_errors():
        from bdloss.data import check
        from bdloss.training.experiment import load_experiment
        from bdloss.training.run import read_splits

        overrides = {"dataset.root": data, "seed": seed}
        _, experiment = load_experiment(dataset, config, overrides, changes)
        chosen, splits = experiment.dataset, read_splits(experiment)
        faults = []
        for fault in check.check_splits(splits, chosen.name, quick):
            click.echo(f"{fault.kind:<10}  {fault.text}")
            faults.append(fault)
        if not quick:
            for part, scenes in splits._asdict().items():
                counts = check.count_scenes(scenes, classes=chosen.class_names)
                click.echo(f"{part:<10}  {counts}")
    grave = sum(fault.is_grave for fault in faults)
    click.echo(f"faults      {grave}, and {len(faults) - grave} to look at")
    if grave:
        raise SystemExit(1)


@data.command("show")
@experiment_options
@click.option(
    "--out",
    type=EXISTING,
    default=Path("patches.png"),
    show_default=True,
    help="PNG file to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def show(
    dataset: str | None,
    config: Path | None,
    data: Path | None,
    changes: tuple[str, ...],
    seed: int | None,
    out: Path,
    overwrite: bool,
) -> None:
    """Draw patches as training sees them, augmented and with outlines."""
    start_keras()
    with one_line_errors():
        from bdloss.data.contact_sheet import draw_training_patches
        from bdloss.training.experiment import load_experiment
        from bdloss.training.run import read_splits

        overrides = {"dataset.root": data, "seed": seed}
        _, experiment = load_experiment(dataset, config, overrides, changes)
        scenes = read_splits(experiment).train
        draw_training_patches(
            scenes,
            out,
            experiment.patches,
            experiment.seed,
            overwrite=overwrite,
            classes=experiment.dataset.class_colours,
        )
    named = experiment.dataset.class_colours.items()
    outlines = ", ".join(f"{name} {colour}" for name, colour in named) or "in yellow"
    contact = "contact in magenta, " * any(scene.contact for scene in scenes)
    click.echo(f"{out}: outlines {outlines}, {contact}ignored pixels dark")


@data.command("clear-cache")
@click.option("--cache", type=FOLDER, help="The cache.  [~/.cache/bdloss]")
def clear_cache(cache: Path | None) -> None:
    """Remove the scenes that trainings have decoded."""
    with one_line_errors():
        from bdloss.data import cache as caches

        folder = cache or caches.default_folder()
        freed = caches.clear_cache(folder)
    click.echo(f"{folder}: {freed / 1e9:.2f} GB removed")
