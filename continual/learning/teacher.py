"""The champion as a teacher: what it says of every draw of an update, asked once before the first step.

The network that an update starts from IS the champion, so asking it then is exact and no second copy of the backbone is
held. Knows networks and cached activations; knows nothing of what the answers are used for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from continual.learning.devices import is_out_of_memory, mixed_precision, no_room, release_memory
from continual.learning.network import TunedNetwork
from continual.learning.segmentation.tile_cache import Cache, TileCache
from continual.learning.streams import AnyDraw, asked_by, question

TEACHING_BATCH = 32
BOX_BATCH = 4
"""Whole images of 4,096 tokens, where a tile has 144."""


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """Class scores (logits) of the champion per draw, for the classes it knew: the first ones of the network.

    Draws are numbered: those of the new experience first, `fresh` in all, then the replayed ones. `rows` says which row
    of `scores` belongs to a draw; draws of one image and view share a row.
    """

    scores: Float[Tensor, "row klass *position"]
    rows: Int[Tensor, "draw"]
    fresh: int

    @property
    def classes(self) -> int:
        """How many scores the champion gave: one for each class that it told apart, and for a background."""
        return self.scores.shape[1]

    def said(self, draws: Int[Tensor, "image"]) -> Float[Tensor, "image klass *position"]:
        """What the champion said of the draws with these numbers."""
        return self.scores[self.rows[draws]].float()

    def replayed(self, draws: Int[Tensor, "image"]) -> Bool[Tensor, "image"]:
        """Which of the draws with these numbers come from the memory."""
        return draws >= self.fresh


def _said(network: TunedNetwork, batch: Sequence[Tensor]) -> Tensor | None:
    """The network's scores; None where there is no memory for them."""
    try:
        with mixed_precision(batch[0].device):
            scores: Tensor = network(*batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return scores


@torch.no_grad()
def ask_teacher(
    network: TunedNetwork, cache: Cache, fresh: Sequence[AnyDraw], replayed: Sequence[AnyDraw], classes: int
) -> Teacher:
    """Ask the network, as it stands, once for each distinct image and view; it looks at all patches, in eval mode.

    Only the scores of its first `classes` classes are kept: the champion never heard of the others. Dense scores are
    kept in 16 bits. Questions that do not fit into the device's memory at once are asked in halves; LearningError where
    one alone does not.
    """
    network.eval()
    device = next(network.parameters()).device
    draws = (*fresh, *replayed)
    asked = [asked_by(draw) for draw in draws]
    distinct, parts = list(dict(zip(asked, draws, strict=True)).values()), []
    row_of = {key: row for row, key in enumerate(dict.fromkeys(asked))}
    size = BOX_BATCH if isinstance(cache, TileCache) and cache.prompted else TEACHING_BATCH
    while distinct:
        batch = [question(cache, draw) for draw in distinct[:size]]
        said = _said(network, [torch.stack(part).to(device) for part in zip(*batch, strict=True)])
        if said is None:
            release_memory(device)
            if len(batch) == 1:
                raise no_room(batch[0][0].shape[0], device, "even where the champion is asked about it alone")
            size = len(batch) // 2
            continue
        del distinct[: len(batch)]
        said = said[:, : network.channels(classes)].float()
        parts.append(said if said.ndim == 2 else said.half())
    rows = torch.tensor([row_of[key] for key in asked], device=device)
    return Teacher(torch.cat(parts), rows, len(fresh))
