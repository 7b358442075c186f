"""The loss of dense scores against masks: cross-entropy and soft Dice side by side; knows torch only."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from continual.domain.samples import IGNORED

SMOOTHNESS = 1.0
"""Pixels added to both sides of the Dice quotient, so that a tile without a class asks for none of it."""


class DiceCrossEntropy(nn.Module):
    """Mean cross-entropy of the pixels plus 1 - soft Dice, mean over the classes (Milletari et al. 2016).

    Cross-entropy alone neglects a class of few pixels, Dice alone gives no gradient where it errs most (Isensee et al.
    2021 use the sum). Dice is taken over the whole batch: a tile may hold five pixels of a class. Pixels that the mask
    ignores are left out of both.
    """

    def forward(
        self, scores: Float[Tensor, "image klass height width"], mask: Int[Tensor, "image height width"]
    ) -> Float[Tensor, ""]:
        """The loss, 0 at best; 0 with no gradient where every pixel is ignored."""
        inside = mask != IGNORED
        summed = cross_entropy(scores, mask, ignore_index=IGNORED, reduction="sum")
        channels = scores.shape[1]
        wanted = one_hot(torch.where(inside, mask, 0), channels).permute(0, 3, 1, 2) * inside[:, None]
        found = scores.softmax(dim=1) * inside[:, None]
        agreed, total = ((part.sum(dim=(0, 2, 3))[1:]) for part in (found * wanted, found + wanted))
        dice = (2 * agreed + SMOOTHNESS) / (total + SMOOTHNESS)
        answer: Tensor = summed / inside.sum().clamp(min=1) + (1 - dice).mean()
        return answer
