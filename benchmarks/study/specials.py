"""Ablations that change what no setting of an experiment says."""

from collections.abc import Callable

NARROWING = (15, 11, 7)  # theta of two epochs each, then the experiment's own
NARROWED_AFTER = 2  # epochs


def _give_ties_to_the_first() -> None:
    """Pool as Keras does, whose gradient goes to one of the pixels that tie."""
    from keras import ops

    from bdloss.losses import boundary

    def max_pool(y, side: int):
        return ops.max_pool(y, side, 1, "same", data_format="channels_last")

    boundary.max_pool = max_pool


def _narrow_theta() -> None:
    """Let theta begin wide, where bands that lie apart still meet."""
    from bdloss.callbacks import BoundaryWeight
    from bdloss.training import run as training

    class Narrowing(BoundaryWeight):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            step = epoch // NARROWED_AFTER
            extra = self.model.loss.extra
            theta = NARROWING[step] if step < len(NARROWING) else self.theta
            if theta != extra.theta:
                extra.theta = theta
                self.model.make_train_function(force=True)
                self.model.make_test_function(force=True)

    def weight_callback(experiment):
        weight = experiment.weight
        narrowing = Narrowing(weight.start, weight.end, weight.first, weight.last)
        narrowing.theta = experiment.loss.theta
        return narrowing

    training.weight_callback = weight_callback


SPECIALS: dict[str, Callable[[], None]] = {
    "first of ties": _give_ties_to_the_first,
    "narrowing theta": _narrow_theta,
}
