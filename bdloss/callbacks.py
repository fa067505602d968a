"""What changes of the loss over epochs: w (Section 1: "gradually increased"), theta."""

from collections.abc import Sequence

import keras
from keras import ops

from bdloss.errors import InputError


def ramp(epoch: int, start: float, end: float, first: int, last: int) -> float:
    """Return the weight of an epoch, on a linear ramp between two epochs.

    Args:
        epoch: Epoch, counted from 0.
        start: Weight up to and including epoch `first`, in [0, 1].
        end: Weight from epoch `last` on, in [0, 1].
        first: Epoch at which the weight begins to change.
        last: Epoch at which it reaches `end`.

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


def step(
    epoch: int, start: float, values: Sequence[float], first: int, every: int
) -> float:
    """Return the weight of an epoch, on a schedule of steps.

    Args:
        epoch: Epoch, counted from 0.
        start: Weight before epoch `first`, in [0, 1].
        values: Weights from then on, each for `every` epochs, the last one to the end.
        first: Epoch of the first step.
        every: Epochs between two steps.

    Returns:
        Weight in [0, 1].

    Example:
        >>> [step(epoch, 0.0, [0.3, 0.6], first=1, every=2) for epoch in range(6)]
        [0.0, 0.3, 0.3, 0.6, 0.6, 0.6]
    """
    if epoch < first:
        return start
    return values[min((epoch - first) // every, len(values) - 1)]


def carry_weight(model: keras.Model) -> None:
    """Let a model that JAX compiles follow the weight w of its loss.

    A step that JAX compiled knows no state but that of the model, its optimizer and
    its metrics: any other variable keeps the value of the first trace. The callbacks
    of this module call this themselves; call it once before the first step if you set
    `model.loss.w` by hand. The weight is then in the logs, as `w`.

    Args:
        model: A model compiled with a `CombinedLoss`.
    """
    carried = getattr(model, "loss_weight", None)
    if carried is None or carried.w is not model.loss.w:
        model.loss_weight = _Weight(model.loss.w)


class _Weight(keras.metrics.Metric):
    """The weight w as a metric, whose variables a compiled step keeps up to date."""

    def __init__(self, w: keras.Variable):
        super().__init__(name="w")
        self.w = w

    def update_state(self, *_, **__):
        """Do nothing: the weight is set, not measured."""

    def reset_state(self):
        """Do nothing: the weight is kept over epochs."""

    def result(self):
        """Return the weight: a copy, since JAX donates the buffer."""
        return ops.convert_to_tensor(self.w) + 0.0


class ConstantWeight(keras.callbacks.Callback):
    """Set the weight w of a `CombinedLoss` before each epoch, and report it.

    Pass it, or one of its subclasses below, to `model.fit(callbacks=[...])` of a model
    compiled with a `CombinedLoss`. The weight is in the logs, as `w`. Pass
    `initial_epoch` to `fit` to resume an earlier run.

    Args:
        w: Weight of all epochs, in [0, 1].

    Raises:
        ValueError: If the weight is outside [0, 1].
    """

    def __init__(self, w: float):
        super().__init__()
        _check_weight("w", w)
        self.w = w

    def weight(self, epoch: int) -> float:
        """Return the weight of an epoch, counted from 0."""
        return self.w

    def on_train_begin(self, logs=None):
        """Check that the model's loss has a weight to set."""
        if not isinstance(getattr(self.model.loss, "w", None), keras.Variable):
            raise InputError(
                f"{type(self).__name__} needs a model compiled with a CombinedLoss, "
                f"got {self.model.loss!r}"
            )
        if keras.backend.backend() == "jax":
            carry_weight(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        """Set the weight of this epoch."""
        self.model.loss.w.assign(self.weight(epoch))

    def on_epoch_end(self, epoch, logs=None):
        """Report the weight of this epoch."""
        if logs is not None:
            logs["w"] = float(ops.convert_to_numpy(self.model.loss.w))


class BoundaryWeight(ConstantWeight):
    """Change the weight w over epochs linearly: see `ramp`.

    Args:
        start: Weight up to and including epoch `first`, in [0, 1].
        end: Weight from epoch `last` on, in [0, 1].
        first: Epoch, counted from 0, at which the weight begins to change.
        last: Epoch at which it reaches `end`, after `first`.

    Raises:
        ValueError: If a weight is outside [0, 1] or `last` is not after `first`.
    """

    def __init__(self, start: float, end: float, first: int, last: int):
        super().__init__(start)
        _check_weight("end", end)
        if not 0 <= first < last:
            raise InputError(
                f"last must come after first, got first={first}, last={last}"
            )
        self.start, self.end, self.first, self.last = start, end, first, last

    def weight(self, epoch: int) -> float:
        """Return the weight of an epoch, counted from 0."""
        return ramp(epoch, self.start, self.end, self.first, self.last)


class SteppedWeight(ConstantWeight):
    """Change the weight w over epochs in steps: see `step`.

    Args:
        start: Weight before epoch `first`, in [0, 1].
        values: Weights from then on, at least one, in [0, 1].
        first: Epoch, counted from 0, of the first step.
        every: Epochs between two steps, at least 1.

    Raises:
        ValueError: If a weight is outside [0, 1], `values` is empty, `first` is below
            0 or `every` below 1.
    """

    def __init__(self, start: float, values: Sequence[float], first: int, every: int):
        super().__init__(start)
        for value in values:
            _check_weight("values", value)
        if not values or first < 0 or every < 1:
            raise InputError(
                "there must be values, first at least 0 and every at least 1, "
                f"got values={list(values)}, first={first}, every={every}"
            )
        self.start, self.values = start, list(values)
        self.first, self.every = first, every

    def weight(self, epoch: int) -> float:
        """Return the weight of an epoch, counted from 0."""
        return step(epoch, self.start, self.values, self.first, self.every)


class ThetaSchedule(keras.callbacks.Callback):
    """Change the theta of a boundary loss over epochs, such as from wide to narrow.

    A wide window sees boundaries that are far apart, a narrow one is strict. Pass it to
    `model.fit(callbacks=[...])` of a model compiled with a `BoundaryLoss`, or with a
    `CombinedLoss` of one. The theta is in the logs, as `theta`. It is a size of the
    graph, so each change compiles the steps of training and validation again. After
    `fit` the theta is the loss's own again.

    Args:
        values: Thetas of the first epochs, at least one, odd, in pixels; then comes
            the loss's own.
        every: Epochs that each is used for, at least 1.

    Raises:
        ValueError: If there are no values, one is even or below 1, or `every` is below
            1; in `fit`, if one is below the `theta0` of the loss.

    Example:
        >>> schedule = ThetaSchedule([15, 11, 7], every=2)
        >>> [schedule.theta(epoch, own=5) for epoch in range(8)]
        [15, 15, 11, 11, 7, 7, 5, 5]
    """

    def __init__(self, values: Sequence[int], every: int):
        super().__init__()
        for value in values:
            if value < 1 or value % 2 == 0:
                raise InputError(f"values must be odd numbers of pixels, got {value}")
        if not values or every < 1:
            raise InputError(
                "there must be values, and every at least 1, "
                f"got values={list(values)}, every={every}"
            )
        self.values, self.every = list(values), every
        self._seen: keras.losses.Loss | None = None
        self._own = 0  # theta of the loss that was seen

    def theta(self, epoch: int, own: int) -> int:
        """Return the theta of an epoch, counted from 0.

        Args:
            epoch: The epoch.
            own: The theta that comes after the values.
        """
        return [*self.values, own][min(epoch // self.every, len(self.values))]

    def on_train_begin(self, logs=None):
        """Check that there is a theta to set, and remember the loss's own."""
        loss = self._loss()
        if not hasattr(loss, "theta"):
            raise InputError(
                "ThetaSchedule needs a model compiled with a boundary loss, "
                f"got {self.model.loss!r}"
            )
        if min(self.values) < loss.theta0:
            raise InputError(
                f"values must not be less than theta0 = {loss.theta0}, "
                f"got {min(self.values)}"
            )
        # A training that was interrupted has left one of the values.
        if loss is not self._seen:
            self._seen, self._own = loss, loss.theta

    def on_epoch_begin(self, epoch, logs=None):
        """Set the theta of this epoch."""
        self._set(self.theta(epoch, self._own))

    def on_epoch_end(self, epoch, logs=None):
        """Report the theta of this epoch."""
        if logs is not None:
            logs["theta"] = self._loss().theta

    def on_train_end(self, logs=None):
        """Set the loss's own theta."""
        self._set(self._own)

    def _loss(self):
        return getattr(self.model.loss, "extra", self.model.loss)

    def _set(self, theta: int) -> None:
        loss = self._loss()
        if theta != loss.theta:
            loss.theta = theta
            self.model.make_train_function(force=True)
            self.model.make_test_function(force=True)


def _check_weight(name: str, weight: float) -> None:
    if not 0.0 <= weight <= 1.0:
        raise InputError(f"{name} must lie in [0, 1], got {weight}")
