"""A small vision transformer trained from nothing on one site's images, then frozen: the demo's base model.

A hospital uses a published foundation model instead. Knows torch and timm; knows nothing of sites or files.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from continual.learning.backbones import METADATA_KEY, frozen_features
from continual.learning.views import standardise, view_of

ARCHITECTURE: Mapping[str, int] = {"img_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 2}
PRETRAINING_VIEWS = 8
PEAK_RATE = 2e-3
# A few hundred images teach a transformer nothing about place unless they are moved about.
MOST_SHIFT_PX = 12


def pretrain_backbone(
    images: Sequence[UInt8[np.ndarray, "height width 3"]],
    targets: Sequence[int],
    steps: int,
    seed: int,
    progress: Callable[[int], None],
) -> bytes:
    """Weights of a vision transformer as a safetensors file whose metadata names its architecture.

    `targets` number the classes from 0. Trained for `steps` steps of 32 images by AdamW; the classifying head is
    thrown away.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = VisionTransformer(**ARCHITECTURE, num_classes=0, dynamic_img_size=True)
    head = nn.Linear(2 * network.embed_dim, max(targets) + 1)
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.05)
    # A rise of one step at least: torch's schedule divides by the length of the rise.
    rise = max(0.2, 2 / (steps + 1))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps + 1, pct_start=rise)
    stack = [
        torch.stack([standardise(view_of(image, view), ARCHITECTURE["img_size"]) for image in images])
        for view in range(PRETRAINING_VIEWS)
    ]
    truth = torch.tensor(targets)
    for _ in range(steps):
        chosen = torch.from_numpy(random.integers(len(images), size=32))
        shift = tuple(random.integers(-MOST_SHIFT_PX, MOST_SHIFT_PX + 1, size=2).tolist())
        batch = stack[int(random.integers(PRETRAINING_VIEWS))][chosen].roll(shift, dims=(2, 3))
        tokens = network.forward_features(batch)
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
