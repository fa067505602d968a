"""Ablations that no setting of an experiment says: by callbacks."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

NARROWING = (15, 11, 7)  # theta of two epochs each, then the experiment's own
NARROWED_AFTER = 2  # epochs


def narrow_theta() -> "keras.callbacks.Callback":
    """Let theta begin wide, where boundaries that lie apart still meet."""
    from bdloss.callbacks import ThetaSchedule

    return ThetaSchedule(NARROWING, every=NARROWED_AFTER)


SPECIALS: dict[str, Callable[[], "keras.callbacks.Callback"]] = {
    "narrowing theta": narrow_theta,
}
