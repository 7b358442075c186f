"""The loss of dense scores against masks: cross-entropy and soft Dice side by side; knows torch only."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from continual.domain.samples import IGNORED

SMOOTHNESS = 1.0
"""Pixels added to both sides of the Dice quotient, so that a tile without a class asks for none of it."""

Scores = Float[Tensor, "image klass *position"]
Masks = Int[Tensor, "image *position"]


class _Sums(NamedTuple):
    """Per class but the background, what network and mask agree on and what both hold; pixels that count; images."""

    agreed: Float[Tensor, "klass"]
    total: Float[Tensor, "klass"]
    inside: Int[Tensor, ""]
    images: int

    def with_more(self, part: "_Sums") -> "_Sums":
        return _Sums(
            self.agreed + part.agreed, self.total + part.total, self.inside + part.inside, self.images + part.images
        )


class DiceCrossEntropy(nn.Module):
    """Mean cross-entropy of the pixels plus 1 - soft Dice, mean over the classes (Milletari et al. 2016).

    Cross-entropy alone neglects a class of few pixels, Dice alone gives no gradient where it errs most (Isensee et al.
    2021 use the sum). Dice is taken over the whole batch: a tile may hold five pixels of a class. Pixels that the mask
    ignores are left out of both.

    A batch that is learnt in parts is shown to `expect` part by part first: afterwards the losses of its parts, each
    weighed by its share of the images, have together the gradient of the whole batch's loss.
    """

    def __init__(self) -> None:
        super().__init__()
        self._whole: _Sums | None = None

    def forget(self) -> None:
        """What comes next is a whole batch, or its parts are about to be shown."""
        self._whole = None

    def expect(self, scores: Scores, mask: Masks) -> None:
        """Count a part in; gradients of its scores are not asked for."""
        part = _sums(scores.detach(), mask)
        self._whole = part if self._whole is None else self._whole.with_more(part)

    def forward(self, scores: Scores, mask: Masks) -> Float[Tensor, ""]:
        """The loss, 0 at best; 0 with no gradient where every pixel is ignored; of a part only the gradient counts."""
        part = _sums(scores, mask)
        summed = cross_entropy(scores, mask, ignore_index=IGNORED, reduction="sum")
        answer: Tensor
        if self._whole is None:
            dice = (2 * part.agreed + SMOOTHNESS) / (part.total + SMOOTHNESS)
            answer = summed / part.inside.clamp(min=1) + (1 - dice).mean()
            return answer
        whole = self._whole
        # The quotient's differential at the whole batch: linear in a part's sums, so that parts add up.
        above, below = 2 * whole.agreed + SMOOTHNESS, whole.total + SMOOTHNESS
        dice = (2 * part.agreed * below - above * part.total) / below.square()
        answer = (summed / whole.inside.clamp(min=1) - dice.mean()) * (whole.images / part.images)
        return answer


def _sums(scores: Scores, mask: Masks) -> _Sums:
    inside = mask != IGNORED
    wanted = one_hot(torch.where(inside, mask, 0), scores.shape[1]).movedim(-1, 1) * inside[:, None]
    found = scores.softmax(dim=1) * inside[:, None]
    agreed, total = (part.sum(dim=(0, *range(2, part.ndim)))[1:] for part in (found * wanted, found + wanted))
    return _Sums(agreed, total, inside.sum(), len(mask))
