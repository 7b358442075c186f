"""LiteMedSAM with LoRA in its image encoder: an image and a box per class in, a mask out (Ma et al. 2024).

The prompt encoder and the decoder's attention stay frozen. What learns beside LoRA, and is versioned as the head, is
the decoder's last step: upscaling, the network that weighs its channels, and a token per class, 0 at first, so that an
untrained network says exactly what LiteMedSAM says. Knows tokens and boxes; knows nothing of sites, files, strategies.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from continual.domain.boxes import Box, whole_image
from continual.domain.errors import LearningError
from continual.learning.devices import mixed_precision
from continual.learning.litemedsam import EMBEDDED, Backbone, LiteMedSam, finish_embedding, pass_blocks
from continual.learning.network import LoraShape
from continual.learning.segmentation.boxes import prompt_of
from continual.learning.segmentation.dense_network import DenseNetwork
from continual.learning.segmentation.segmenting_network import SegmentingNetwork
from continual.learning.segmentation.tiles import TileGrid

UNASKED = -30.0
"""The score of a class that no box asks for: below any the network gives."""


class BoxHead(nn.Module):
    """The decoder's last step, 0.21 M weights that start as LiteMedSAM's, and a token per class that starts at 0.

    SAM knows no classes: without the token, two of them asked with one box would get one mask.
    """

    def __init__(self, decoder: nn.Module, classes: int) -> None:
        super().__init__()
        trained: Any = decoder
        self.upscaling: nn.Module = deepcopy(trained.output_upscaling)
        self.weighing: nn.Module = deepcopy(trained.output_hypernetworks_mlps[0])
        self.classes = nn.Parameter(torch.zeros(classes, EMBEDDED))
        self.requires_grad_(requires_grad=True)

    def grow(self, added: int) -> None:
        """Append tokens that start at 0; the old classes' tokens stay bit for bit."""
        old = self.classes.detach()
        self.classes = nn.Parameter(torch.cat([old, old.new_zeros(added, EMBEDDED)]))


class BoxNetwork(DenseNetwork):
    """A whole image's tokens at the split and a prompt in; scores of background and asked class for each pixel out.

    A prompt is five numbers: first column and row, last column and row of the box, place of the class from 0. The
    background's score is 0, so that softmax over both is SAM's sigmoid.
    """

    head: BoxHead

    def __init__(
        self, network: LiteMedSam, shape: LoraShape, classes: Sequence[str], grid: TileGrid, seed: int = 0
    ) -> None:
        if grid.tiles != 1:
            raise LearningError(
                f"LiteMedSAM sees whole images, and tiles of {grid.tile} pixels were asked for; leave out --tile"
            )
        super().__init__(network, shape, classes, seed, lambda count: BoxHead(network.mask_decoder, count - 1))
        self.grid = grid
        self.prompts: Any = network.prompt_encoder
        self.decoder: Any = network.mask_decoder

    def forward(
        self, tokens: Float[Tensor, "image token width"], prompts: Float[Tensor, "image 5"]
    ) -> Float[Tensor, "image 2 side side"]:
        """Scores before softmax, one prompt for each image."""
        return self.decode(self.embedding(tokens), prompts)

    def embedding(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image embedded row column"]:
        """The adapted image embedding: the same for every box."""
        return finish_embedding(self.peft.base_model.model, tokens, self.split)

    def decode(
        self, embedding: Float[Tensor, "image embedded row column"], prompts: Float[Tensor, "image 5"]
    ) -> Float[Tensor, "image 2 side side"]:
        """Scores of embedded images, one prompt each."""
        with torch.no_grad():
            sparse, dense = self.prompts(points=None, boxes=prompts[:, None, :4], masks=None)
            places = self.prompts.get_dense_pe().expand(len(prompts), -1, -1, -1)
        asked = sparse + self.head.classes[prompts[:, 4].long()][:, None]
        own = torch.cat([self.decoder.iou_token.weight, self.decoder.mask_tokens.weight])
        queries = torch.cat([own.expand(len(prompts), -1, -1), asked], dim=1)
        answers, positions = self.decoder.transformer(embedding + dense, places, queries)
        fine = self.head.upscaling(positions.transpose(1, 2).reshape_as(embedding))
        # The first query is that of the predicted overlap, the second the one of a single mask.
        weights = self.head.weighing(answers[:, 1])
        scores = torch.einsum("bc,bchw->bhw", weights, fine)
        return torch.stack([torch.zeros_like(scores), scores], dim=1)

    def ask(
        self, tokens: Float[Tensor, "image token width"], boxes: Mapping[int, Box]
    ) -> Float[Tensor, "image klass side side"]:
        """Scores of background and all classes, by the boxes of the square given by class number, the same for every
        image; a class without a box is not looked for.
        """
        embedding = self.embedding(tokens)
        side = self.grid.image_size
        shape = (len(embedding), self.channels(len(self.classes)), side, side)
        scores = embedding.new_full(shape, UNASKED, dtype=torch.float32)
        scores[:, 0] = 0.0
        for number, box in boxes.items():
            prompts = prompt_of(box, number).to(embedding.device).expand(len(embedding), -1)
            scores[:, number] = self.decode(embedding, prompts)[:, 1].float()
        return scores

    def whole_boxes(self) -> dict[int, Box]:
        """All of the square, for every class."""
        side = self.grid.image_size
        return {number: whole_image(side, side) for number in range(1, len(self.classes) + 1)}

    def from_images(self, images: Float[Tensor, "image 3 side side"]) -> Float[Tensor, "image klass side side"]:
        """Scores of background and all classes under whole-image boxes, through the whole path from pixels to head."""
        return self.ask(self.prefix(images), self.whole_boxes())

    @torch.inference_mode()
    def whole_scores(self, whole: tuple[Tensor]) -> Float[Tensor, "klass side side"]:
        """Scores of an image's tokens under whole-image boxes, on the CPU."""
        device = next(self.parameters()).device
        with mixed_precision(device):
            scores = self.ask(whole[0].to(device), self.whole_boxes())
        return scores[0].float().cpu()

    @torch.no_grad()
    def prefix(self, images: Float[Tensor, "image 3 side side"]) -> Float[Tensor, "image token width"]:
        """Tokens at the split: what the cache holds of an image."""
        encoder: Any = self.peft.base_model.model
        return pass_blocks(encoder, encoder.layers[0](encoder.patch_embed(images)), range(self.split))

    def grow_head(self, classes: Sequence[str]) -> None:
        """Append classes that it does not have yet, in the order given; the old classes' weights stay bit for bit."""
        added = self._unknown(classes)
        if added:
            self.head.grow(len(added))
            self.classes = (*self.classes, *added)


def mask_network(
    network: Backbone, shape: LoraShape, classes: Sequence[str], grid: TileGrid, seed: int = 0
) -> DenseNetwork:
    """An untrained network of masks on this backbone: asked with boxes on LiteMedSAM, tile by tile on others."""
    if isinstance(network, LiteMedSam):
        return BoxNetwork(network, shape, classes, grid, seed)
    return SegmentingNetwork(network, shape, classes, grid, seed)
