"""PEFT's LoRA on a linear layer with the low-rank product added in place: the same numbers with fewer passes.

A layer's small product (rank 8) costs next to nothing to compute, but PEFT writes it out, scales it and adds it, each a
pass over the whole output, and each again for the gradient. Where that is all that happens, one call does it. Knows
PEFT's layer and torch; knows nothing of networks.
"""

from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.lora import Linear
from torch import Tensor, nn


class InPlaceLoraLinear(Linear):  # type: ignore[misc]  # PEFT's layers are untyped
    """`x W + b + scaling x A B` in one matrix product after the base layer's (Hu et al. 2022, section 4.1).

    Bit for bit what PEFT's own layer gives in 32 bits on a CPU, gradients included, where the scaling is a power of
    two. Merged, switched off, under autocast, with dropout, a variant or several adapters, PEFT's own forward runs.
    """

    def forward(self, x: Float[Tensor, "*place width"], *args: Any, **kwargs: Any) -> Float[Tensor, "*place out"]:
        """The base layer's output and the low-rank update."""
        if args or kwargs or not self._plain(x):
            answer: Tensor = super().forward(x, *args, **kwargs)
            return answer
        (name,) = self.active_adapters
        # As one matrix: adding in place to a view of the output would copy the whole gradient on the way back.
        rows = x.reshape(-1, x.shape[-1])
        update = self.lora_A[name](rows)
        added: Tensor = self.base_layer(rows).addmm_(update, self.lora_B[name].weight.T, alpha=self.scaling[name])
        return added.view(*x.shape[:-1], -1)

    def _plain(self, x: Tensor) -> bool:
        """Whether nothing but the sum of two products is asked for."""
        if self.disable_adapters or self.merged or self.lora_variant or len(self.active_adapters) != 1:
            return False
        name, base = self.active_adapters[0], self.base_layer
        if name not in self.lora_A or not isinstance(self.lora_dropout[name], nn.Identity):
            return False
        small, large = self.lora_A[name], self.lora_B[name]
        return (
            large.bias is None
            and x.dtype == small.weight.dtype == base.weight.dtype
            and not torch.is_autocast_enabled(x.device.type)
        )
