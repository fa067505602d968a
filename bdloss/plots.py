"""Pictures: curves, samples, outlines, errors, the steps of the loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bdloss.colours import default_colours, rgb_of
from bdloss.constants import IGNORED
from bdloss.files import atomic_path
from bdloss.metrics.scores import (
    boundary_f1,
    count_pixels,
    find_boundary,
    widen_boundary,
)

LEGEND_COLUMNS = 8
MAX_ASPECT = 2.0  # height by width of a scene in `samples.png`; taller ones shrink
TRUE, PRED = (255, 214, 0), (230, 0, 60)  # yellow and red, as RGB
# the classes of an error map, in the order of their numbers, and their RGB colours
ERRORS = {
    "ground": (35, 35, 35),
    "building": (235, 235, 235),
    "right, near the true boundary": (135, 135, 135),
    "false, near it": (245, 180, 150),
    "missed, near it": (140, 185, 240),
    "false": (215, 25, 30),
    "missed": (15, 75, 200),
    "ignored": (95, 75, 95),
}


class Sample(NamedTuple):
    """A window to draw.

    Attributes:
        title: The text above it.
        pixels: The image `(height, width, bands)`, 0..255, if there is one.
        true: True mask `(height, width)`; 255 is ignored.
        pred: Predicted mask of the same shape; 255 is masked.
    """

    title: str
    pixels: np.ndarray | None
    true: np.ndarray
    pred: np.ndarray


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss, IoU, BF1, Boundary IoU and w over epochs (as in Figs. 3 and 4).

    Args:
        history: One row per epoch, of what Keras logs.
        path: PNG file to write.
    """
    titles = {"loss": "loss", "iou": "IoU", "bf1": "BF1"}
    titles["boundary_iou"] = "Boundary IoU, 3 px"
    names = [name for name in titles if all(name in row for row in history)]
    figure = Figure(figsize=(4 * len(names), 3.2), layout="constrained")
    epochs = [row["epoch"] for row in history]
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if all(key in row for row in history):
                values = [row[key] for row in history]
                axes.plot(epochs, values, label=label, marker=".")
        axes.set(xlabel="epoch", ylabel=titles[name])
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
        if name != "loss":
            axes.set_ylim(0, 1)
            if all("w" in row for row in history):
                axes.plot(
                    epochs, [row["w"] for row in history], "--", c="0.5", label="w"
                )
        axes.legend()
    figure.savefig(path, dpi=120)


def draw_comparison(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]],
    key: str,
    path: Path,
    label: str,
) -> None:
    """Draw a score of several trainings over epochs (Figs. 3, 4, 7 and 8).

    Args:
        histories: The runs of each line of the legend, one row per epoch of what Keras
            logs. The line is their mean, the shaded area reaches from the lowest to the
            highest.
        key: The name of the score in the rows.
        path: PNG file to write.
        label: The name of the score on the axis.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, runs in histories.items():
        epochs = range(1, 1 + min(len(rows) for rows in runs))
        scores = np.array([[rows[e - 1][key] for e in epochs] for rows in runs])
        number = f"{len(runs)} run{'s' * (len(runs) != 1)}"
        (line,) = axes.plot(epochs, scores.mean(axis=0), label=f"{name}, {number}")
        axes.fill_between(
            epochs,
            scores.min(axis=0),
            scores.max(axis=0),
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    axes.set(xlabel="epoch", ylabel=label)
    axes.grid(alpha=0.3)
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=120)


def draw_intervals(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    rows: Sequence[str],
    centres: Mapping[str, float],
    path: Path,
) -> None:
    """Draw means and their intervals, one panel a score.

    Args:
        panels: Of each score: mean, low and high of a row, or of some of them. One
            without an interval (NaN) is a dot.
        rows: All rows, the uppermost first.
        centres: Where the line of each panel is drawn.
        path: PNG file to write.
    """
    size = (1.6 + 2.1 * len(panels), 1.0 + 0.34 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    for axes, (label, panel) in zip(
        np.ravel(figure.subplots(1, len(panels), sharey=True)),
        panels.items(),
        strict=True,
    ):
        axes.axvline(centres[label], color="0.6", linewidth=1)
        for name, (mean, low, high) in panel.items():
            place = len(rows) - 1 - rows.index(name)
            colour = f"C{rows.index(name)}"
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot(mean, place, "o", color=colour, markersize=5)
        axes.set_title(label, fontsize=9)
        axes.set_yticks(range(len(rows)), reversed(rows), fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.margins(y=0.15)
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_side_by_side(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, Sequence[np.ndarray]]],
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw predictions of several models on the same windows (Figs. 2, 5, 6, 9, 10).

    Args:
        samples: Title, pixels `(height, width, bands)` 0..255, true mask
            `(height, width)` with 255 ignored, and the predicted masks of each window.
        names: The names of the models.
        path: PNG file to write.
    """
    columns = 2 + len(names)
    figure = Figure(figsize=(3.1 * columns, 3.5 * len(samples)), layout="constrained")
    rows = figure.subplots(len(samples), columns, squeeze=False)
    for row, (title, pixels, true, preds) in zip(rows, samples, strict=True):
        row[0].imshow(as_rgb(pixels))
        row[1].imshow(true == 1, cmap="gray", vmin=0, vmax=1)
        titles = [title, "truth"]
        for axes, name, pred in zip(row[2:], names, preds, strict=True):
            axes.imshow(pred == 1, cmap="gray", vmin=0, vmax=1)
            iou = count_pixels(true, pred, IGNORED).iou
            f1 = boundary_f1(true, pred, ignore=IGNORED).f1
            titles.append(f"{name}\nIoU {iou:.2f}, BF1 {f1:.2f}")
        for axes, text in zip(row, titles, strict=True):
            axes.set_title(text, fontsize=10)
            axes.set_axis_off()
    figure.savefig(path, dpi=100)


