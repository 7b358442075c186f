"""Serving one version that looks at volumes: voxels and their spacing in, class probabilities or a mask out.

What comes back lies on the volume's own grid. Not safe for two threads at once: give one predictor one executor thread
or a lock. Knows nothing of files: volumes are in canonical axes (right, anterior, superior) when they come.
"""

import numpy as np
import torch
from jaxtyping import Float

from continual.domain.adapters import Task
from continual.learning.segmentation.mask_predictor import MaskAnswer, answer_of
from continual.learning.views import at_shape
from continual.learning.volumes.classifier import VolumeClassifier
from continual.learning.volumes.grid import Volume, as_input
from continual.learning.volumes.segmenter import VolumeSegmenter


class VolumePredictor:
    """One version that classifies volumes, ready to answer."""

    task = Task.CLASSIFICATION

    def __init__(self, network: VolumeClassifier, backbone_digest: str) -> None:
        self._network = network
        self.backbone_digest = backbone_digest
        self.classes = network.classes

    @torch.inference_mode()
    def predict(self, values: Float[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]) -> dict[str, float]:
        """Probability per class at the version's temperature, summing to 1. LearningError for an impossible volume."""
        network, device = self._network, next(self._network.parameters()).device
        seen = as_input(network.grid.centred(network.grid.resampled(Volume(values, spacing_mm))))
        answer = network.calibrated(network.from_images(seen[None].to(device)))[0].tolist()
        return {name: float(value) for name, value in zip(self.classes, answer, strict=True)}


class VolumeMaskPredictor:
    """One version that segments volumes, ready to answer."""

    task = Task.SEGMENTATION

    def __init__(self, network: VolumeSegmenter, backbone_digest: str) -> None:
        self._network = network
        self.backbone_digest = backbone_digest
        self.classes = network.classes

    @torch.inference_mode()
    def predict_mask(self, values: Float[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]) -> MaskAnswer:
        """The mask of a volume on its own grid, with what it holds. LearningError for an impossible volume."""
        resampled = self._network.grid.resampled(Volume(values, spacing_mm))
        # As the cache holds it: what is served is what was measured.
        stored = resampled.astype(np.float16)
        scores = at_shape(self._network.whole_scores(as_input(stored)), values.shape)
        return answer_of(self._network, scores)
