"""Images looked at through a part of their patches, drawn anew each time (PatchDropout, Liu et al. 2023).

Knows tokens and networks; knows nothing of why a part is enough.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from continual.learning.network import TunedNetwork


def thinned(
    network: TunedNetwork, tokens: Float[Tensor, "image token width"], share: float
) -> Float[Tensor, "image kept width"]:
    """Tokens of which the network is shown a random `share`; all of them where every place has an answer of its own."""
    if share >= 1.0 or not network.looks_at_parts:
        return tokens
    return drop_patches(tokens, network.vision.num_prefix_tokens, share)


def drop_patches(
    tokens: Float[Tensor, "image token width"], prefix: int, share: float
) -> Float[Tensor, "image kept width"]:
    """The first `prefix` tokens and a random `share` of the patch tokens, another draw for each image.

    PatchDropout (Liu et al. 2023): the cost of a step falls with the tokens, and the mean patch token stays unbiased.
    """
    patches = tokens.shape[1] - prefix
    kept = max(1, round(share * patches))
    if kept == patches:
        return tokens
    chosen = torch.rand(len(tokens), patches, device=tokens.device).argsort(dim=1)[:, :kept] + prefix
    index = chosen[:, :, None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :prefix], tokens.gather(1, index)], dim=1)
