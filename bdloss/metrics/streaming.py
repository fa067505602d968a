"""IoU, BF1 and Boundary IoU while training, as Keras metrics."""

import keras
import numpy as np
from keras import ops

from bdloss.errors import InputError
from bdloss.metrics.boundary_iou import BOUNDARY_DISTANCE, check_distance
from bdloss.metrics.scores import TOLERANCE, disk, neighbours


class _PooledRatio(keras.metrics.Metric):
    """An intersection over a union, each summed over batches, then divided.

    Args:
        classes: As in `IoU`.
        name: Name in the logs.
    """

    def __init__(self, classes: int | None, name: str):
        super().__init__(name=name)
        self.classes = classes
        shape = () if classes is None else (classes,)
        self.intersection = self.add_variable(shape, "zeros", name="intersection")
        self.union = self.add_variable(shape, "zeros", name="union")

    def _add(self, true, pred):
        """Add maps of 0 and 1."""
        axes = None if self.classes is None else (0, 1, 2)
        both = ops.sum(true * pred, axes)
        self.intersection.assign_add(both)
        self.union.assign_add(ops.sum(true, axes) + ops.sum(pred, axes) - both)

    def result(self):
        """Return the score in [0, 1]; 0 before anything of a class was seen."""
        shares = self.intersection / ops.maximum(self.union, 1.0)
        seen = ops.cast(self.union > 0, "float32")
        return ops.sum(shares) / ops.maximum(ops.sum(seen), 1.0)


@keras.saving.register_keras_serializable("bdloss")
class IoU(_PooledRatio):
    """Pooled intersection over union while training: summed, then divided.

    Args:
        threshold: Probability from which a pixel is building.
        ignore: Value in `y_true` of pixels that do not count.
        name: Name in the logs.
        classes: How many maps, from the first, are classes, of each of which the score
            is taken by itself, and the mean over those that were seen. None pools all
            pixels of all maps.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        ignore: int | None = None,
        name: str = "iou",
        classes: int | None = None,
    ):
        super().__init__(classes, name)
        self.threshold = threshold
        self.ignore = ignore

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add the pixels of a batch: masks of any shape, probabilities of the same.

        A pixel of the mask that is not 0 is building, unless it is ignored.
        """
        _check_known_sides(y_true, y_pred)
        y_true, y_pred = (_first_maps(y, self.classes) for y in (y_true, y_pred))
        true = ops.cast(ops.not_equal(y_true, 0), "float32")
        pred = ops.cast(ops.cast(y_pred, "float32") >= self.threshold, "float32")
        if self.ignore is not None:
            valid = ops.cast(ops.not_equal(y_true, self.ignore), "float32")
            true, pred = true * valid, pred * valid
        self._add(true, pred)

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same metric again."""
        return {
            "threshold": self.threshold,
            "ignore": self.ignore,
            "name": self.name,
            "classes": self.classes,
        }


@keras.saving.register_keras_serializable("bdloss")
class BoundaryF1(keras.metrics.Metric):
    """BF1 while training: `boundary_f1` of each image, averaged.

    The mean is over the images of all batches that have a boundary in truth or
    prediction; `count` says how many they were. Each class of a map with several is
    an image of its own.

    Args:
        tolerance: Distance in pixels, above 0.
        threshold: Probability from which a pixel is building.
        connectivity: 4 or 8, which neighbours make a boundary.
        image_edge: Whether building pixels at the edge of the image are boundary.
        ignore: Value in `y_true` of pixels that do not count.
        name: Name in the logs.
        classes: How many maps, from the first, are classes; None for all.

    Raises:
        ValueError: If the tolerance is not above 0, or connectivity neither 4 nor 8.
    """

    def __init__(
        self,
        tolerance: float = TOLERANCE,
        threshold: float = 0.5,
        connectivity: int = 4,
        image_edge: bool = False,
        ignore: int | None = None,
        name: str = "bf1",
        classes: int | None = None,
    ):
        super().__init__(name=name)
        self._disk = disk(tolerance)
        self._neighbours = neighbours(connectivity)
        self.tolerance = tolerance
        self.threshold = threshold
        self.connectivity = connectivity
        self.image_edge = image_edge
        self.ignore = ignore
        self.classes = classes
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch: masks `(batch, height, width, classes)`, probabilities alike."""
        _check_known_sides(y_true, y_pred)
        y_true, y_pred = (
            _classes_to_images(ops.cast(_first_maps(y, self.classes), "float32"))
            for y in (y_true, y_pred)
        )
        valid = ops.ones_like(y_true)
        if self.ignore is not None:
            valid = ops.cast(ops.not_equal(y_true, self.ignore), "float32")
        true = self._find_boundary(ops.not_equal(y_true, 0), valid)
        pred = self._find_boundary(y_pred >= self.threshold, valid)
        precision, pixels_pred = _share(pred, _dilate(true, self._disk))
        recall, pixels_true = _share(true, _dilate(pred, self._disk))
        some = ops.cast(pixels_pred + pixels_true > 0, "float32")
        f1 = 2 * precision * recall / ops.maximum(precision + recall, 1e-12)
        self.total.assign_add(ops.sum(some * f1))
        self.count.assign_add(ops.sum(some))

    def _find_boundary(self, mask, valid):
        """Return what `find_boundary` does, as 0 and 1."""
        mask = ops.cast(mask, "float32")
        return (
            mask
            * valid
            * _dilate((1 - mask) * valid, self._neighbours, float(self.image_edge))
        )

    def result(self):
        """Return the mean in [0, 1]; 0 before any boundary was seen."""
        return self.total / ops.maximum(self.count, 1.0)

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same metric again."""
        return {
            "tolerance": self.tolerance,
            "threshold": self.threshold,
            "connectivity": self.connectivity,
            "image_edge": self.image_edge,
            "ignore": self.ignore,
            "name": self.name,
            "classes": self.classes,
        }


@keras.saving.register_keras_serializable("bdloss")
class BoundaryIoU(_PooledRatio):
    """Boundary IoU while training: pixels of all regions summed, then divided.

    The regions are those of `boundary_iou`. Nothing beyond the edge of a patch is
    background. Each class of a map with several has regions of its own.

    Args:
        threshold: Probability from which a pixel is building.
        distance: Depth of the regions in pixels, a whole number from 1.
        ignore: Value in `y_true` of pixels that do not count.
        name: Name in the logs.
        classes: As in `IoU`.

    Raises:
        ValueError: If the distance is no whole number from 1.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        distance: int = BOUNDARY_DISTANCE,
        ignore: int | None = None,
        name: str = "boundary_iou",
        classes: int | None = None,
    ):
        super().__init__(classes, name)
        check_distance(distance)
        self.threshold = threshold
        self.distance = distance
        self.ignore = ignore

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch: masks `(batch, height, width, classes)`, probabilities alike."""
        _check_known_sides(y_true, y_pred)
        y_true, y_pred = (_first_maps(y, self.classes) for y in (y_true, y_pred))
        y_true = ops.cast(y_true, "float32")
        valid = ops.ones_like(y_true)
        if self.ignore is not None:
            valid = ops.cast(ops.not_equal(y_true, self.ignore), "float32")
        true = self._find_region(ops.not_equal(y_true, 0), valid)
        pred = self._find_region(ops.cast(y_pred, "float32") >= self.threshold, valid)
        self._add(true, pred)

    def _find_region(self, mask, valid):
        """Return what `find_boundary_region` does, as 0 and 1."""
        mask = ops.cast(mask, "float32")
        return mask * valid * _dilate_square((1 - mask) * valid, self.distance)

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same metric again."""
        return {
            "threshold": self.threshold,
            "distance": self.distance,
            "ignore": self.ignore,
            "name": self.name,
            "classes": self.classes,
        }


