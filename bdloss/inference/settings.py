"""How a map is predicted: settings that check themselves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bdloss.constants import AUTO
from bdloss.errors import InputError
from bdloss.geo.area import NO_AREA
from bdloss.geo.orthophoto import Orthophoto
from bdloss.inference.tta import check_modes
from bdloss.memory import refuse_beyond_memory

if TYPE_CHECKING:
    from bdloss.models import Predictor


NATIVE = "native"  # beside `AUTO`: resolutions that are no number
FAMILIAR = 1.2  # ratio of resolutions up to which a model knows what it sees


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """How a map is predicted, whatever the raster.

    Attributes:
        window: Side of the windows, in pixels.
        overlap: How far neighbouring windows overlap, in pixels, less than `window`.
        batch: Number of windows that the model is given at a time.
        threshold: Least probability of a building, in [0, 1].
        tta: Test-time augmentation, a name in `tta.MODES`.
        mean: Of its answers, a name in `tta.MEANS`.
        resolution: Side of a pixel on the ground that the model is given, in metres;
            None for the raster's. Maps are on the grid of the raster anyhow.

    Raises:
        ValueError: If one is out of its range, or needs more memory than there is.
    """

    window: int = 512
    overlap: int = 128
    batch: int = 4
    threshold: float = 0.5
    tta: str = "none"
    mean: str = "arithmetic"
    resolution: float | None = None

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError(f"window must be 1 pixel or more, got {self.window}")
        if not 0 <= self.overlap < self.window:
            raise InputError(
                f"overlap must be 0 or more and smaller than the window, "
                f"{self.window}, got {self.overlap}"
            )
        if self.batch < 1:
            raise InputError(f"batch must be 1 or more, got {self.batch}")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must be 0 to 1, got {self.threshold}")
        # A strip and probabilities, in float32, are the least of it.
        needed = 4 * self.batch * self.window**2 * 2
        what = f"batch {self.batch} of windows of {self.window} pixels"
        refuse_beyond_memory(needed, what)
        check_modes(self.tta, self.mean)

    @property
    def way(self) -> dict[str, Any]:
        """How any image is predicted, by the names of these settings."""
        names = ("window", "overlap", "threshold", "tta", "mean")
        return {name: getattr(self, name) for name in names}

    @property
    def resampled(self) -> float | str:
        """What an image is resampled to before, in metres a pixel, or `no`."""
        return "no" if self.resolution is None else self.resolution

    def tags(self, orthophoto: Orthophoto) -> dict[str, Any]:
        """Return what a mask must remember, so that it is not taken for another."""
        nodata, area = orthophoto.nodata, orthophoto.area
        return {
            **self.way,
            "bands": ",".join(str(index) for index in orthophoto.band_indexes),
            "resampled": self.resampled,
            "declared_nodata": "no" if nodata is None else f"{nodata:g}",
            "aoi": NO_AREA if area is None else area.tag,
        }


def settings_for(
    predictor: "Predictor", ground: float | None = None, **given: Any
) -> InferenceSettings:
    """Return settings with the model's own in the place of what is not given.

    Args:
        predictor: The model: its patch size, threshold, augmentation and resolution are
            used.
        ground: Side of a pixel of the image, in metres; None if unknown.
        **given: As in `InferenceSettings`; None is not given. `resolution` may also be
            "auto", as when it is not given: the model's, if it knows one and that of
            the image is another by more than `FAMILIAR`; or "native", the image's.

    Raises:
        ValueError: If a setting is out of its range, or the model cannot take windows
            of this size.
    """
    said = {name: value for name, value in given.items() if value is not None}
    window = said.get("window", predictor.patch_size)
    predictor.check_window(window)
    own = {
        "window": window,
        "overlap": window // 4,
        "threshold": predictor.threshold,
        "tta": predictor.tta,
    }
    resolution = said.get("resolution", AUTO)
    if resolution == AUTO:
        trained = predictor.resolution
        resolution = None if is_familiar(ground, trained) else trained
    if resolution == NATIVE:
        resolution = None
    return InferenceSettings(**{**own, **said, "resolution": resolution})


def is_familiar(ground: float | None, trained: float | None) -> bool:
    """Return whether a model may know what it sees, or nobody can say.

    Example:
        >>> is_familiar(0.3, 0.3), is_familiar(0.03, 0.3), is_familiar(None, 0.3)
        (True, False, True)
    """
    if ground is None or trained is None:
        return True
    return 1 / FAMILIAR <= ground / trained <= FAMILIAR
