"""Ways to adapt a frozen projection: LoRA and its relatives, one entry in `PEFT_METHODS` each.

Every one leaves the frozen weights bit for bit and starts as the identity; a conformance suite runs over the dict.
Knows PEFT's configurations; knows nothing of networks, training or files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from peft import IA3Config, LoraConfig, OFTConfig, PeftConfig
from torch import nn

from continual.domain.errors import LearningError
from continual.learning.lora_linear import InPlaceLoraLinear

PROJECTIONS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""Linear layers of a block that are adapted; never the patch embedding's `proj`."""
RSLORA_ALPHA = 16
"""rsLoRA's alpha at every rank, as its scaling already follows the rank (Kalajdzievski 2023)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a method acts and how large it is: in the blocks `first` to `depth` - 1, whose projections take `inputs`.

    `inputs` are the distinct numbers of input features, smallest first. `rank` is at least 1. `paths` are the paths of
    those blocks where they are not `blocks.` and their number. Where `layers` are named the method acts in these and in
    no others: a network for volumes has no blocks of one kind.
    """

    first: int
    depth: int
    inputs: tuple[int, ...]
    rank: int
    alpha: int
    paths: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def modules(self, names: Sequence[str] = PROJECTIONS) -> str:
        """Regular expression of the named layers in those blocks."""
        if self.layers:
            return "|".join(re.escape(name) for name in self.layers)
        layers = "|".join(re.escape(name) for name in names)
        if self.paths:
            return rf"({'|'.join(re.escape(path) for path in self.paths)})\.({layers})"
        blocks = "|".join(str(number) for number in range(self.first, self.depth))
        return rf"blocks\.({blocks})\.({layers})"


@dataclass(frozen=True, slots=True)
class PeftMethod:
    """One method by the name that papers give it; `ranked` says whether its size follows the rank at all.

    `convolutional` says whether it also adapts 3D convolutions, as networks for volumes have them.
    """

    title: str
    make: Callable[[Place], PeftConfig]
    ranked: bool = True
    convolutional: bool = False


def _low_rank(place: Place, **options: Any) -> PeftConfig:
    config = LoraConfig(r=place.rank, lora_alpha=place.alpha, target_modules=place.modules(), **options)
    # PEFT's place for layers of one's own. It calls it experimental: a test says whether they are in use.
    config._register_custom_module({nn.Linear: InPlaceLoraLinear})
    return config


def _lora(place: Place) -> PeftConfig:
    return _low_rank(place)


def _dora(place: Place) -> PeftConfig:
    return LoraConfig(r=place.rank, lora_alpha=place.alpha, target_modules=place.modules(), use_dora=True)


def _rslora(place: Place) -> PeftConfig:
    return _low_rank(place, use_rslora=True)


def _oft(place: Place) -> PeftConfig:
    shared = gcd(*place.inputs)
    if place.rank < 2 or shared % place.rank:
        raise LearningError(
            f"OFT turns blocks of {place.rank} inputs; choose a rank above 1 that divides {shared}, "
            f"as this backbone's projections take {', '.join(str(size) for size in place.inputs)} inputs"
        )
    # The exact Cayley transform: PEFT's usual series of five terms is a rotation only while the angles are small.
    return OFTConfig(
        oft_block_size=place.rank, target_modules=place.modules(), use_cayley_neumann=False, init_weights=True
    )


def _ia3(place: Place) -> PeftConfig:
    return IA3Config(
        target_modules=place.modules(("attn.qkv", "mlp.fc2")), feedforward_modules=place.modules(("mlp.fc2",))
    )


def _orthogonal(place: Place) -> PeftConfig:
    if place.rank >= place.inputs[0]:
        raise LearningError(
            f"rank {place.rank} leaves no direction of a projection with {place.inputs[0]} inputs untouched; "
            f"choose 1 to {place.inputs[0] - 1}"
        )
    return LoraConfig(r=place.rank, lora_alpha=place.alpha, target_modules=place.modules(), init_lora_weights="mica")


PEFT_METHODS: Mapping[str, PeftMethod] = {
    # Low-rank update (Hu et al. 2022).
    "lora": PeftMethod("LoRA", _lora, convolutional=True),
    # The same, with each output's length learnt apart from its direction (Liu et al. 2024).
    "dora": PeftMethod("DoRA", _dora, convolutional=True),
    # The same, scaled by the root of the rank (Kalajdzievski 2023).
    "rslora": PeftMethod("rsLoRA", _rslora, convolutional=True),
    # Inputs turned by block-diagonal rotations, rank x rank each (Qiu et al. 2023).
    "oft": PeftMethod("OFT", _oft),
    # Queries, keys, values and the MLP's hidden features, each times a learnt factor (Liu et al. 2022).
    "ia3": PeftMethod("IA3", _ia3, ranked=False),
    # Updates whose outputs are orthogonal to all but a projection's least singular directions (PEFT's MiCA).
    "orthogonal": PeftMethod("orthogonal subspace", _orthogonal),
}
"""By the name that `--peft-method` and a version's record use."""


def peft_method(name: str) -> PeftMethod:
    """The method of that name. Raises LearningError when there is none."""
    if name not in PEFT_METHODS:
        raise LearningError(f"no PEFT method {name!r}; choose one of {', '.join(PEFT_METHODS)}")
    return PEFT_METHODS[name]


def usual_alpha(name: str, rank: int) -> int:
    """Alpha that leaves a method's step size alone when the rank changes: 2 x rank, or rsLoRA's 16 at every rank."""
    return RSLORA_ALPHA if name == "rslora" else 2 * rank


def described(name: str, rank: int) -> str:
    """Method and rank in words, for example `DoRA rank 8`."""
    method = peft_method(name)
    return f"{method.title} rank {rank}" if method.ranked else method.title