def draw_samples(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    path: Path,
    classes: Mapping[str, str] | None = None,
) -> None:
    """Draw image, truth and prediction of each sample side by side.

    Args:
        samples: Name, pixels `(height, width, bands)` 0..255, true and predicted mask
            `(height, width)` of each.
        path: PNG file to write.
        classes: Colours of classes by their names, in the order of their numbers in the
            masks; None for buildings, which are white.
    """

    def paint(mask: np.ndarray) -> np.ndarray:
        if classes:
            return paint_classes(mask, list(classes.values()))
        return np.where(mask == 1, 255, 0)

    # In inches: three images of width 4, each row as high as its scene and a title.
    heights = [
        0.3 + 4 * min(MAX_ASPECT, len(true) / true.shape[1])
        for _, _, true, _ in samples
    ]
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    rows = figure.subplots(len(samples), 3, squeeze=False, height_ratios=heights)
    for row, (name, pixels, true, pred) in zip(rows, samples, strict=True):
        picture = as_rgb(pixels)
        for axes, image, title in (
            (row[0], picture, name),
            (row[1], paint(true), "truth"),
            (row[2], paint(pred), "prediction"),
        ):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(title)
            axes.set_axis_off()
    if classes:
        figure.legend(
            handles=[
                Patch(color=colour, label=name) for name, colour in classes.items()
            ],
            loc="outside lower center",
            ncols=min(len(classes), LEGEND_COLUMNS),
        )
    figure.savefig(path, dpi=100)


