"""A tiny real backbone and a stream of two sites for the learning room and the conformance suite; real images.

Torch and its libraries load inside the fixtures: the other rooms' tests do not pay for them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

# Before anything loads torch: as many processes test side by side as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from continual.domain.samples import IGNORED, Sample, Split

if TYPE_CHECKING:
    from continual.learning import (
        ActivationCache,
        AdaptedNetwork,
        BackboneWeights,
        Importance,
        LoraShape,
        SegmentingNetwork,
        TileCache,
        TrainingOptions,
        TunedNetwork,
        UpdateRequest,
    )

Network = TypeVar("Network", bound="TunedNetwork")
SHARED = Path(__file__).parents[2] / "shared"
SIDE_PX = 64
CLASSES = ("dim", "bright")
LEVELS: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "north": {"dim": (90, 120, 120), "bright": (150, 120, 120)},
    "south": {"dim": (150, 120, 150), "bright": (90, 120, 90)},
}
"""Mean red, green and blue. North shows its classes in red alone; south turns red round and shows them in blue too.

Red minus twice blue tells the classes apart at both sites, so both can be learnt together. South alone is learnt just
as well from red, the wrong way round for north: who learns south alone forgets north.
"""
ARCHITECTURE = {"img_size": SIDE_PX, "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3}


# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("shared_machine", deadline=None)
settings.load_profile("shared_machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """In CI, where the real images lie beside the repository, a test that skips for want of them has failed."""
    report: pytest.TestReport = yield
    excuse = str(call.excinfo.value) if call.excinfo is not None else ""
    if report.skipped and excuse.startswith("no real") and os.environ.get("CONTINUAL_CI") and SHARED.is_dir():
        report.outcome, report.longrepr = "failed", f"{item.nodeid} was skipped in CI: {excuse}"
    return report


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """A folder of real images under CONTINUAL_TEST_DATA; skips where it is absent."""

    def folder(name: str) -> Path:
        root = Path(os.environ.get("CONTINUAL_TEST_DATA") or SHARED / "data")
        if not (root / name).is_dir():
            pytest.skip(f"no real images: the folder {name!r} is not under CONTINUAL_TEST_DATA")
        return root / name

    return folder


def draw_image(site: str, label: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """Coloured stripes of random phase and period, around the class's colour at the site."""
    rows = np.arange(SIDE_PX)[:, None]
    stripes = 18 * np.sin(2 * np.pi * rows / random.integers(8, 24) + random.uniform(0, 2 * np.pi))
    grey = stripes + random.normal(scale=8, size=(SIDE_PX, SIDE_PX))
    return np.clip(grey[:, :, None] + np.array(LEVELS[site][label]), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A backbone, two sites' samples with their pixels, a filled cache, and how an update trains."""

    weights: BackboneWeights
    shape: LoraShape
    cache: Any
    images: Mapping[str, NDArray[np.uint8]]
    samples: Mapping[tuple[str, Split], tuple[Sample, ...]]
    options: TrainingOptions

    def pixels(self, sample: Sample) -> NDArray[np.uint8]:
        return self.images[sample.digest]

    def fill(self) -> None:
        """Every sample's activations, before anything is learnt."""
        samples = [sample for group in self.samples.values() for sample in group]
        self.cache.fill(samples, self.options.views, self.pixels, lambda _n: None)

    def score(self, network: TunedNetwork, site: str) -> Any:
        """Scores on a site's test split."""
        from continual.learning import site_outcomes

        return site_outcomes(network, self.cache, site, self.samples[site, Split.TEST], lambda _n: None)[1]

    def learn(self, network: Network, request: UpdateRequest, **changed: Any) -> Network:
        """The network after the update; `changed` overrides training options."""
        from continual.learning import learn

        learn(network, self.cache, request, replace(self.options, **changed), lambda _n: None)
        return network

    def record(self, network: TunedNetwork) -> dict[str, Any]:
        """A version's record after one site, with the scores that were measured."""
        from continual.learning import network_record

        return {
            "adapter": "toy",
            "strategy": "naive",
            "parent": None,
            "trained_on": ["north"],
            "network": network_record(network, self.weights, SIDE_PX),
            "scores": {"north": asdict(self.score(network, "north"))},
            "gate": {"accepted": True},
        }


@dataclass(frozen=True, slots=True, eq=False)
class ToyBench(Bench):
    """Whole images in two classes."""

    def fresh(self, classes: Sequence[str] = CLASSES) -> AdaptedNetwork:
        """An untrained adapter on the backbone."""
        from continual.learning import AdaptedNetwork, build_network

        return AdaptedNetwork(build_network(self.weights), self.shape, classes)

    def empty_cache(self, folder: Path) -> ActivationCache:
        """A cache of its own, with nothing in it."""
        import torch

        from continual.learning import ActivationCache, build_network

        return ActivationCache(folder, self.cache.key, build_network(self.weights), torch.device("cpu"))


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """A stored version that learnt north: its files, its replay memory and its importance."""

    bench: Bench
    files: Mapping[str, bytes]
    memory: tuple[Sample, ...]
    importance: Importance
    classes: tuple[str, ...]

    def network(self) -> Any:
        """A copy of its own, read from the files."""
        import torch

        from continual.learning import read_adapter

        return read_adapter(self.bench.weights, self.files, torch.device("cpu"))

    def request(self, strategy: str) -> UpdateRequest:
        """Learn south, with everything that the past has to offer."""
        from continual.learning import UpdateRequest

        north, south = (self.bench.samples[site, Split.TRAIN] for site in ("north", "south"))
        return UpdateRequest(strategy, south, self.memory, north, self.importance, self.classes)


def toy_samples(images: dict[str, NDArray[np.uint8]], seed: int = 5) -> dict[tuple[str, Split], tuple[Sample, ...]]:
    """Per site and split, samples in alternating classes; their pixels are added to `images`."""
    random = np.random.default_rng(seed)
    made: dict[tuple[str, Split], tuple[Sample, ...]] = {}
    for site in LEVELS:
        for split, count in ((Split.TRAIN, 48), (Split.TEST, 32)):
            group = []
            for number in range(count):
                label = CLASSES[number % 2]
                pixels = draw_image(site, label, random)
                digest = hashlib.sha256(pixels.tobytes()).hexdigest()
                images[digest] = pixels
                group.append(Sample(digest, site, f"{site}-{split}-{number}", label, split, digest, batch=1))
            made[site, split] = tuple(group)
    return made


def toy_weights() -> bytes:
    """A vision transformer with random weights, in the format that `pretrain_backbone` writes."""
    import torch
    from safetensors.torch import save
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(11)
    network = VisionTransformer(**ARCHITECTURE, num_classes=0, dynamic_img_size=True)
    state = {name: weight.contiguous() for name, weight in network.state_dict().items()}
    described = json.dumps({"name": "small_vision_transformer", "arguments": ARCHITECTURE})
    return save(state, metadata={"continual_backbone": described})


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyBench:
    import torch

    from continual.learning import (
        ActivationCache,
        ActivationKey,
        LoraShape,
        TrainingOptions,
        build_network,
        first_tuned_block,
        weights_from_bytes,
    )

    torch.set_num_threads(1)
    weights = weights_from_bytes(toy_weights())
    shape = LoraShape(rank=4, alpha=8, blocks=2)
    network = build_network(weights)
    key = ActivationKey(weights.digest, first_tuned_block(network, shape), SIDE_PX)
    cache = ActivationCache(tmp_path_factory.mktemp("activations"), key, network, torch.device("cpu"))
    images: dict[str, NDArray[np.uint8]] = {}
    samples = toy_samples(images)
    options = TrainingOptions(steps=40, batch_size=16, lora_rate=3e-3, head_rate=1e-2, views=2, seed=1)
    bench = ToyBench(weights, shape, cache, images, samples, options)
    bench.fill()
    return bench


@pytest.fixture(scope="session")
def champion(toy: ToyBench) -> Champion:
    from continual.learning import Candidates, Capacity, UpdateRequest, importance_of, select_memory, write_adapter

    north = toy.samples["north", Split.TRAIN]
    network = toy.learn(toy.fresh(), UpdateRequest("naive", north))
    kept = set(select_memory(Candidates(north, 1), Capacity(16)))
    memory = tuple(sample for sample in north if sample.digest in kept)
    importance = importance_of(network, toy.cache, memory, lambda _n: None)
    files = write_adapter(network, importance, toy.record(network))
    return Champion(toy, files, memory, importance, network.classes)


TILE_PX = 32
DENSE_CLASSES = ("lesion",)


def draw_scene(site: str, random: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two bright bands on a dim ground in the site's colours, and their mask; a frame of four pixels is ignored."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    inside = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    for along in (rows, columns):
        first = random.integers(6, SIDE_PX - 18)
        inside |= (along >= first) & (along < first + random.integers(6, 12))
    colours = np.where(inside[:, :, None], np.array(LEVELS[site]["bright"]), np.array(LEVELS[site]["dim"]))
    pixels = np.clip(colours + random.normal(scale=8, size=(SIDE_PX, SIDE_PX, 1)), 0, 255).astype(np.uint8)
    mask = inside.astype(np.uint8)
    mask[:4], mask[-4:], mask[:, :4], mask[:, -4:] = IGNORED, IGNORED, IGNORED, IGNORED
    return pixels, mask


@dataclass(frozen=True, slots=True, eq=False)
class DenseBench(Bench):
    """Images with masks, cut into tiles."""

    def fresh(self, classes: Sequence[str] = DENSE_CLASSES, seed: int = 0) -> SegmentingNetwork:
        """An untrained adapter on the backbone."""
        from continual.learning import SegmentingNetwork, build_network

        return SegmentingNetwork(build_network(self.weights), self.shape, classes, self.cache.grid, seed)

    def empty_cache(self, folder: Path) -> TileCache:
        """A cache of its own, with nothing in it."""
        import torch

        from continual.learning import TileCache, build_network

        network = build_network(self.weights)
        return TileCache(folder, self.cache.key, TILE_PX, network, torch.device("cpu"), self.cache.whole_mask)


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory, toy: ToyBench) -> DenseBench:
    import torch

    from continual.learning import TileCache, TrainingOptions, build_network

    images: dict[str, NDArray[np.uint8]] = {}
    masks: dict[str, NDArray[np.uint8]] = {}
    samples: dict[tuple[str, Split], tuple[Sample, ...]] = {}
    random = np.random.default_rng(5)
    for site in LEVELS:
        for split, count in ((Split.TRAIN, 12), (Split.TEST, 6)):
            group = []
            for number in range(count):
                pixels, mask = draw_scene(site, random)
                digest, address = (hashlib.sha256(values.tobytes()).hexdigest() for values in (pixels, mask))
                images[digest], masks[address] = pixels, mask
                group.append(Sample(digest, site, f"{site}-{split}-{number}", None, split, digest, 1, mask=address))
            samples[site, split] = tuple(group)
    cache = TileCache(
        tmp_path_factory.mktemp("tiles"),
        toy.cache.key,
        TILE_PX,
        build_network(toy.weights),
        torch.device("cpu"),
        lambda sample: masks[str(sample.mask)],
    )
    options = TrainingOptions(steps=40, batch_size=8, lora_rate=3e-3, head_rate=1e-2, views=2, seed=1)
    bench = DenseBench(toy.weights, toy.shape, cache, images, samples, options)
    bench.fill()
    return bench


@pytest.fixture(scope="session")
def dense_champion(dense: DenseBench) -> Champion:
    from continual.learning import UpdateRequest, importance_of, write_adapter

    north = dense.samples["north", Split.TRAIN]
    network = dense.learn(dense.fresh(), UpdateRequest("naive", north))
    memory = north[:4]
    importance = importance_of(network, dense.cache, memory, lambda _n: None)
    files = write_adapter(network, importance, dense.record(network))
    return Champion(dense, files, memory, importance, network.classes)
