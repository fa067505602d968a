"""Pictures of a run: curves over epochs, predictions beside the truth, outlines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

TRUE, PRED = (255, 214, 0), (230, 0, 60)  # yellow and red, as RGB


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss, IoU and w over epochs (the manner of Figs. 3 and 4).

    Args:
        history: A row an epoch, as Keras logs them.
        path: PNG file to write.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, name in ((left, "loss"), (right, "iou")):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if all(key in row for row in history):
                axes.plot(epochs, [row[key] for row in history], label=label)
        axes.set(xlabel="epoch", ylabel="IoU" if name == "iou" else "loss")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    right.set_ylim(0, 1)
    if all("w" in row for row in history):
        right.plot(epochs, [row["w"] for row in history], "--", c="0.5", label="w")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)


def draw_samples(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], path: Path
) -> None:
    """Draw image, truth and prediction of each sample side by side.

    Args:
        samples: Name, pixels `(height, width, bands)` 0..255, true and predicted mask
            `(height, width)` of each.
        path: PNG file to write.
    """
    figure = Figure(figsize=(12, 4.2 * len(samples)), layout="constrained")
    rows = figure.subplots(len(samples), 3, squeeze=False)
    for axes, (name, pixels, true, pred) in zip(rows, samples, strict=True):
        picture = as_rgb(pixels)
        for place, image, title in (
            (axes[0], picture, name),
            (axes[1], np.where(true == 1, 255, 0) // (1 + (true == 255)), "truth"),
            (axes[2], np.where(pred == 1, 255, 0), "prediction"),
        ):
            place.imshow(image, cmap="gray", vmin=0, vmax=255)
            place.set_title(title)
            place.set_axis_off()
    figure.savefig(path, dpi=100)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return the picture of an image with any number of bands.

    Args:
        pixels: Array of shape `(height, width, bands)`, 0..255.

    Returns:
        The first three bands, or the first one as grey; uint8.
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
        zoom: How many pixels of the picture a pixel becomes; lines stay thin.

    Returns:
        Picture of shape `(zoom * height, zoom * width, 3)`, uint8.
    """

    def enlarge(array: np.ndarray) -> np.ndarray:
        return array.repeat(zoom, axis=0).repeat(zoom, axis=1)

    picture = enlarge(as_rgb(pixels))
    for mask, colour in ((true, TRUE), (pred, PRED)):
        if mask is not None:
            lines, _ = cv2.findContours(
                enlarge(mask == 1).astype(np.uint8),
                cv2.RETR_CCOMP,
                cv2.CHAIN_APPROX_NONE,
            )
            cv2.drawContours(picture, lines, -1, colour, zoom)
    return picture


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write an RGB picture as PNG.

    Args:
        picture: Array of shape `(height, width, 3)`, uint8.
        path: PNG file to write; replaced if it exists.
    """
    _, data = cv2.imencode(".png", picture[..., ::-1])
    path.write_bytes(data.tobytes())
