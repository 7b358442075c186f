"""What a service is made with; knows nothing of routes, of the environment or of where a predictor comes from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from continual.domain.adapters import AdapterVersion, Task
from continual.domain.boxes import Box
from continual.domain.errors import SettingsError

MEBIBYTE = 1024 * 1024

VolumeMask = NDArray[np.uint8]
Spacing = tuple[float, float, float]


class Known(Protocol):
    """One loaded adapter version on its backbone. Not thread-safe: callers keep it on one thread."""

    @property
    def task(self) -> Task:
        """What it answers; one that segments is a `MaskPredictor`, too."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the head's outputs; of a mask's numbers from 1, 0 being the background."""

    @property
    def backbone_digest(self) -> str:
        """SHA-256 of the frozen weights underneath."""


class Predictor(Known, Protocol):
    """A loaded version that looks at pictures."""

    def predict(self, pixels: NDArray[np.uint8]) -> Mapping[str, float]:
        """Probability per class in [0, 1], summing to 1, for one image of shape [height, width, 3].

        Of one that segments: the share of the image's pixels that each class covers.
        """


class MaskAnswer(Protocol):
    """What a predictor that segments says about one image or volume."""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Class number of every pixel, 0 the background, of the image's own height and width; of a volume's voxels
        [x, y, z], on its own grid in canonical axes.
        """

    @property
    def confidence(self) -> float:
        """Mean over the pixels of the probability of the class that was chosen, in [0, 1]."""


class MaskPredictor(Predictor, Protocol):
    """A loaded version that segments."""

    def predict_mask(self, pixels: NDArray[np.uint8]) -> MaskAnswer:
        """The mask of one image of shape [height, width, 3]; of one that takes boxes, under the whole image's."""


class BoxPredictor(MaskPredictor, Protocol):
    """A loaded version that segments what boxes ask for."""

    def predict_boxed(self, pixels: NDArray[np.uint8], boxes: Mapping[str, Box]) -> MaskAnswer:
        """The mask of one image under boxes in its own pixels, by class name or "" for every class.

        Raises PromptError for a box beyond the image or of an unknown class.
        """


class VolumePredictor(Known, Protocol):
    """A loaded version that classifies volumes."""

    def predict(self, values: NDArray[np.float32], spacing_mm: Spacing) -> Mapping[str, float]:
        """Probability per class, summing to 1, for the values [x, y, z] of one volume in canonical axes.

        Raises LearningError for a volume that it cannot look at.
        """


class VolumeMaskPredictor(Known, Protocol):
    """A loaded version that segments volumes."""

    def predict_mask(self, values: NDArray[np.float32], spacing_mm: Spacing) -> MaskAnswer:
        """The mask of one volume; else as `VolumePredictor.predict`."""


AnyPredictor = Predictor | MaskPredictor | VolumePredictor | VolumeMaskPredictor
"""What a version loads as. A version's record tells volumes from pictures, `task` tells masks from scores."""


def takes_boxes(predictor: Predictor) -> TypeGuard[BoxPredictor]:
    """Whether it can be asked with boxes."""
    return hasattr(predictor, "predict_boxed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """Limits and secrets of one service; `predictor_loader` turns a stored version into something that predicts."""

    predictor_loader: Callable[[AdapterVersion], AnyPredictor]
    api_token: str | None = field(default=None, repr=False)
    """Bearer token that may move aliases; None leaves the service read-only."""
    max_upload_bytes: int = 32 * MEBIBYTE
    max_waiting_predictions: int = 64
    """Predictions held in memory at once; one more is told to come back."""
    preload: bool = False
    """Load the champions when the service starts, so that the first prediction does not wait for them."""

    def __post_init__(self) -> None:
        for name in ("max_upload_bytes", "max_waiting_predictions"):
            value = getattr(self, name)
            if value < 1:
                raise SettingsError(f"service: {name} is {value}, must be 1 or more; correct the setting")
