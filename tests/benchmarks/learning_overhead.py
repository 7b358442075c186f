"""One epoch through `learn` against the same epoch in a hand-written PyTorch loop: real cells, a real backbone.

Both see the same draws through the same cache and start from the same weights, with the same optimizer, rates, clipping
and patch dropping; `learn` also keeps its training state. The plain fine-tuning ends with the same weights bit for bit,
so nothing is left out of it. Repeats take turns; the median of the pairs' ratios counts, in processor seconds, because
other work on the machine does not count there.
"""

import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from report import Row, arguments, data_folder, publish, weights_file
from torch import nn
from torch.utils.data import DataLoader

from continual.domain.samples import Sample, Split
from continual.imaging import decode_image
from continual.learning import (
    ActivationCache,
    ActivationKey,
    AdaptedNetwork,
    Checkpoints,
    Importance,
    LoraShape,
    TrainingOptions,
    UpdateRequest,
    build_network,
    first_tuned_block,
    importance_of,
    learn,
    resolve_backbone,
)
from continual.learning.patch_dropout import drop_patches
from continual.learning.streams import DrawnDataset, balanced_draws

SIDE_PX = 126
SITE = "barcelona"
STRATEGIES = ("naive", "replay_ewc")


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A network that has learnt nothing yet, images and their activations, and how an epoch trains."""

    network: AdaptedNetwork
    cache: ActivationCache
    fresh: Sequence[Sample]
    memory: Sequence[Sample]
    importance: Importance
    options: TrainingOptions


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """What one epoch took, in seconds on the wall and on the processor, and where it led."""

    wall: float
    processor: float
    network: AdaptedNetwork


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    images, repeats = (96, 3) if options.quick else (512, 7)
    table, raw = [], {}
    with tempfile.TemporaryDirectory() as name:
        bench = prepare(Path(name), images)
        for strategy in STRATEGIES:
            plain, ours = race(bench, strategy, repeats, Path(name) / "training" / "state.safetensors")
            table.append(row(strategy, plain, ours))
            raw[strategy] = [
                {"plain": [one.wall, one.processor], "ours": [other.wall, other.processor]}
                for one, other in zip(plain, ours, strict=True)
            ]
            if strategy == "naive":
                same = all(_same(one.network, other.network) for one, other in zip(plain, ours, strict=True))
                table.append(Row("naive: both loops end with the same weights", "bit for bit", str(same), same))
    publish(table, {"steps": bench.options.steps, "images": images, "wall_and_processor_seconds": raw}, options.json)


def prepare(folder: Path, images: int) -> Bench:
    """Images of one site with their activations; every fourth stands for the memory of an earlier one."""
    manifest = data_folder() / "white_blood_cells" / "manifest.csv"
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["site"] == SITE]
    # Every n-th, so that all classes are there.
    rows = rows[:: max(1, len(rows) // images)][:images]
    samples = [
        Sample(f"{number:064x}", SITE, str(number), row["label"], Split.TRAIN, "", batch=1)
        for number, row in enumerate(rows)
    ]
    paths = {sample.digest: manifest.parent / row["path"] for sample, row in zip(samples, rows, strict=True)}
    weights = resolve_backbone(str(weights_file()))
    shape, device = LoraShape(), torch.device("cpu")
    backbone = build_network(weights)
    key = ActivationKey(weights.digest, first_tuned_block(backbone, shape), SIDE_PX)
    cache = ActivationCache(folder, key, backbone, device)
    options = TrainingOptions(steps=len(samples) // TrainingOptions().batch_size, views=1)
    cache.fill(samples, options.views, lambda sample: decode_image(paths[sample.digest].read_bytes()).pixels, _silent)
    classes = sorted({str(sample.label) for sample in samples})
    network = AdaptedNetwork(build_network(weights), shape, classes)
    memory = samples[::4]
    return Bench(network, cache, samples, memory, importance_of(network, cache, memory[:16], _silent), options)


def race(bench: Bench, strategy: str, repeats: int, state: Path) -> tuple[list[Epoch], list[Epoch]]:
    """Epochs of the plain loop and of ours, after one of each that warms the caches; who goes first takes turns."""
    plain, ours = [], []
    turns = [
        (plain, lambda network: plain_epoch(bench, strategy, network)),
        (ours, lambda network: our_epoch(bench, strategy, network, state)),
    ]
    for _ in range(repeats + 1):
        for done, learn_with in turns:
            done.append(_timed(bench, learn_with))
        turns.reverse()
        state.unlink()
        print(f"{strategy}: plain {plain[-1].processor:.2f} s, ours {ours[-1].processor:.2f} s", file=sys.stderr)
    return plain[1:], ours[1:]


def our_epoch(bench: Bench, strategy: str, network: AdaptedNetwork, state: Path) -> None:
    """What an update does, without what it does before and after learning."""
    replays = strategy != "naive"
    request = UpdateRequest(
        strategy, bench.fresh, bench.memory if replays else (), (), bench.importance if replays else None
    )
    learn(network, bench.cache, request, bench.options, _silent, Checkpoints(state))


def plain_epoch(bench: Bench, strategy: str, network: AdaptedNetwork) -> None:
    """The epoch as one would write it down without any library of continual learning."""
    options, weights = bench.options, network.trainable()
    torch.manual_seed(options.seed)
    halves = [bench.fresh] if strategy == "naive" else [bench.fresh, bench.memory]
    size = options.batch_size // len(halves)
    loaders = []
    for number, samples in enumerate(halves):
        draws = balanced_draws(samples, network.classes, options.steps * size, options.views, options.seed + number)
        loaders.append(DataLoader(DrawnDataset(draws, bench.cache), batch_size=size, shuffle=True))
    anchor = {name: weight.detach().clone() for name, weight in weights.items()}
    lora = [weight for name, weight in weights.items() if not name.startswith("head.")]
    groups = [
        {"params": list(network.head.parameters()), "lr": options.head_rate},
        {"params": lora, "lr": options.lora_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
    rise = max(0.1, 2 / (options.steps + 1))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=options.steps + 1, pct_start=rise
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    prefix = network.vision.num_prefix_tokens
    network.train()
    for parts in zip(*loaders, strict=True):
        tokens, targets = (torch.cat([part[place] for part in parts]) for place in (0, 1))
        optimizer.zero_grad()
        loss = criterion(network(drop_patches(tokens, prefix, options.patch_share)), targets)
        if strategy != "naive":
            held = [(bench.importance[name] * (weights[name] - anchor[name]).pow(2)).sum() for name in weights]
            loss = loss + options.regularisation / 2 * torch.stack(held).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(list(weights.values()), max_norm=1.0)
        optimizer.step()
        schedule.step()
    network.eval()


def row(strategy: str, plain: Sequence[Epoch], ours: Sequence[Epoch]) -> Row:
    """The overhead of our loop: the median over the pairs, and its range."""
    pairs = list(zip(plain, ours, strict=True))
    overheads = [100 * (other.processor / one.processor - 1) for one, other in pairs]
    wall = statistics.median(100 * (other.wall / one.wall - 1) for one, other in pairs)
    median = statistics.median(overheads)
    measured = f"{median:+.1f} % ({min(overheads):+.1f} to {max(overheads):+.1f}; wall {wall:+.1f})"
    return Row(f"{strategy}: an epoch's overhead over plain PyTorch", "< 5 %", measured, median < 5)


def _timed(bench: Bench, learn_with: Callable[[AdaptedNetwork], None]) -> Epoch:
    network = deepcopy(bench.network)
    wall, processor = time.perf_counter(), time.process_time()
    learn_with(network)
    return Epoch(time.perf_counter() - wall, time.process_time() - processor, network)


def _same(one: AdaptedNetwork, other: AdaptedNetwork) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def _silent(_steps: int) -> None:
    """Progress that nobody looks at."""


if __name__ == "__main__":
    main()
