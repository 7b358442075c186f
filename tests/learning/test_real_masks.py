"""Real vessels on the real backbone, thinned until it takes seconds: crops of eight photographs, thirty steps."""

import csv
import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from continual.domain.samples import IGNORED, Sample, Split
from continual.learning import (
    ActivationKey,
    LoraShape,
    SegmentingNetwork,
    TileCache,
    TileGrid,
    TrainingOptions,
    UpdateRequest,
    build_network,
    learn,
    site_outcomes,
)

SIDE_PX, TILE_PX = 168, 84
SHAPE = LoraShape(rank=4, alpha=8, blocks=2)


@pytest.fixture(scope="module")
def crops(real_data):
    """The middles of eight photographs of one site at full resolution, and their masks: six to learn, two held out."""
    folder = real_data("retinal_vessels")
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["site"] == "drive"][:8]
    middle = slice(256 - SIDE_PX // 2, 256 + SIDE_PX // 2)
    images, masks, samples = {}, {}, []
    for number, row in enumerate(rows):
        pixels = np.array(Image.open(folder / row["path"]).convert("RGB"))[middle, middle]
        vessels, seen = (np.array(Image.open(folder / row[name]))[middle, middle] for name in ("mask", "field_of_view"))
        mask = np.where(seen, vessels > 0, IGNORED).astype(np.uint8)
        digest, address = (hashlib.sha256(values.tobytes()).hexdigest() for values in (pixels, mask))
        images[digest], masks[address] = pixels, mask
        split = Split.TRAIN if number < 6 else Split.TEST
        samples.append(Sample(digest, "drive", f"s{number}", None, split, digest, 1, mask=address))
    return images, masks, samples


def test_thirty_steps_find_real_vessels_far_above_any_constant_answer(crops, real_weights, tmp_path):
    images, masks, samples = crops
    key = ActivationKey(real_weights.digest, 10, SIDE_PX)
    device, network = torch.device("cpu"), build_network(real_weights)
    cache = TileCache(tmp_path, key, TILE_PX, network, device, lambda sample: masks[str(sample.mask)])
    cache.fill(samples, 1, lambda sample: images[sample.digest], lambda _n: None)
    network = SegmentingNetwork(build_network(real_weights), SHAPE, ("vessel",), TileGrid(SIDE_PX, TILE_PX))
    options = TrainingOptions(steps=30, batch_size=4, head_rate=5e-3, views=1, seed=1)
    learn(network, cache, UpdateRequest("naive", samples[:6]), options, lambda _n: None)
    outcomes, score = site_outcomes(network, cache, "drive", samples[6:], lambda _n: None)
    assert score.value > outcomes.chance + 0.2
