"""The losses as functions of `y_true, y_pred`: one value per image (Section 2, Eq. 4).

`classes` has the same losses for `model.compile`.
"""

from collections.abc import Callable, Sequence

from bdloss.losses.boundary import SMOOTH, soft_boundary_f1
from bdloss.losses.inputs import mean_over_classes, prepare
from bdloss.losses.region import crossentropy, soft_dice, soft_iou, soft_ss
from bdloss.losses.vgg import feature_distance


def binary_crossentropy(
    y_true,
    y_pred,
    *,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return the mean binary cross-entropy of each image, over its valid pixels.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        from_logits: Whether it is logits; a sigmoid is applied to each class. Then a
            prediction that is wrong beyond doubt still has its full gradient.
        ignore: Value of the mask whose pixels drop out of the mean; None for none.
        class_weights: One weight a class for the mean over classes; equal if None.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks are held to be 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, at least 0; 0 if all pixels are ignored.

    Raises:
        ValueError: If shapes differ, or a setting is none of those above.

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
        data_format=data_format,
        validate=validate,
    )
    return mean_over_classes(crossentropy(*inputs), class_weights)


def iou_loss(
    y_true,
    y_pred,
    *,
    smooth: float = SMOOTH,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the soft intersection over union (Section 2).

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        smooth: Pixels added above and below the line, so that two empty masks
            cost 0.
        from_logits: Whether it is logits; a sigmoid is applied to each class.
        ignore: Value of the mask whose pixels drop out of every sum; None for none.
        class_weights: One weight a class for the mean over classes; equal if None.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks are held to be 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, smooth is below 0, or a setting is none of those
            above.

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
        data_format=data_format,
        validate=validate,
    )
    score = soft_iou(inputs.y_true, inputs.y_pred, smooth)
    return mean_over_classes(1.0 - score, class_weights)


def dice_loss(
    y_true,
    y_pred,
    *,
    smooth: float = SMOOTH,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the soft Dice score (Section 2).

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        smooth: Pixels added above and below the line, so that two empty masks
            cost 0.
        from_logits: Whether it is logits; a sigmoid is applied to each class.
        ignore: Value of the mask whose pixels drop out of every sum; None for none.
        class_weights: One weight a class for the mean over classes; equal if None.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks are held to be 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, smooth is below 0, or a setting is none of those
            above.

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
        data_format=data_format,
        validate=validate,
    )
    score = soft_dice(inputs.y_true, inputs.y_pred, smooth)
    return mean_over_classes(1.0 - score, class_weights)


def ss_loss(
    y_true,
    y_pred,
    *,
    lam: float = 0.5,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the weighted specificity and sensitivity (Section 2).

    `1 - (lam * TN / (TN + FP) + (1 - lam) * TP / (TP + FN))`, with soft counts such as
    TP = sum(y p) and FP = sum((1 - y) p). Where a mask has no background, or no
    building, that rate is 1: no pixel there can be wrong.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        lam: Weight of the specificity, in [0, 1]: 1 looks at the background only.
        from_logits: Whether it is logits; a sigmoid is applied to each class.
        ignore: Value of the mask whose pixels drop out of every sum; None for none.
        class_weights: One weight a class for the mean over classes; equal if None.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks are held to be 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, lam is outside [0, 1], or a setting is none of
            those above.

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
        data_format=data_format,
        validate=validate,
    )
    score = soft_ss(inputs.y_true, inputs.y_pred, lam, inputs.valid)
    return mean_over_classes(1.0 - score, class_weights)


def vgg_loss(
    y_true,
    y_pred,
    *,
    extractor: Callable,
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return the squared difference of features (Section 2; Mosinska et al., 2018).

    The mean over pixels and filters, summed over depths. In an ignored pixel the
    network is shown background in truth and prediction. Each class is a picture by
    itself.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        extractor: Takes maps of shape `(n, height, width, 1)`, returns a sequence of
            tensors `(n, rows, columns, filters)`: a `VGGFeatures`.
        from_logits: Whether it is logits; a sigmoid is applied to each class.
        ignore: Value of the mask whose pixels are shown as background; None for none.
        class_weights: One weight a class for the mean over classes; equal if None.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks are held to be 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, at least 0.

    Raises:
        ValueError: If shapes differ, or a setting is none of those above.

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
        data_format=data_format,
        validate=validate,
    )
    distance = feature_distance(inputs.y_true, inputs.y_pred, extractor)
    return mean_over_classes(distance, class_weights)


def boundary_loss(
    y_true,
    y_pred,
    *,
    theta0: int = 3,
    theta: int = 5,
    smooth: float = SMOOTH,
    boundary: str = "pooling",
    from_logits: bool = False,
    ignore: int | None = None,
    class_weights: Sequence[float] | None = None,
    data_format: str = "channels_last",
    validate: bool = False,
):
    """Return one minus the soft BF1 of the boundaries (Eq. 4).

    With `smooth` 1 two empty boundaries cost 0; 16 true boundary pixels of which
    none was found and none predicted elsewhere cost 1 - 2 / 18 = 0.89; a prediction
    where nothing is costs nearly 1 and its gradient removes it. With `smooth` 0 this is
    Eq. 3 as it is printed, and where that is 0/0 our own reading of it: these three
    cases cost 0, 1 and 1.

    It does not train a network alone: a constant added to the prediction changes
    nothing (its gradient sums to zero over each image), and a hollow outline costs
    nothing. See `CombinedLoss`.

    Args:
        y_true: Mask, 0 or 1, of shape `(batch, height, width[, classes])`.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        theta0: Side of the window that finds boundaries (Eq. 1), odd, in pixels.
        theta: Side of the window that extends them (Eq. 2), odd, in pixels, less
            than the gap between buildings. A window, not a distance: see
            `bdloss.losses.boundary`.
        smooth: Pixels added above and below the line of Eq. 3.
        boundary: `"pooling"` (Eq. 1) or `"sobel"`, the length of the gradient, which
            the paper rejected: it lies on both sides of an edge and is kept to compare.
        from_logits: Whether it is logits; a sigmoid is applied to each class.
        ignore: Value of the mask whose pixels drop out of every sum; None for none.
        class_weights: One weight a class for the mean over classes; equal if None.
        data_format: `"channels_last"`, or `"channels_first"` for
            `(batch, classes, height, width)`.
        validate: Whether masks are held to be 0 or 1: see `prepare`.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If shapes differ, theta0 or theta is even, theta is less than
            theta0, smooth is below 0, or a setting is none of those above.

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
        data_format=data_format,
        validate=validate,
    )
    score = soft_boundary_f1(
        inputs.y_true, inputs.y_pred, theta0, theta, smooth, inputs.valid, boundary
    )
    return mean_over_classes(1.0 - score, class_weights)
