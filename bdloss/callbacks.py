"""The weight w of the boundary loss over epochs (Section 1: "gradually increased")."""

import keras


def ramp(epoch: int, start: float, end: float, first: int, last: int) -> float:
    """Return the weight of an epoch on a straight line between two epochs.

    Args:
        epoch: Epoch, counted from 0.
        start: Weight up to and including epoch `first`, in [0, 1].
        end: Weight from epoch `last` on, in [0, 1].
        first: Epoch at which the weight begins to change.
        last: Epoch at which it has changed.

    Returns:
        Weight in [0, 1].

    Example:
        >>> [ramp(epoch, 0.0, 0.5, first=1, last=3) for epoch in range(5)]
        [0.0, 0.0, 0.25, 0.5, 0.5]
    """
    if epoch >= last:
        return end
    share = max(0, epoch - first) / (last - first)
    return start + (end - start) * share


class BoundaryWeight(keras.callbacks.Callback):
    """Move the weight w of a `CombinedLoss` over epochs along a straight line.

    Put it into any `model.fit(callbacks=[...])` of a model compiled with a
    `CombinedLoss`. The weight stands in the logs as `w`. Give `initial_epoch` to
    `fit` to go on where an earlier run stopped.

    Args:
        start: Weight at first, in [0, 1].
        end: Weight at last, in [0, 1].
        first: Epoch, counted from 0, at which the weight begins to change.
        last: Epoch at which it reaches `end`, after `first`.

    Raises:
        ValueError: If a weight is outside [0, 1] or `last` is not after `first`.
    """

    def __init__(self, start: float, end: float, first: int, last: int):
        super().__init__()
        for name, weight in (("start", start), ("end", end)):
            if not 0.0 <= weight <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {weight}")
        if not 0 <= first < last:
            raise ValueError(
                f"last must come after first, got first={first}, last={last}"
            )
        self.start, self.end, self.first, self.last = start, end, first, last

    def on_train_begin(self, logs=None):
        """Check that there is a weight to move."""
        if not isinstance(getattr(self.model.loss, "w", None), keras.Variable):
            raise ValueError(
                "BoundaryWeight needs a model compiled with a CombinedLoss, "
                f"got {self.model.loss!r}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Set the weight of this epoch."""
        self.model.loss.w.assign(
            ramp(epoch, self.start, self.end, self.first, self.last)
        )

    def on_epoch_end(self, epoch, logs=None):
        """Report the weight of this epoch."""
        if logs is not None:
            logs["w"] = float(self.model.loss.w.value)
