"""What a service is made with; knows nothing of routes, of the environment or of where a predictor comes from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from continual.domain.adapters import AdapterVersion
from continual.domain.errors import SettingsError

MEBIBYTE = 1024 * 1024


class Predictor(Protocol):
    """One loaded adapter version on its backbone. Not thread-safe: callers keep it on one thread."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the head's outputs."""

    @property
    def backbone_digest(self) -> str:
        """SHA-256 of the frozen weights underneath."""

    def predict(self, pixels: NDArray[np.uint8]) -> Mapping[str, float]:
        """Probability per class in [0, 1], summing to 1, for one image of shape [height, width, 3]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """Limits and secrets of one service; `predictor_loader` turns a stored version into something that predicts."""

    predictor_loader: Callable[[AdapterVersion], Predictor]
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
