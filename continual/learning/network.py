"""A frozen backbone with LoRA or a relative in its last blocks, and a head of its own.

It is split at the first tuned block. The part before the split never changes, so its activations (tokens) can be
cached; only the rest runs in training. Knows torch, timm's blocks and PEFT; knows nothing of sites or strategies,
and of networks for volumes only that they have stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, cast

import torch
from jaxtyping import Float
from peft import PeftConfig, get_peft_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from continual.domain.errors import LearningError
from continual.learning.backbone_weights import LITEMEDSAM
from continual.learning.backbones import frozen_features
from continual.learning.litemedsam import Backbone, LiteMedSam
from continual.learning.peft_methods import PEFT_METHODS, PROJECTIONS, Place, peft_method
from continual.learning.stages import adapted_layers, is_volumetric, stage_depth, stages_of

WHOLE_BACKBONE = "full"
"""In a method's place: no PEFT layers, every weight of the backbone itself learns. A reference; never registered."""
PIXELS = -1
"""In a split's place: what is cached are the images themselves, since even the patch embedding learns."""


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Size of the low-rank update (Hu et al. 2022): `rank`, scaling `alpha`, and how many last blocks carry one.

    `method` names an entry of `PEFT_METHODS`, to whom rank and alpha mean the nearest thing, or is `WHOLE_BACKBONE`.
    """

    rank: int = 8
    alpha: int = 16
    blocks: int = 6
    method: str = "lora"


def wrapped_part(network: nn.Module) -> nn.Module:
    """What PEFT wraps: a backbone as it is, of LiteMedSAM the image encoder."""
    return network.image_encoder if isinstance(network, LiteMedSam) else network


def first_tuned_block(network: nn.Module, shape: LoraShape) -> int:
    """Index of the first block (of volumes: stage) with LoRA, or `PIXELS` where the whole backbone learns.

    Raises LearningError when the backbone has fewer blocks than asked for, or is LiteMedSAM and would learn as a whole.
    """
    if shape.method == WHOLE_BACKBONE:
        if isinstance(network, LiteMedSam):
            raise LearningError(f"the whole of {LITEMEDSAM} is never tuned; leave out strategy {WHOLE_BACKBONE!r}")
        return PIXELS
    depth = len(stages_of(wrapped_part(network)))
    if not 1 <= shape.blocks <= depth:
        raise LearningError(f"LoRA in the last {shape.blocks} blocks of a backbone with {depth}; choose 1 to {depth}")
    return depth - shape.blocks


def check_image_size(network: Backbone, side: int) -> None:
    """Raise LearningError when a square of `side` pixels is not cut evenly by the backbone's patches.

    LiteMedSAM takes squares of one side alone.
    """
    if isinstance(network, LiteMedSam):
        if side != network.side_px:
            raise LearningError(
                f"images of {side} pixels, and {LITEMEDSAM} sees {network.side_px}; choose --image-size "
                f"{network.side_px}"
            )
        return
    patch = max(network.patch_embed.patch_size)
    if side < patch or side % patch:
        nearest = max(patch, round(side / patch) * patch)
        raise LearningError(f"images of {side} pixels do not divide into patches of {patch}; choose {nearest}")


def peft_configuration(network: nn.Module, shape: LoraShape) -> PeftConfig:
    """PEFT's configuration: attention and MLP projections of the last blocks, never `patch_embed.proj`.

    Of a network for volumes: linear and 3D convolution layers of its last stages. Raises LearningError when there is no
    such method, or it cannot have that rank on this backbone.
    """
    method, first = peft_method(shape.method), first_tuned_block(network, shape)
    if shape.rank < 1:
        raise LearningError(f"the rank is {shape.rank}; choose 1 or more")
    inner = wrapped_part(network)
    names = stages_of(inner)
    if is_volumetric(network):
        if not method.convolutional:
            raise LearningError(
                f"{method.title} does not adapt the convolutions of a network for volumes; choose one of "
                f"{', '.join(name for name, each in PEFT_METHODS.items() if each.convolutional)}"
            )
        layers = adapted_layers(network, first)
        return method.make(Place(first, len(names), (), shape.rank, shape.alpha, layers=layers))
    projections = [inner.get_submodule(f"{block}.{name}") for block in names[first:] for name in PROJECTIONS]
    inputs = tuple(sorted({int(layer.in_features) for layer in projections}))  # type: ignore[arg-type]  # all linear
    paths = names[first:] if isinstance(network, LiteMedSam) else ()
    return method.make(Place(first, len(names), inputs, shape.rank, shape.alpha, paths=paths))


def embed_pixels(
    network: VisionTransformer, images: Float[Tensor, "image 3 side side"]
) -> Float[Tensor, "image token width"]:
    """Tokens before the first block, with gradients where the embedding's weights have them."""
    tokens: Tensor = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images))))
    return tokens


