"""Serving one version that is asked with boxes: pixels and a box per class in, a mask of the image's own size out."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import UInt8

from continual.domain.adapters import Task
from continual.domain.boxes import ANY_CLASS, Box, whole_image
from continual.domain.errors import PromptError
from continual.learning.segmentation.box_network import BoxNetwork
from continual.learning.segmentation.framing import Framing
from continual.learning.segmentation.mask_predictor import MaskAnswer, answer_of


class BoxPredictor:
    """One version ready to answer. Not safe for two threads at once: give it one executor thread or a lock."""

    task = Task.SEGMENTATION

    def __init__(self, network: BoxNetwork, backbone_digest: str) -> None:
        self._network = network
        self._framing = Framing(network.grid.image_size, padded=True)
        self.backbone_digest = backbone_digest
        self.classes = network.classes

    @torch.inference_mode()
    def predict_boxed(self, pixels: UInt8[np.ndarray, "height width 3"], boxes: Mapping[str, Box]) -> MaskAnswer:
        """The mask of an image, at the image's own size.

        `boxes` are in the image's pixels, by class or for `ANY_CLASS`; a class without one is not looked for. Raises
        PromptError for a box beyond the image or of an unknown class.
        """
        height, width = pixels.shape[:2]
        asked = self._asked(boxes, height, width)
        device = next(self._network.parameters()).device
        image = self._framing.standardised(self._framing.pixels(pixels), self._framing.side)[None].to(device)
        scores = self._network.ask(self._network.prefix(image), asked)[0].cpu()
        return answer_of(self._network, self._framing.back(scores, height, width))

    def predict_mask(self, pixels: UInt8[np.ndarray, "height width 3"]) -> MaskAnswer:
        """The mask of an image whose whole is every class's box."""
        return self.predict_boxed(pixels, {ANY_CLASS: whole_image(*pixels.shape[:2])})

    def predict(self, pixels: UInt8[np.ndarray, "height width 3"]) -> dict[str, float]:
        """Share of the image's pixels that each class covers, in [0, 1], under whole-image boxes."""
        return dict(self.predict_mask(pixels).shares)

    def _asked(self, boxes: Mapping[str, Box], height: int, width: int) -> dict[int, Box]:
        unknown = sorted(set(boxes) - {ANY_CLASS, *self.classes})
        if unknown:
            raise PromptError(
                f"{len(unknown)} boxes are of classes that the version does not know; it tells apart "
                f"{', '.join(self.classes)}"
            )
        for box in boxes.values():
            box.check_inside(height, width)
        found = {number: boxes.get(name, boxes.get(ANY_CLASS)) for number, name in enumerate(self.classes, start=1)}
        return {number: self._framing.box(box, height, width) for number, box in found.items() if box is not None}