def _first_maps(y, number: int | None):
    """Return the first maps of `(..., maps)`; all if no number is given."""
    return y if number is None else y[..., :number]


def _classes_to_images(y):
    """Return maps with classes as so many maps with one."""
    _, height, width, classes = ops.shape(y)
    if classes == 1:
        return y
    return ops.reshape(ops.transpose(y, (0, 3, 1, 2)), (-1, height, width, 1))


def _dilate(y, shape: np.ndarray, beyond: float = 0.0):
    """Return 1 where a map of 0 and 1 has a 1 within the shape around a pixel."""
    reach = len(shape) // 2
    padded = ops.pad(
        y, [[0, 0], [reach, reach], [reach, reach], [0, 0]], constant_values=beyond
    )
    kernel = ops.convert_to_tensor(shape[..., None, None], "float32")
    found = ops.conv(padded, kernel, padding="valid", data_format="channels_last")
    return ops.cast(found > 0.5, "float32")


def _dilate_square(y, reach: int):
    """Return 1 where a map of 0 and 1 has a 1 within a square around a pixel.

    Rows are pooled, then columns: the square may be large.
    """
    for axis in (1, 2):
        widths, window = [[0, 0] for _ in range(4)], [1, 1]
        widths[axis] = [reach, reach]
        window[axis - 1] = 2 * reach + 1
        y = ops.max_pool(ops.pad(y, widths), tuple(window), 1, "valid", "channels_last")
    return y


def _share(boundary, region):
    """Return the share of a boundary that lies in a region, and its pixels."""
    pixels = ops.sum(boundary, axis=(1, 2, 3))
    inside = ops.sum(boundary * region, axis=(1, 2, 3))
    return ops.where(pixels > 0, inside / ops.maximum(pixels, 1.0), 1.0), pixels


def _check_known_sides(y_true, y_pred) -> None:
    """Refuse batches whose shapes are known to differ: they would be stretched."""
    true, pred = (tuple(ops.shape(y)) for y in (y_true, y_pred))
    sides = [
        (a, b)
        for a, b in zip(true, pred, strict=False)
        if isinstance(a, int) and isinstance(b, int)
    ]
    if len(true) != len(pred) or any(a != b for a, b in sides):
        raise InputError(
            f"y_true and y_pred must have the same shape, got {true} and {pred}"
        )
