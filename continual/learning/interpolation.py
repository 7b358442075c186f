"""The straight line between two sets of weights of one network; knows nothing of how a point on it is judged."""

import torch
from torch import Tensor

from continual.learning.network import TunedNetwork


class WeightLine:
    """From a champion's trainable weights (share 0) to those just learnt (share 1) (Wortsman et al. 2022, WiSE-FT).

    Made before learning, from the network as it stands: those are the champion's weights.
    """

    def __init__(self, network: TunedNetwork) -> None:
        self._network = network
        self._champion = _copy(network)
        self._learnt = self._champion

    def end_here(self) -> None:
        """Call after learning: the network's weights of now are the other end."""
        self._learnt = _copy(self._network)

    @torch.no_grad()
    def go(self, share: float) -> None:
        """Put the network's weights at `share` of the way, in [0, 1]; 0 and 1 are exact."""
        for name, weight in self._network.trainable().items():
            weight.copy_(torch.lerp(self._champion[name], self._learnt[name], share))


def _copy(network: TunedNetwork) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.trainable().items()}
