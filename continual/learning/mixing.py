"""Mixtures: each image of a batch carries a share of another one's tokens, and is to answer for both.

Knows tensors and chance; knows nothing of the loop, or of what an answer is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAST_MIXING = 0.05
"""Below it torch's draws from Beta round to one half, which is the most that can be mixed and not the least."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """How a batch is mixed: `share` in [0.5, 1] of each image itself, the rest of the image at its place in `partners`.

    Mixed where the cached prefix ends, between two hidden layers (Verma et al. 2019, manifold mixup).
    """

    share: float
    partners: Int[Tensor, "image"]

    def of(self, values: Float[Tensor, "image *cached"]) -> Float[Tensor, "image *cached"]:
        """The whole batch's inputs, mixed."""
        return torch.lerp(values[self.partners], values, self.share)


def draw_mixture(images: int, concentration: float, device: torch.device) -> Mixture:
    """One share for the batch, from Beta(concentration, concentration) (Zhang et al. 2018), and a partner for each.

    Drawn by torch's own generator of the CPU, whose state a kept training state holds. The larger part is always the
    image's own: a batch mixed at .3 is the same batch, in another order, as one mixed at .7.
    """
    drawn = float(torch.distributions.Beta(concentration, concentration).sample())
    return Mixture(max(drawn, 1.0 - drawn), torch.randperm(images).to(device))
