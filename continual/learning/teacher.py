"""The champion as a teacher: what it says of every draw of an update, asked once before the first step.

The network that an update starts from IS the champion, so asking it then is exact and no second copy of the backbone is
held. Of a whole image it says one thing, whichever view is drawn: the mean over the views (`docs/decisions/0037`).
Knows networks and cached activations; knows nothing of what the answers are used for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from continual.learning.devices import is_out_of_memory, mixed_precision, no_room, release_memory
from continual.learning.network import TunedNetwork
from continual.learning.patch_dropout import thinned
from continual.learning.segmentation.tile_cache import Cache, TileCache
from continual.learning.streams import AnyDraw, Draw, asked_by, question

TEACHING_BATCH = 32
BOX_BATCH = 4
"""Whole images of 4,096 tokens, where a tile has 144."""


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """Class scores (logits) of the champion per draw, for the classes it knew: the first ones of the network.

    Draws are numbered: those of the new experience first, `fresh` in all, then the replayed ones. `rows` says which row
    of `scores` belongs to a draw: draws of one whole image share a row, draws of tiles where they are of one view.
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


def _said(network: TunedNetwork, batch: Sequence[Tensor], share: float) -> Tensor | None:
    """The network's scores of a share of the patches; None where there is no memory for them."""
    try:
        with mixed_precision(batch[0].device):
            scores: Tensor = network(thinned(network, network.embedded(batch[0]), share), *batch[1:])
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return scores


def ask_teacher(
    network: TunedNetwork,
    cache: Cache,
    draws: tuple[Sequence[AnyDraw], Sequence[AnyDraw]],
    classes: int,
    share: float = 1.0,
) -> Teacher:
    """Ask the network, as it stands and in eval mode, once for each distinct image and view of the draws.

    `draws` are the fresh and the replayed ones. What it says of a whole image is the mean over the views drawn of it,
    through a random `share` of the patches where there are several views, as a training step looks at them. Only the
    scores of its first `classes` classes are kept: the champion never heard of the others. Dense scores are kept in 16
    bits. Questions that do not fit into the device's memory at once are asked in halves; LearningError where one alone
    does not.
    """
    network.eval()
    fresh, replayed = draws
    asked = [asked_by(draw) for draw in (*fresh, *replayed)]
    distinct = dict(zip(asked, (*fresh, *replayed), strict=True))
    several = len({draw.view for draw in distinct.values()}) > 1
    scores = _answers(network, cache, list(distinct.values()), classes, share if several else 1.0)
    images = [_image_of(draw) for draw in distinct.values()]
    rows_of = {key: row for row, key in enumerate(dict.fromkeys(images))}
    if len(rows_of) < len(images):
        scores = _means(scores, torch.tensor([rows_of[image] for image in images], device=scores.device))
    rows = torch.tensor([rows_of[_image_of(draw)] for draw in (*fresh, *replayed)], device=scores.device)
    return Teacher(scores, rows, len(fresh))


def _image_of(draw: AnyDraw) -> tuple[str, ...]:
    """Of what the champion says one thing: a whole image in any view, a tile or a box in one."""
    return (draw.digest,) if isinstance(draw, Draw) else asked_by(draw)


def _means(scores: Float[Tensor, "question klass"], rows: Int[Tensor, "question"]) -> Float[Tensor, "row klass"]:
    """The mean of the scores that belong to each row."""
    total = scores.new_zeros(int(rows.max()) + 1, scores.shape[1]).index_add_(0, rows, scores)
    return total / rows.bincount()[:, None]


@torch.no_grad()
def _answers(
    network: TunedNetwork, cache: Cache, distinct: list[AnyDraw], classes: int, share: float
) -> Float[Tensor, "question klass *position"]:
    """The network's scores of each draw, in their order."""
    device, parts = next(network.parameters()).device, []
    size = BOX_BATCH if isinstance(cache, TileCache) and cache.prompted else TEACHING_BATCH
    while distinct:
        batch = [question(cache, draw) for draw in distinct[:size]]
        said = _said(network, [torch.stack(part).to(device) for part in zip(*batch, strict=True)], share)
        if said is None:
            release_memory(device)
            if len(batch) == 1:
                raise no_room(batch[0][0].shape[0], device, "even where the champion is asked about it alone")
            size = len(batch) // 2
            continue
        del distinct[: len(batch)]
        said = said[:, : network.channels(classes)].float()
        parts.append(said if said.ndim == 2 else said.half())
    return torch.cat(parts)
