"""A light decoder: adapted patch tokens and the tile's own pixels in, a score per class and pixel out.

Tokens say what a place is, 14 pixels at a time; a shallow convolutional stem over the pixels says where its edges are,
since a vessel is one to five pixels wide. They meet on the way up, as in U-Net and UNETR (Ronneberger et al. 2015,
Hatamizadeh et al. 2022). Knows torch only.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from continual.learning.network import take_over

FULL, HALF, QUARTER = 16, 32, 48
"""Channels at full, half and quarter resolution."""
GROUPS = 8


class Decoder(nn.Module):
    """About 0.12 M weights. GroupNorm, never BatchNorm (Wu & He 2018): a site leaves no statistics behind in it."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.at_full = nn.Sequential(_convolution(3, FULL), _convolution(FULL, FULL))
        self.at_half = nn.Sequential(_convolution(FULL, HALF, stride=2), _convolution(HALF, HALF))
        self.at_quarter = _convolution(HALF, QUARTER, stride=2)
        self.lift = nn.Sequential(nn.Conv2d(width, QUARTER, 1, bias=False), nn.GroupNorm(GROUPS, QUARTER), nn.GELU())
        self.up_quarter = _convolution(2 * QUARTER, QUARTER)
        self.up_half = _convolution(QUARTER + HALF, HALF)
        self.up_full = _convolution(HALF + FULL, FULL)
        self.scores = nn.Conv2d(FULL, channels, 1)

    def forward(
        self, patches: Float[Tensor, "image width row column"], pixels: Float[Tensor, "image 3 side side"]
    ) -> Float[Tensor, "image klass side side"]:
        """Class scores of every pixel before softmax."""
        full = self.at_full(pixels)
        half = self.at_half(full)
        quarter = self.at_quarter(half)
        meaning = self.up_quarter(_joined(self.lift(patches), quarter))
        meaning = self.up_half(_joined(meaning, half))
        scores: Tensor = self.scores(self.up_full(_joined(meaning, full)))
        return scores

    def grow(self, added: int) -> None:
        """Append `added` score channels that start at zero; the old channels' weights stay bit for bit."""
        old = self.scores
        self.scores = nn.Conv2d(FULL, old.out_channels + added, 1, device=old.weight.device)
        take_over(self.scores, old)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.GroupNorm(GROUPS, outputs), nn.GELU()
    )


def _joined(coarse: Tensor, fine: Tensor) -> Tensor:
    """The coarse map, brought to the fine one's size, beside it."""
    return torch.cat([interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False), fine], dim=1)
