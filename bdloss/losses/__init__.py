"""The boundary loss (Eq. 4), the losses it is compared with, and their weighted sum.

Each loss is a function of `y_true, y_pred` that returns one value per image, and a
Keras class of the same name. `get("boundary")` makes one by name.

    boundary_loss -> prepare -> soft_boundary_f1 -> extract_boundary -> max_pool

`functional` and `classes` are the functions and classes, `inputs` prepares the tensors,
and the maths is in `boundary` (Eqs. 1-3), `oriented` (boundaries that know where their
building is), `region` (cross-entropy, IoU, Dice, SS) and `vgg`.
Masks may be of any dtype; all sums are taken in float32.
"""

from bdloss.losses.boundary import BOUNDARIES
from bdloss.losses.classes import (
    EXTRAS,
    NAMES,
    BinaryCrossentropy,
    BoundaryLoss,
    CombinedLoss,
    DiceLoss,
    EdgeCrossentropy,
    IoULoss,
    OrientedBoundaryLoss,
    SSLoss,
    VGGLoss,
    get,
)
from bdloss.losses.functional import (
    binary_crossentropy,
    boundary_loss,
    dice_loss,
    edge_crossentropy,
    iou_loss,
    oriented_boundary_loss,
    ss_loss,
    vgg_loss,
)
from bdloss.losses.pooling import POOLINGS
from bdloss.losses.vgg import VGGFeatures

__all__ = [
    "BOUNDARIES",
    "EXTRAS",
    "NAMES",
    "POOLINGS",
    "BinaryCrossentropy",
    "BoundaryLoss",
    "CombinedLoss",
    "DiceLoss",
    "EdgeCrossentropy",
    "IoULoss",
    "OrientedBoundaryLoss",
    "SSLoss",
    "VGGFeatures",
    "VGGLoss",
    "binary_crossentropy",
    "boundary_loss",
    "dice_loss",
    "edge_crossentropy",
    "get",
    "iou_loss",
    "oriented_boundary_loss",
    "ss_loss",
    "vgg_loss",
]
