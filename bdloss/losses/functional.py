"""The losses as functions of `y_true, y_pred`: one value per image (Section 2, Eq. 4).

`classes` has the same losses for `model.compile`.
"""

from collections.abc import Callable, Sequence

from bdloss.losses.boundary import SMOOTH, soft_boundary_f1
from bdloss.losses.inputs import mean_over_classes, prepare
from bdloss.losses.oriented import soft_oriented_f1
from bdloss.losses.region import (
    crossentropy,
    near_edges,
    soft_dice,
    soft_iou,
    soft_ss,
)
from bdloss.losses.vgg import feature_distance


def binary_crossentropy(
    y_true,
    y_pred,
    *,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return the mean binary cross-entropy of each image, over its valid pixels.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class. The
            loss is then computed from them, so that a confident wrong prediction
            keeps its full gradient.
        ignore: Mask value of pixels that are left out of the mean; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether the mean is over all images, which then have the same value.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, at least 0; 0 if all pixels are ignored.

    Raises:
        ValueError: If shapes differ, or a setting is not one of those above.

    Example:
        >>> from keras import ops
        >>> round(float(binary_crossentropy(ops.ones((1, 2, 3)),
        ...     ops.full((1, 2, 3), 0.5))[0]), 4)
        0.6931
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    return mean_over_classes(crossentropy(*inputs), class_weights)


def edge_crossentropy(
    y_true,
    y_pred,
    *,
    theta: int = 9,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return the mean binary cross-entropy of the pixels near a true edge.

    The plain way to make edges weigh more, which another loss has to beat: no pixel
    is judged by another. Where an edge cannot be known it wants what BCE wants.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        theta: Side of the window around a pixel, odd, in pixels, that must have true
            boundary (Eq. 1) in it: theta // 2 pixels away at most.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of the mean; None for none. They
            have no edges.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images, which then have the same
            value: an image of few buildings counts as little as it has.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, at least 0; 0 if the mask has no edge.

    Raises:
        ValueError: If shapes differ, theta is even or below 3, or a setting is not one
            of those above.

    Example:
        >>> from keras import ops
        >>> row = ops.reshape([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], (1, 1, 6))
        >>> pred = ops.reshape([0.9, 0.9, 0.5, 0.5, 0.5, 0.1], (1, 1, 6))
        >>> round(float(edge_crossentropy(row, pred, theta=3)[0]), 4)
        0.6931
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    near = near_edges(inputs.y_true, theta, inputs.valid)
    values = crossentropy(inputs.y_true, inputs.y_pred, near, inputs.logits, batch)
    return mean_over_classes(values, class_weights)


def iou_loss(
    y_true,
    y_pred,
    *,
    smooth: float = SMOOTH,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the soft intersection over union (Section 2).

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        smooth: Pixels added to numerator and denominator, so that two empty masks
            give 0.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images, which then have the same
            value: an image of few buildings counts as little as it has.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, smooth is below 0, or a setting is not one of
            those above.

    Example:
        >>> from keras import ops
        >>> mask = ops.reshape([1.0, 1.0, 0.0, 0.0], (1, 1, 4))
        >>> half = ops.reshape([1.0, 0.0, 0.0, 0.0], (1, 1, 4))
        >>> round(float(iou_loss(mask, half)[0]), 4)  # 1 - (1 + 1) / (2 + 1)
        0.3333
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    score = soft_iou(inputs.y_true, inputs.y_pred, smooth, batch)
    return mean_over_classes(1.0 - score, class_weights)


def dice_loss(
    y_true,
    y_pred,
    *,
    smooth: float = SMOOTH,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the soft Dice score (Section 2).

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        smooth: Pixels added to numerator and denominator, so that two empty masks
            give 0.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images, which then have the same
            value: an image of few buildings counts as little as it has.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, smooth is below 0, or a setting is not one of
            those above.

    Example:
        >>> from keras import ops
        >>> mask = ops.reshape([1.0, 1.0, 0.0, 0.0], (1, 1, 4))
        >>> half = ops.reshape([1.0, 0.0, 0.0, 0.0], (1, 1, 4))
        >>> float(dice_loss(mask, half)[0])  # 1 - (2 x 1 + 1) / (2 + 1 + 1)
        0.25
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    score = soft_dice(inputs.y_true, inputs.y_pred, smooth, batch)
    return mean_over_classes(1.0 - score, class_weights)


def ss_loss(
    y_true,
    y_pred,
    *,
    lam: float = 0.5,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the weighted specificity and sensitivity (Section 2).

    `1 - (lam * TN / (TN + FP) + (1 - lam) * TP / (TP + FN))`, with soft counts such as
    TP = sum(y p) and FP = sum((1 - y) p). Where a mask has no background, or no
    building, that rate is 1: there is no pixel to be wrong.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        lam: Weight of the specificity, in [0, 1]; with 1 only the background counts.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images, which then have the same
            value: an image of few buildings counts as little as it has.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, lam is outside [0, 1], or a setting is not one
            of those above.

    Example:
        >>> from keras import ops
        >>> mask = ops.reshape([1.0, 0.0, 0.0, 0.0], (1, 1, 4))
        >>> pred = ops.reshape([0.5, 1.0, 0.0, 0.0], (1, 1, 4))
        >>> round(float(ss_loss(mask, pred, lam=0.25)[0]), 4)  # 1/4 x 1/3 + 3/4 x 1/2
        0.4583
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    score = soft_ss(inputs.y_true, inputs.y_pred, lam, inputs.valid, batch)
    return mean_over_classes(1.0 - score, class_weights)


def vgg_loss(
    y_true,
    y_pred,
    *,
    extractor: Callable,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return the squared difference of features (Section 2; Mosinska et al., 2018).

    The mean over pixels and filters, summed over layers. Ignored pixels are shown to
    the network as background, in ground truth and prediction. Each class is a grey
    image of its own.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        extractor: Takes maps of shape `(n, height, width, 1)`, returns a sequence of
            tensors `(n, rows, columns, filters)`: a `VGGFeatures`.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are shown as background; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether the mean is over all images, which then have the same value.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, at least 0.

    Raises:
        ValueError: If shapes differ, or a setting is not one of those above.

    Example:
        >>> from keras import ops
        >>> mask = ops.ones((1, 4, 4))
        >>> float(vgg_loss(mask, mask / 2, extractor=lambda maps: [maps])[0])
        0.25
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    distance = feature_distance(inputs.y_true, inputs.y_pred, extractor, batch)
    return mean_over_classes(distance, class_weights)


def boundary_loss(
    y_true,
    y_pred,
    *,
    theta0: int = 3,
    theta: int = 5,
    smooth: float = SMOOTH,
    boundary: str = "pooling",
    pool: str = "shared",
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the soft BF1 of the boundaries (Eq. 4).

    With `smooth` 1 two empty boundaries give 0; 16 true boundary pixels and an empty
    prediction give 1 - 2 / 18 = 0.89; a false positive in an empty image gives nearly
    1, and its gradient removes it. With `smooth` 0 this is Eq. 3 as printed, where the
    paper leaves 0/0 open and we take it as 1: these three cases give 0, 1 and 1.

    It cannot train a network alone: a constant added to the prediction changes nothing
    (the gradient sums to zero over each image), and a hollow prediction of the right
    outline gives 0. See `CombinedLoss`.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        theta0: Side of the window that finds boundaries (Eq. 1), odd, in pixels.
        theta: Side of the window that extends them (Eq. 2), odd, in pixels, less
            than the gap between buildings. A window, not a distance: see
            `bdloss.losses.boundary`.
        smooth: Pixels added to numerator and denominator of Eq. 3.
        boundary: `"pooling"` (Eq. 1) or `"sobel"`, the gradient magnitude, which the
            paper rejected: it marks both sides of an edge and is kept to compare with.
        pool: The pooling of Eqs. 1 and 2, whose gradient differs where pixels tie:
            `"shared"` equally among them, or to one of them, the `"first"`, as
            Keras's.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images, which then have the same
            value: an image of few buildings counts as little as it has.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, theta0 or theta is even, theta is less than
            theta0, smooth is below 0, or a setting is not one of those above.

    Example:
        >>> from keras import ops
        >>> house = ops.pad(ops.ones((1, 9, 9)), [[0, 0], [4, 4], [4, 4]])
        >>> float(boundary_loss(house, ops.roll(house, 1, axis=2))[0])
        0.0
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    score = soft_boundary_f1(
        inputs.y_true,
        inputs.y_pred,
        theta0,
        theta,
        smooth,
        inputs.valid,
        boundary,
        pool,
        batch,
    )
    return mean_over_classes(1.0 - score, class_weights)


def oriented_boundary_loss(
    y_true,
    y_pred,
    *,
    theta: int = 9,
    smooth: float = SMOOTH,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the Dice score of oriented boundaries (`losses.oriented`).

    Unlike `boundary_loss` it sees teeth, and a hollow outline: a boundary must be there
    once, and fall to the right side. It grows with each pixel that a wall is off, up to
    theta. Two empty masks give 0; a house where the truth is empty nearly 1.

    It cannot train a network alone: at a constant prediction its gradient is 0, and the
    level far from boundaries is nothing to it. See `CombinedLoss`.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        theta: Side of the window that boundaries are spread over, odd, in pixels: how
            far apart two walls are no longer alike at all.
        smooth: Pixels of boundary added to numerator and denominator.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images, which then have the same
            value: an image of few buildings counts as little as it has.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, theta is even, smooth is below 0, or a setting is
            not one of those above.

    Example:
        >>> from keras import ops
        >>> house = ops.pad(ops.ones((1, 9, 9)), [[0, 0], [4, 4], [4, 4]])
        >>> moved = ops.roll(house, 1, axis=2)
        >>> round(float(oriented_boundary_loss(house, moved)[0]), 2)
        0.05
    """
    inputs = prepare(
        y_true,
        y_pred,
        from_logits=from_logits,
        ignore=ignore,
        batch=batch,
        data_format=data_format,
        validate=validate,
    )
    score = soft_oriented_f1(
        inputs.y_true, inputs.y_pred, theta, smooth, inputs.valid, batch
    )
    return mean_over_classes(1.0 - score, class_weights)
