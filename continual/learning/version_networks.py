"""The network of a version, of whichever kind: LoRA weights on a backbone, or a closed form on its frozen features.

The one place that tells the kinds apart; whoever evaluates or serves a version need not know which it is.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from continual.domain.adapters import CLOSED_FORM, kind_of
from continual.learning.adapter_files import RECORD, network_record, read_adapter
from continual.learning.backbone_weights import BackboneWeights
from continual.learning.closed_form_network import ClosedFormNetwork
from continual.learning.closed_form_versions import closed_form_record, read_closed_form
from continual.learning.network import TunedNetwork

VersionNetwork: TypeAlias = TunedNetwork | ClosedFormNetwork


def read_version(weights: BackboneWeights, files: Mapping[str, bytes], device: torch.device) -> VersionNetwork:
    """The network of a stored version, proved alive. Raises AdapterMismatchError as its kind's reader does."""
    if RECORD in files and kind_of(json.loads(files[RECORD])) == CLOSED_FORM:
        return read_closed_form(weights, files, device)
    return read_adapter(weights, files, device)


def version_record(network: VersionNetwork, weights: BackboneWeights, image_size: int) -> dict[str, Any]:
    """What loading needs to rebuild the network, for the record's "network": plain JSON."""
    if isinstance(network, ClosedFormNetwork):
        return closed_form_record(network, weights, image_size)
    return network_record(network, weights, image_size)


@torch.inference_mode()
def image_scores(
    network: VersionNetwork, images: Float[Tensor, "image 3 side side"]
) -> Float[Tensor, "image klass *position"]:
    """Class scores (before the temperature) of standardised images, through the whole path from pixels."""
    if isinstance(network, ClosedFormNetwork):
        return network.image_scores(images)
    device = next(network.parameters()).device
    return network.from_images(images.to(device))
