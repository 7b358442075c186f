"""A small vision transformer trained from nothing on one site's images, then frozen: the demo's base model.

A hospital uses a published foundation model instead. Knows torch and timm; knows nothing of sites or files.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from continual.learning.backbone_weights import METADATA_KEY
from continual.learning.backbones import frozen_features
from continual.learning.views import standardise

ARCHITECTURE: Mapping[str, int] = {"img_size": 64, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 2}
BATCH_SIZE = 48
PEAK_RATE = 3e-3
# A few hundred images teach a transformer nothing about place unless they are moved about.
MOST_SHIFT_PX = 8

Images = Float[Tensor, "image 3 side side"]


def pretrain_backbone(
    images: Sequence[UInt8[np.ndarray, "height width 3"]],
    targets: Sequence[int],
    steps: int,
    seed: int,
    progress: Callable[[int], None],
) -> bytes:
    """Weights of a vision transformer as a safetensors file whose metadata names its architecture.

    `targets` number the classes from 0. Trained for `steps` steps of 48 images by AdamW, each image turned, mirrored
    and moved anew; the classifying head is thrown away.
    """
    torch.manual_seed(seed)
    network = VisionTransformer(**ARCHITECTURE, num_classes=0, dynamic_img_size=True)
    head = nn.Linear(2 * network.embed_dim, max(targets) + 1)
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.05)
    # A rise of one step at least: torch's schedule divides by the length of the rise.
    rise = max(0.1, 2 / (steps + 1))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps + 1, pct_start=rise)
    stack = torch.stack([standardise(image, ARCHITECTURE["img_size"]) for image in images])
    truth = torch.tensor(targets)
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH_SIZE,))
        tokens = network.forward_features(moved_about(stack[chosen], MOST_SHIFT_PX))
        loss = nn.functional.cross_entropy(head(frozen_features(network, tokens)), truth[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        progress(1)
    state = {name: weight.detach().contiguous() for name, weight in network.state_dict().items()}
    described = json.dumps({"name": "small_vision_transformer", "arguments": dict(ARCHITECTURE)})
    weights_file: bytes = save(state, metadata={METADATA_KEY: described})
    return weights_file


def moved_about(images: Images, most_px: int) -> Images:
    """Each image in a random one of the square's eight symmetries, shifted by up to `most_px` pixels.

    What leaves at one edge comes in at the opposite one. Draws from torch's global generator.
    """
    count, _, side, _ = images.shape
    symmetric = images
    for mirror in range(3):
        mirrored = symmetric.transpose(2, 3) if mirror == 2 else symmetric.flip(2 + mirror)
        symmetric = torch.where(torch.rand(count, 1, 1, 1) < 0.5, mirrored, symmetric)
    places = torch.arange(side)
    rows, columns = ((places + torch.randint(-most_px, most_px + 1, (count, 1))) % side for _ in range(2))
    at = torch.arange(count)[:, None, None]
    # Indexing around the channels puts them last.
    return symmetric[at, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
