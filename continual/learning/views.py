"""Views: the few fixed variants of an image whose activations are cached; view 0 is the image itself.

Knows pixels and tensors; knows nothing of networks. A view is a pure function of (image, view number), so it can be
cached for ever and drawn again on any machine. Also how values come back to a size of their own.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

# ImageNet statistics: what DINOv2 and timm's vision transformers were trained with.
CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)
GAINS = (1.0, 0.9, 1.1, 1.0, 0.85, 1.15, 0.95, 1.05)
CASTS = ((1.0, 1.0, 1.0), (1.05, 1.0, 0.95), (0.95, 1.0, 1.05), (1.0, 1.04, 0.96))


def standardise(pixels: UInt8[np.ndarray, "height width 3"], image_size: int) -> Float[Tensor, "3 side side"]:
    """Resized to a square of `image_size` pixels and normalised by ImageNet's channel statistics."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float()[None] / 255.0
    if image.shape[-2:] != (image_size, image_size):
        image = interpolate(image, size=(image_size, image_size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = torch.tensor(CHANNEL_MEAN)[:, None, None], torch.tensor(CHANNEL_STD)[:, None, None]
    return (image[0] - mean) / std


def view_of(
    pixels: UInt8[np.ndarray, "height width 3"], view: int, *, upright: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """View number `view`: one of the eight symmetries of the square with a mild gain and colour cast; 0 is identity.

    `upright`, gain and cast alone: where left and right or up and down mean something, a turned image is another one.
    """
    if view == 0:
        return pixels
    turned = pixels if upright else turned_as(pixels, view)
    factor = GAINS[view % len(GAINS)] * np.asarray(CASTS[view % len(CASTS)], dtype=np.float32)
    varied: UInt8[np.ndarray, "height width 3"] = np.clip(turned * factor, 0, 255).astype(np.uint8)
    return varied


def turned_as(plane: UInt8[np.ndarray, "height width *channel"], view: int) -> UInt8[np.ndarray, "..."]:
    """Any plane, a mask say, turned as view number `view` turns the image; values stay, 0 is identity."""
    turned = np.rot90(plane, k=view % 4)
    # Of the first four the odd ones are mirrored, of the next four the even ones: all eight differ.
    if (view % 2 == 1) == ((view // 4) % 2 == 0):
        turned = turned[:, ::-1]
    return turned


def at_shape(values: Float[Tensor, "channel *position"], shape: Sequence[int]) -> Float[Tensor, "channel *own"]:
    """Values of an image or a volume brought to another shape over the same extent, linear between positions."""
    if tuple(values.shape[1:]) == tuple(shape):
        return values
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    brought: Tensor = interpolate(values[None], size=tuple(shape), mode=mode, align_corners=False)[0]
    return brought