@torch.no_grad()
def embed_prefix(
    network: Backbone, images: Float[Tensor, "image 3 side side"], blocks: int
) -> Float[Tensor, "image token width"]:
    """Tokens after the first `blocks` blocks of the frozen network; at `PIXELS` the images as they are."""
    if isinstance(network, LiteMedSam):
        return network.prefix(images, blocks)
    if blocks == PIXELS:
        return images
    tokens = embed_pixels(network, images)
    for block in network.blocks[:blocks]:
        tokens = block(tokens)
    return tokens


@torch.no_grad()
def finish_features(
    network: Backbone, tokens: Float[Tensor, "image token width"], blocks: int
) -> Float[Tensor, "image feature"]:
    """Frozen features of what `embed_prefix` gave after `blocks` blocks: class token beside mean patch token.

    Of LiteMedSAM, which has no class token, mean and spread of the image embedding.
    """
    if isinstance(network, LiteMedSam):
        return network.features(tokens, blocks)
    if blocks == PIXELS:
        tokens, blocks = embed_pixels(network, tokens), 0
    for block in network.blocks[blocks:]:
        tokens = block(tokens)
    features: Tensor = frozen_features(network, network.norm(tokens))
    return features


class TunedNetwork(nn.Module, ABC):
    """What networks of every task share: a frozen backbone, PEFT layers in its last blocks, a head.

    Only the method's own weights and the head have gradients.

    The given network gets PEFT layers in place, drawn from `seed` and before the head, which `make_head` makes for a
    number of score channels: build a fresh one for each adapter. `temperature`, above 0, divides the scores wherever
    probabilities are told; training and golden outputs never see it. With the method `WHOLE_BACKBONE` there are no such
    layers: the given network's own weights have gradients.
    """

    looks_at_parts = False
    """Whether a training step may leave out patches: the scores are then of the image, not of its places."""

    def __init__(
        self,
        network: nn.Module,
        shape: LoraShape,
        classes: Sequence[str],
        seed: int,
        make_head: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.shape = shape
        self.classes = tuple(classes)
        self.temperature = 1.0
        self.split = first_tuned_block(network, shape)
        # A stream of chance of its own: what ran before must not decide what an adapter starts from.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if shape.method == WHOLE_BACKBONE:
                self.backbone = network.requires_grad_(requires_grad=True)
            else:
                self.peft = get_peft_model(wrapped_part(network), peft_configuration(network, shape))
            self.head = make_head(self.channels(len(self.classes)))

    @property
    def inner(self) -> nn.Module:
        """The backbone with its LoRA layers."""
        whole = self.shape.method == WHOLE_BACKBONE
        inner: nn.Module = self.backbone if whole else self.peft.base_model.model
        return inner

    @property
    def vision(self) -> VisionTransformer:
        """The same where images are looked at: a vision transformer."""
        return cast("VisionTransformer", self.inner)

    def depths(self) -> dict[str, int]:
        """How deep under the scores every trainable parameter lies, by name: 0 in the head, 1 in the last block."""
        stages = stages_of(self.inner)
        return {name: stage_depth(name, stages) for name in self.trainable()}

    def embedded(self, inputs: Float[Tensor, "image *cached"]) -> Float[Tensor, "image token width"]:
        """What the cache holds as tokens: they are, unless the patch embedding learns and it holds pixels."""
        return embed_pixels(self.vision, inputs) if self.split == PIXELS and inputs.ndim == 4 else inputs

    def tuned(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        """Normalised tokens after the tuned blocks, from what the cache holds."""
        tokens = self.embedded(tokens)
        for block in self.vision.blocks[max(self.split, 0) :]:
            tokens = block(tokens)
        normalised: Tensor = self.vision.norm(tokens)
        return normalised

    @abstractmethod
    def channels(self, classes: int) -> int:
        """How many scores are given where `classes` classes are told apart."""

    @abstractmethod
    def criterion(self, label_smoothing: float) -> nn.Module:
        """The loss of class scores against targets that training makes small."""

    @abstractmethod
    def from_images(self, images: Float[Tensor, "image 3 side side"]) -> Float[Tensor, "image klass *position"]:
        """Class scores of standardised images, through the whole path from pixels to head."""

    @abstractmethod
    def calibrated(self, scores: Float[Tensor, "image klass *position"]) -> Float[Tensor, "image klass *position"]:
        """Probabilities of class scores, as they are told to whoever asks."""

    @abstractmethod
    def grow_head(self, classes: Sequence[str]) -> None:
        """Append classes that it does not have yet, in the order given; the old classes' weights stay bit for bit."""

    def train(self, mode: bool = True) -> Self:
        """Only the head ever enters train mode: the backbone's dropout and statistics stay as released."""
        self.training = mode
        for name, part in self.named_children():
            wanted = mode and name == "head"
            # Frozen parts are left alone: TinyViT makes a buffer anew whenever its mode is set.
            if part.training != wanted:
                part.train(wanted)
        return self

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that an update may change, by name."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def trainable_share(self) -> float:
        """Trainable parameters over the frozen backbone's parameters, in [0, 1]."""
        frozen = sum(weight.numel() for weight in self.parameters() if not weight.requires_grad)
        return sum(weight.numel() for weight in self.trainable().values()) / frozen

    def _unknown(self, classes: Sequence[str]) -> list[str]:
        return [name for name in dict.fromkeys(classes) if name not in self.classes]


@torch.no_grad()
def take_over(grown: nn.Module, old: nn.Module) -> None:
    """Give a layer of more outputs the weights of a smaller one, bit for bit; the added outputs' are zero."""
    before = dict(old.named_parameters())
    for name, weight in grown.named_parameters():
        weight.zero_()
        weight[: len(before[name])] = before[name]


class ClassifyingNetwork(TunedNetwork, ABC):
    """What networks of images and of volumes share where classes are told apart: a linear head that starts at zero."""

    head: nn.Linear

    def __init__(self, network: nn.Module, shape: LoraShape, classes: Sequence[str], width: int, seed: int = 0) -> None:
        super().__init__(network, shape, classes, seed, lambda count: nn.Linear(width, count))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def channels(self, classes: int) -> int:
        """One score for every class."""
        return classes

    def criterion(self, label_smoothing: float) -> nn.Module:
        """Cross-entropy with smoothed labels."""
        return nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def calibrated(self, scores: Float[Tensor, "image klass"]) -> Float[Tensor, "image klass"]:
        """Probabilities of class scores at the network's temperature (Guo et al. 2017); classes keep their order."""
        return (scores / self.temperature).softmax(dim=1)

    def grow_head(self, classes: Sequence[str]) -> None:
        """Append classes that it does not have yet, in the order given; the old classes' rows stay bit for bit.

        New rows start at zero, as all did: a new class then scores 0, and as trained scores lie around 0, some old
        class stays above it until it is learnt.
        """
        added = self._unknown(classes)
        if added:
            old = self.head
            self.head = nn.Linear(old.in_features, len(self.classes) + len(added), device=old.weight.device)
            take_over(self.head, old)
            self.classes = (*self.classes, *added)


class AdaptedNetwork(ClassifyingNetwork):
    """Classification: tokens at the split in, class scores (logits) out, from a head that starts at zero.

    Whoever asks it shows an image in the views 0 to `test_time_views` - 1, `upright` or turned, and takes the mean of
    the scores (test-time augmentation). Training knows nothing of it.
    """

    looks_at_parts = True
    test_time_views = 1
    upright = False

    def __init__(self, network: VisionTransformer, shape: LoraShape, classes: Sequence[str], seed: int = 0) -> None:
        super().__init__(network, shape, classes, 2 * network.embed_dim, seed)

    def features(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image feature"]:
        """Adapted features: class token beside mean patch token after the tuned blocks."""
        return frozen_features(self.vision, self.tuned(tokens))

    def forward(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image klass"]:
        """Class scores before softmax."""
        scores: Tensor = self.head(self.features(tokens))
        return scores

    def from_images(self, images: Float[Tensor, "image 3 side side"]) -> Float[Tensor, "image klass"]:
        """Class scores of standardised images, through the whole path from pixels to head."""
        scores: Tensor = self(embed_prefix(self.vision, images, self.split))
        return scores
