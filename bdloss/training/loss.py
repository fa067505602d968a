"""The loss of an experiment."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from bdloss import losses
from bdloss.constants import BUILDING, IGNORED
from bdloss.settings import Fraction, NonNegative, Settings

RECOMMENDED: Literal["oriented"] = "oriented"  # docs/results.md says why
PAPERS = {"theta": 5, "batch": False}  # Section 4.3; of batches it says nothing


class LossSettings(Settings):
    """What is minimised: `BCE + w * extra + (1 - w) * IoU`.

    `theta` and `batch` are those of the recommended loss. Where another loss is named,
    and they are not, they are the paper's; but theta of `edge` is 9 too.
    """

    extra: Literal["boundary", "oriented", "edge", "dice", "ss", "vgg", "none"] = (
        RECOMMENDED
    )
    theta0: int = 3  # window side, pixels (Eq. 1)
    theta: int = 9  # window side, pixels (Eq. 2; oriented; edge)
    smooth: float = 1.0  # pixels
    lam: Fraction = 0.5  # weight of the specificity, for the loss ss
    boundary: Literal["pooling", "sobel"] = "pooling"  # how it finds boundaries
    pool: Literal["shared", "first"] = "shared"  # who gets the gradient of a tie
    bce: bool = True  # whether BCE is added
    batch: bool = True  # whether sums are over the batch, not over each patch
    vgg: str = "imagenet"  # imagenet | a file of VGG19 weights, for the loss vgg
    # Of classes, or contact, in the mean over all; one that is not named has 1.
    class_weights: dict[str, NonNegative] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """Add what goes with the loss that is named."""
        if not isinstance(given, dict):
            return given
        own: dict[str, dict] = {RECOMMENDED: {}, "edge": {"batch": False}}
        return {**own.get(str(given.get("extra", RECOMMENDED)), PAPERS), **given}


def make_loss(
    settings: LossSettings, w: float, targets: Sequence[str] = (BUILDING,)
) -> losses.CombinedLoss:
    """Make the loss that an experiment minimises.

    Args:
        settings: Its settings.
        w: Weight of the extra loss at first.
        targets: Names of the maps of the network.

    Returns:
        Combined loss that knows ignored pixels.
    """
    own: dict[str, dict[str, Any]] = {
        "boundary": {
            "theta0": settings.theta0,
            "theta": settings.theta,
            "smooth": settings.smooth,
            "boundary": settings.boundary,
            "pool": settings.pool,
        },
        "oriented": {"theta": settings.theta, "smooth": settings.smooth},
        "edge": {"theta": settings.theta},
        "dice": {"smooth": settings.smooth},
        "ss": {"lam": settings.lam},
        "vgg": {"extractor": settings.vgg},
    }
    extra = None
    if settings.extra != "none":
        extra = losses.EXTRAS[settings.extra](**own[settings.extra])
    weights = None
    if settings.class_weights:
        weights = [settings.class_weights.get(name, 1.0) for name in targets]
    return losses.CombinedLoss(
        extra,
        w=w,
        bce=settings.bce,
        ignore=IGNORED,
        class_weights=weights,
        batch=settings.batch,
    )
