"""A closed form at its place: on top of a frozen backbone, with the face that an adapted network shows to callers.

Nothing in it has gradients. Knows torch and the frozen backbone; knows nothing of files or of how it was learnt.
"""

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from continual.learning.closed_form import Features, Readout, Scores
from continual.learning.network import embed_prefix, finish_features
from continual.learning.segmentation.tile_cache import Cache


@final
class ClosedFormNetwork:
    """A backbone with the readout of a closed form on its frozen features.

    `method` is a key of `CLOSED_FORMS`; `temperature`, above 0, divides the scores wherever probabilities are told.
    """

    def __init__(self, vision: VisionTransformer, method: str, classes: Sequence[str], readout: Readout) -> None:
        self.vision = vision.eval()
        self.method = method
        self.classes = tuple(classes)
        self.readout = readout
        self.temperature = 1.0

    @property
    def device(self) -> torch.device:
        """Where the backbone lies; the readout is numpy's, on the processor."""
        device: torch.device = next(self.vision.parameters()).device
        return device

    def cached_scores(self, cache: Cache, digests: Sequence[str], progress: Callable[[int], None]) -> Scores:
        """Class scores of cached images, rows in the order given; `progress` is told how many."""
        if not digests:
            return np.empty((0, len(self.classes)))
        scores = self.readout.scores(cache.features(digests))
        progress(len(digests))
        return scores

    @torch.inference_mode()
    def image_features(self, images: Float[Tensor, "image 3 side side"]) -> Features:
        """Frozen features of standardised images."""
        depth = len(self.vision.blocks)
        tokens = embed_prefix(self.vision, images.to(self.device), depth)
        features: Features = finish_features(self.vision, tokens, depth).cpu().numpy()
        return features

    def image_scores(self, images: Float[Tensor, "image 3 side side"]) -> Float[Tensor, "image klass"]:
        """Class scores of standardised images, through the whole path from pixels; float64, on the processor."""
        return torch.from_numpy(self.readout.scores(self.image_features(images)))

    def calibrated(self, scores: Float[Tensor, "image klass"]) -> Float[Tensor, "image klass"]:
        """Probabilities of class scores at the temperature (Guo et al. 2017); classes keep their order."""
        return (scores / self.temperature).softmax(dim=1)