def paint_classes(mask: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Return a mask of classes as a picture.

    Args:
        mask: Numbers of classes from 1, `(height, width)`, uint8; 255 is ignored.
        colours: The colour of each class, `#rrggbb`.

    Returns:
        Picture of shape `(height, width, 3)`, uint8: black where no class is.
    """
    palette = np.zeros((IGNORED + 1, 3), np.uint8)
    palette[1 : 1 + len(colours)] = [rgb_of(colour) for colour in colours]
    return palette[mask]


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return an image of any number of bands as RGB.

    Args:
        pixels: Array of shape `(height, width, bands)`, 0..255.

    Returns:
        The first three bands, or, if there are fewer, the first one as grey; uint8.
    """
    bands = [0, 1, 2] if pixels.shape[-1] >= 3 else [0, 0, 0]
    return np.ascontiguousarray(pixels[..., bands])


def draw_outlines(
    pixels: np.ndarray,
    pred: np.ndarray,
    true: np.ndarray | None = None,
    zoom: int = 1,
) -> np.ndarray:
    """Draw predicted outlines (red) over true ones (yellow) on an image.

    Args:
        pixels: Array of shape `(height, width, bands)`, 0..255.
        pred: Predicted mask `(height, width)`.
        true: True mask of the same shape, if known.
        zoom: Factor by which the image is enlarged; lines stay thin.

    Returns:
        Picture of shape `(zoom * height, zoom * width, 3)`, uint8.
    """
    picture = _enlarge(as_rgb(pixels), zoom)
    for mask, colour in ((true, TRUE), (pred, PRED)):
        if mask is not None:
            _draw_edges(picture, mask == 1, colour, zoom)
    return picture


def draw_classes(
    pixels: np.ndarray, masks: np.ndarray, colours: Sequence[str], zoom: int = 1
) -> np.ndarray:
    """Draw the outlines of classes on an image, each in its colour.

    Args:
        pixels: Array of shape `(height, width, bands)`, 0..255.
        masks: Where each class is, `(height, width, classes)`, bool.
        colours: The colour of each class, `#rrggbb`.
        zoom: As in `draw_outlines`.

    Returns:
        Picture of shape `(zoom * height, zoom * width, 3)`, uint8.
    """
    picture = _enlarge(as_rgb(pixels), zoom)
    for mask, colour in zip(np.moveaxis(masks, -1, 0), colours, strict=True):
        _draw_edges(picture, mask, rgb_of(colour), zoom)
    return picture


def _enlarge(array: np.ndarray, zoom: int) -> np.ndarray:
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _draw_edges(
    picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], zoom: int
) -> None:
    """Draw the outlines of a mask on a picture that is enlarged."""
    lines, _ = cv2.findContours(
        _enlarge(mask, zoom).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, lines, -1, colour, zoom)


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write an RGB picture as PNG.

    Args:
        picture: Array of shape `(height, width, 3)`, uint8.
        path: PNG file to write, whole or not at all; replaced if it exists.
    """
    _, data = cv2.imencode(".png", picture[..., ::-1])
    with atomic_path(path) as partial:
        partial.write_bytes(data.tobytes())


def mark_errors(true: np.ndarray, pred: np.ndarray, tolerance: float) -> np.ndarray:
    """Classify each pixel as right or wrong, and as near the true boundary or not.

    Args:
        true: True mask `(height, width)`; 255 is ignored.
        pred: Predicted mask of the same shape; 255 is masked.
        tolerance: Distance in pixels; a pixel closer to the true boundary is near it.

    Returns:
        Array of the same shape, uint8: indexes into `ERRORS`.

    Example:
        >>> true = np.array([[1, 1, 0, 0, 0, 0]])
        >>> mark_errors(true, np.array([[1, 1, 1, 0, 0, 1]]), tolerance=2).tolist()
        [[2, 2, 3, 0, 0, 5]]
    """
    marks = {name: number for number, name in enumerate(ERRORS)}
    unknown = (true == IGNORED) | (pred == IGNORED)
    edge = find_boundary(np.where(unknown, IGNORED, true), ignore=IGNORED)
    near = widen_boundary(edge, tolerance)
    false, missed = (pred == 1) & (true == 0), (pred == 0) & (true == 1)
    chosen = np.select(
        [unknown, false & near, false, missed & near, missed, near, true == 1],
        [
            marks["ignored"],
            marks["false, near it"],
            marks["false"],
            marks["missed, near it"],
            marks["missed"],
            marks["right, near the true boundary"],
            marks["building"],
        ],
        marks["ground"],
    )
    return chosen.astype(np.uint8)


def colour_errors(marks: np.ndarray) -> np.ndarray:
    """Return the classes of `mark_errors` as an RGB image."""
    return np.array(list(ERRORS.values()), np.uint8)[marks]


def draw_windows(samples: Sequence[Sample], path: Path, tolerance: float = 3) -> None:
    """Draw windows one below the other: image, truth, prediction and errors.

    Args:
        samples: The windows, one or more.
        path: PNG file to write.
        tolerance: As in `mark_errors`.
    """
    figure = Figure(figsize=(12.4, 3.3 * len(samples) + 0.7), layout="constrained")
    rows = figure.subplots(len(samples), 4, squeeze=False)
    for row, sample in zip(rows, samples, strict=True):
        if sample.pixels is not None:
            row[0].imshow(as_rgb(sample.pixels))
        else:
            row[0].text(0.5, 0.5, "no image", ha="center", va="center")
        row[1].imshow(sample.true == 1, cmap="gray", vmin=0, vmax=1)
        row[2].imshow(sample.pred == 1, cmap="gray", vmin=0, vmax=1)
        marks = mark_errors(sample.true, sample.pred, tolerance)
        row[3].imshow(colour_errors(marks), interpolation="nearest")
        titles = (sample.title, "truth", "prediction", "errors")
        for axes, title in zip(row, titles, strict=True):
            axes.set_title(title, fontsize=10)
            axes.set_axis_off()
    figure.legend(
        handles=[
            Patch(facecolor=f"#{bytes(colour).hex()}", edgecolor="0.5", label=name)
            for name, colour in ERRORS.items()
        ],
        loc="outside lower center",
        ncols=len(ERRORS),
        fontsize=8,
        handlelength=1.2,
        columnspacing=1.2,
    )
    figure.savefig(path, dpi=100)


def draw_stages(
    true: np.ndarray,
    pred: np.ndarray,
    path: Path,
    theta0: int = 3,
    theta: int = 5,
    pixels: np.ndarray | None = None,
) -> None:
    """Draw the steps of the boundary loss on a window (Fig. 1).

    Args:
        true: True mask `(height, width)`; 255 is ignored.
        pred: Predicted mask or map of probabilities of the same shape; 255 is masked.
        path: PNG file to write.
        theta0: Side of the window of Eq. 1, in pixels.
        theta: Side of the window of Eq. 2, in pixels.
        pixels: The image `(height, width, bands)`, 0..255, to draw beside them.

    Raises:
        ValueError: If the windows cannot be used (see `boundary.check_windows`).
    """
    from bdloss.losses import boundary

    boundary.check_windows(theta0, theta)
    known = (true != IGNORED) & (pred != IGNORED)
    valid, y_true, y_pred = (
        np.where(known, part, 0).astype(np.float32)[None, ..., None]
        for part in (known, true, pred)
    )
    edges = [boundary.extract_boundary(y, theta0, valid) for y in (y_true, y_pred)]
    wide = [boundary.extend_boundary(edge, theta) for edge in edges]
    precision, recall = boundary.soft_precision_recall(
        y_true, y_pred, theta0, theta, smooth=0.0, valid=valid
    )
    f1 = boundary.soft_boundary_f1(
        y_true, y_pred, theta0, theta, smooth=0.0, valid=valid
    )
    panels = [
        (y_true, "truth"),
        (edges[0], f"its boundary (theta0 = {theta0})"),
        (wide[0], f"extended (theta = {theta})"),
        (edges[1] * wide[0], f"precision map: P = {float(precision[0, 0]):.3f}"),
        (y_pred, "prediction"),
        (edges[1], f"its boundary (theta0 = {theta0})"),
        (wide[1], f"extended (theta = {theta})"),
        (edges[0] * wide[1], f"recall map: R = {float(recall[0, 0]):.3f}"),
    ]
    columns = 4 if pixels is None else 5
    height, width = true.shape
    figure = Figure(
        figsize=(3.1 * columns, 6.2 * height / width + 1), layout="constrained"
    )
    rows = figure.subplots(2, columns)
    for axes, (image, title) in zip(rows[:, -4:].flat, panels, strict=True):
        axes.imshow(np.asarray(image)[0, ..., 0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=10)
    if pixels is not None:
        rows[0, 0].imshow(as_rgb(pixels))
        rows[0, 0].set_title("image", fontsize=10)
    for axes in rows.flat:
        axes.set_axis_off()
    figure.suptitle(f"BF1 = 2PR / (P + R) = {float(f1[0, 0]):.3f}", fontsize=11)
    figure.savefig(path, dpi=110)


def draw_examples(pixels: np.ndarray, true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Draw patches beside their truth and prediction.

    Args:
        pixels: Patches `(number, height, width, bands)`, 0..255.
        true: Masks `(number, height, width, maps)`; 255, ignored, is drawn grey.
        pred: Probabilities of the same shape, in [0, 1]. One map is drawn grey, of
            several each has a colour.

    Returns:
        Pictures of shape `(number, height, 3 * width, 3)`, uint8.

    Example:
        >>> grey, mask = np.full((1, 1, 1, 1), 9), np.ones((1, 1, 1, 1))
        >>> draw_examples(grey, mask, mask)[0, 0, :, 0].tolist()
        [9, 255, 255]
    """
    maps = true.shape[-1]
    colours = [(255,)] if maps == 1 else [*map(rgb_of, default_colours(maps))]
    ignored = 127 * (true[..., :1] == IGNORED)
    truth = np.minimum((true == 1) @ np.array(colours) + ignored, 255)
    drawn = np.minimum(pred @ np.array(colours), 255)
    parts = [*map(as_rgb, (pixels, truth, drawn))]
    return np.concatenate(parts, axis=2).round().astype(np.uint8)
