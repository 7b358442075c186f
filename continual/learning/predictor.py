"""Serving one adapter version: pixels or voxels in, class probabilities or a mask out."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from continual.domain.adapters import Task
from continual.learning.adapter_files import RECORD
from continual.learning.backbone_weights import weights_from_bytes
from continual.learning.network import AdaptedNetwork
from continual.learning.segmentation.box_network import BoxNetwork
from continual.learning.segmentation.box_predictor import BoxPredictor
from continual.learning.segmentation.mask_predictor import MaskPredictor
from continual.learning.segmentation.segmenting_network import SegmentingNetwork
from continual.learning.version_networks import VersionNetwork, image_scores, read_version
from continual.learning.views import standardise, view_of
from continual.learning.volumes.classifier import VolumeClassifier
from continual.learning.volumes.predictors import VolumeMaskPredictor, VolumePredictor
from continual.learning.volumes.segmenter import VolumeSegmenter


class Predictor:
    """One version ready to answer. Not safe for two threads at once: give it one executor thread or a lock."""

    def __init__(self, network: VersionNetwork, backbone_digest: str, image_size: int) -> None:
        self._network = network
        self._image_size = image_size
        self.backbone_digest = backbone_digest
        self.classes = network.classes
        self.task = Task.CLASSIFICATION

    @torch.inference_mode()
    def predict(self, pixels: UInt8[np.ndarray, "height width 3"]) -> dict[str, float]:
        """Probability per class at the version's temperature, summing to 1."""
        network, views = self._network, [pixels]
        if isinstance(network, AdaptedNetwork):
            views = [view_of(pixels, view, upright=network.upright) for view in range(network.test_time_views)]
        seen = torch.stack([standardise(view, self._image_size) for view in views])
        scores = image_scores(network, seen).mean(dim=0, keepdim=True)
        answer = self._network.calibrated(scores)[0].tolist()
        return {name: float(value) for name, value in zip(self.classes, answer, strict=True)}


AnyPredictor = Predictor | MaskPredictor | BoxPredictor | VolumePredictor | VolumeMaskPredictor


def load_predictor(backbone: bytes | Path, files: Mapping[str, bytes], device: str = "cpu") -> AnyPredictor:
    """A predictor from backbone weights (safetensors bytes or a path to them) and a version's files.

    It answers with classes or with masks, of images or of volumes, as the version's record says.

    Raises BackboneError or AdapterMismatchError when they do not belong together.
    """
    data = backbone if isinstance(backbone, bytes) else backbone.read_bytes()
    shape = json.loads(files[RECORD])["network"] if RECORD in files else {}
    weights = weights_from_bytes(data, shape.get("backbone"))
    network = read_version(weights, files, torch.device(device))
    if isinstance(network, BoxNetwork):
        return BoxPredictor(network, weights.digest)
    if isinstance(network, SegmentingNetwork):
        return MaskPredictor(network, weights.digest)
    if isinstance(network, VolumeSegmenter):
        return VolumeMaskPredictor(network, weights.digest)
    if isinstance(network, VolumeClassifier):
        return VolumePredictor(network, weights.digest)
    return Predictor(network, weights.digest, shape["image_size"])
