"""What one update costs in processor seconds: ours, the same training through a plain Avalanche loop, joint retraining.

The plain loop is what one writes with Avalanche and PEFT as they come: the whole model from pixels to head at every
step, Avalanche's own replay and EWC plugins, PEFT's own layers, no cached activations, every patch. Same champion, same
draws, same steps, same rates. Joint retraining is that loop from nothing over all sites, as many passes as the release
made over its own; its cost is that of its steps, measured on the first ones, before, between and after our updates: a
shared machine's speed changes within minutes. Those are the updates with the fourth site, when that retraining is due:
its new images and a memory of three sites; the champion is the first site's, whose weights change no cost. Importance
of the weights is measured where the strategy asks for it. Processor seconds, because other work counts less there.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
from avalanche.training.templates import SupervisedTemplate
from learning_stream import SITES, thin
from peft.tuners.lora import Linear
from report import Row, arguments, data_folder, publish, weights_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from continual.domain.samples import Sample, Split
from continual.imaging import decode_image
from continual.learning import (
    STRATEGIES,
    AdaptedNetwork,
    Importance,
    UpdateRequest,
    importance_of,
    learn,
    options_for,
    resolve_backbone,
)
from continual.learning.lora_linear import InPlaceLoraLinear
from continual.learning.network import embed_prefix
from continual.learning.streams import Draw, balanced_draws
from continual.learning.views import standardise, view_of
from continual.settings import apply_environment, create_workspace, load_settings, prefect_environment
from flows.benchmarks.stream_runs import classes_of, release_network
from flows.ingest import take_in
from flows.requests import Incoming
from flows.updates.adapter_context import AdapterContext, AdapterOptions
from flows.updates.evaluation import evaluate, labelled_samples
from flows.updates.memory import choose_memory
from flows.workplace import open_workplace

SIDE_PX = 126
EWC_STRENGTH = 1000.0
SECOND, FOURTH = 1, 3
"""Places of the sites whose updates are measured, counted from 0."""
AS_PLAIN = "replay_ewc"
"""What the plain loop trains with."""
AT_FOURTH = ("replay_ewc", "replay_mix", "replay_mix_ewc")


class PixelNetwork(nn.Module):
    """The whole model at every step: pixels in, class scores out."""

    def __init__(self, network: AdaptedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(embed_prefix(self.network.vision, images, self.network.split))


class Images(Dataset[tuple[Tensor, int]]):
    """Draws as pixels; every picture is decoded once and kept in memory, as a careful plain loop would."""

    def __init__(self, draws: Sequence[Draw], pixels: dict[str, np.ndarray]) -> None:
        self._draws = tuple(draws)
        self._pixels = pixels
        self.targets = [draw.target for draw in draws]

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        draw = self._draws[index]
        return standardise(view_of(self._pixels[draw.digest], draw.view), SIDE_PX), draw.target


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A champion of the first site with its weights' importance; training samples of every site, pixels by digest."""

    context: AdapterContext
    champion: AdaptedNetwork
    importance: Importance
    training: dict[str, list[Sample]]
    pixels: dict[str, np.ndarray]

    def everything(self, before: int = len(SITES)) -> list[Sample]:
        """Training samples of the first `before` sites, in their order."""
        return [sample for site in SITES[:before] for sample in self.training[site]]

    def memory(self, before: int) -> tuple[Sample, ...]:
        """What is remembered of the first `before` sites."""
        return choose_memory(self.context, self.everything(before))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--beside-joint", action="store_true", help="leave the plain loop out, which takes longest")
    options = parser.parse_args()
    manifest = data_folder() / "white_blood_cells" / "manifest.csv"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = thin(manifest, folder) if options.quick else manifest
        apply_environment(prefect_environment(load_settings(folder / "workspace")))
        create_workspace(load_settings(folder / "workspace"))
        for site in SITES:
            take_in(str(folder / "workspace"), Incoming(str(source)), site, None)
        with open_workplace(str(folder / "workspace")) as workplace:
            bench = prepare(context_of(workplace, 6 if options.quick else None))
            # Before the fourth site's: the second site's images are to be those that nobody looked at yet.
            plain = {} if options.beside_joint else beside_plain(bench)
            joint = beside_joint(bench)
    found = [*plain_rows(plain), *joint_rows(joint)]
    publish(found, {"plain": plain, "joint": joint, "steps": bench.context.options.training.steps}, options.json)


def context_of(workplace: Any, steps: int | None) -> AdapterContext:
    """The adapter that learns, with as many steps as its options have unless told."""
    settings = AdapterOptions(SIDE_PX)
    if steps:
        settings = replace(settings, training=replace(settings.training, steps=steps))
    return AdapterContext(workplace, "cost", resolve_backbone(str(weights_file())), settings)


def beside_plain(bench: Bench) -> dict[str, Any]:
    """Processor seconds of the second site's update, ours and the plain loop's, and what each scores on both sites."""
    ways = {"ours": whole_update, "plain": plain_update}
    found = {}
    for name, way in ways.items():
        network = deepcopy(bench.champion)
        seconds = processor_seconds(partial(way, bench, network))
        found[name] = {"cpu_seconds": seconds, "score": scores(bench.context, network)}
    return found


def beside_joint(bench: Bench) -> dict[str, Any]:
    """Processor seconds of the fourth site's update under each strategy, and of joint retraining when it is due."""
    # The third update left its own images' activations behind.
    fill(bench, bench.memory(FOURTH))
    filling = processor_seconds(lambda: fill(bench, bench.training[SITES[FOURTH]]))
    costs, updates = [joint_cost(bench)], {}
    for strategy in AT_FOURTH:
        training = processor_seconds(partial(train, bench, deepcopy(bench.champion), FOURTH, strategy))
        updates[strategy] = filling + training
        costs.append(joint_cost(bench))
    plain, ours = (float(np.mean([cost[layers] for cost in costs])) for layers in LAYERS)
    found = {"cpu_seconds": plain, "with_our_layers": ours, "steps": joint_steps(bench), "single": costs}
    return {"updates": updates, **found}


def joint_steps(bench: Bench) -> int:
    """Steps of joint retraining: as many passes over all sites as the release makes over its own."""
    training = bench.context.options.training
    return round(training.steps * len(bench.everything()) / len(bench.training[SITES[0]]))


def joint_cost(bench: Bench) -> dict[str, float]:
    """Processor seconds of joint retraining with each kind of layers, from those of its first steps."""
    steps = joint_steps(bench)
    few = min(10, steps)
    seconds = {}
    for layers, prepared in LAYERS.items():
        network = prepared(bench.context.fresh_network(bench.champion.classes))
        seconds[layers] = processor_seconds(partial(plain_joint, bench, network, few)) / few * steps
    return seconds


def prepare(context: AdapterContext) -> Bench:
    """Learn the first site; decode what the plain loop will look at."""
    champion = release_network(context, SITES[0], classes_of(context, SITES)).network
    training = {site: labelled_samples(context, site, Split.TRAIN) for site in SITES}
    importance = importance_of(champion, context.cache, choose_memory(context, training[SITES[0]]), _silent)
    bench = Bench(context, champion, importance, training, {})
    for sample in bench.everything():
        bench.pixels[sample.digest] = decode_image(context.registry.samples.read(sample)).pixels
    return bench


def whole_update(bench: Bench, network: AdaptedNetwork) -> None:
    """Ours of the second site as the plain loop learns it, from images that nobody looked at yet: caches are filled."""
    fill(bench, [*bench.training[SITES[SECOND]], *bench.memory(SECOND)])
    train(bench, network, SECOND, AS_PLAIN)


def fill(bench: Bench, samples: Sequence[Sample]) -> None:
    """Compute the activations that an update draws from."""
    bench.context.fill(samples, bench.context.options.training.views, "activations")


def train(bench: Bench, network: AdaptedNetwork, number: int, strategy: str) -> None:
    """Learn site `number`, counted from 0, over filled caches; then importance, where the strategy asks for it."""
    context, memory, fresh = bench.context, bench.memory(number), bench.training[SITES[number]]
    request = UpdateRequest(strategy, fresh, memory, (), bench.importance, network.classes)
    options = options_for(context.options.training, strategy, number, replayed=True)
    learn(network, context.cache, request, options, _silent)
    if STRATEGIES[strategy].regularises:
        importance_of(network, context.cache, choose_memory(context, [*memory, *fresh]), _silent)


def as_it_comes(network: AdaptedNetwork) -> AdaptedNetwork:
    """The same network with PEFT's own layers in the place of ours."""
    for layer in network.modules():
        if isinstance(layer, InPlaceLoraLinear):
            layer.__class__ = Linear
    return network


LAYERS: dict[str, Callable[[AdaptedNetwork], AdaptedNetwork]] = {"PEFT's": as_it_comes, "ours": lambda given: given}


def plain_update(bench: Bench, network: AdaptedNetwork) -> None:
    """Avalanche's replay and EWC over the whole model, as it comes; the first experience is the memory."""
    as_it_comes(network)
    options = bench.context.options.training
    half = options.batch_size // 2
    fresh = balanced_draws(
        bench.training[SITES[SECOND]], network.classes, options.steps * half, options.views, options.seed
    )
    past = [Draw(sample.digest, 0, network.classes.index(str(sample.label))) for sample in bench.memory(SECOND)]
    plugins = [ReplayPlugin(mem_size=len(past), batch_size=half, batch_size_mem=half), EWCPlugin(EWC_STRENGTH)]
    loop = plain_loop(PixelNetwork(network), options, plugins, half)
    known, new = experiences(bench, [past, fresh])
    # What the champion's own update left behind: its memory and its weights' importance.
    for plugin in plugins:
        prepare_plugin(plugin, loop, known)
    loop.train(new)
    network.eval()


def prepare_plugin(plugin: Any, loop: Any, experience: Any) -> None:
    """Fill the memory, or measure importance, on an experience without learning it."""
    loop.experience = experience
    loop.adapted_dataset = experience.dataset
    loop.clock.train_exp_counter = 0
    plugin.after_training_exp(loop)
    loop.clock.train_exp_counter = 1


def plain_joint(bench: Bench, network: AdaptedNetwork, steps: int) -> None:
    """Joint training from nothing over all sites."""
    options = bench.context.options.training
    draws = balanced_draws(bench.everything(), network.classes, steps * options.batch_size, options.views, options.seed)
    loop = plain_loop(PixelNetwork(network), replace(options, steps=steps), [], options.batch_size)
    loop.train(experiences(bench, [draws])[0])


def plain_loop(model: PixelNetwork, options: Any, plugins: list[Any], size: int) -> Any:
    """Avalanche's template over the weights that train."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return _Template(
        model=model,
        optimizer=torch.optim.AdamW(weights, lr=options.lora_rate, weight_decay=options.weight_decay),
        criterion=nn.CrossEntropyLoss(label_smoothing=options.label_smoothing),
        train_mb_size=size,
        train_epochs=1,
        device=torch.device("cpu"),
        plugins=plugins,
        evaluator=EvaluationPlugin(),
    )


class _Template(SupervisedTemplate):
    """As it comes, but for one call that would hand frozen weights to the optimizer and break it."""

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Nothing to adapt."""


def experiences(bench: Bench, parts: Sequence[Sequence[Draw]]) -> list[Any]:
    """One Avalanche experience for each part."""
    datasets = []
    for draws in parts:
        images = Images(draws, bench.pixels)
        datasets.append(_make_taskaware_classification_dataset(images, targets=images.targets, task_labels=0))
    return list(with_task_labels(benchmark_from_datasets(train=datasets)).train_stream)


def scores(context: AdapterContext, network: AdaptedNetwork) -> dict[str, float]:
    """Balanced accuracy on the test splits of both sites."""
    tested = evaluate(context, network, SITES[:2], Split.TEST)
    return {site: score.balanced_accuracy for site, (_, score) in tested.items()}


def processor_seconds(work: Callable[[], None]) -> float:
    """Processor seconds, all threads together."""
    started = time.process_time()
    work()
    return time.process_time() - started


def joint_rows(found: dict[str, Any]) -> list[Row]:
    """What was asked of an update with the fourth site, beside what it took."""
    joint = found["cpu_seconds"]
    with_ours = found["with_our_layers"]
    rows = [
        Row(f"joint retraining on four sites, {found['steps']} steps", "-", f"{joint:.0f} s", None),
        Row("the same with our layers", "-", f"{with_ours:.0f} s", None),
    ]
    for strategy, seconds in found["updates"].items():
        share = seconds / joint
        measured = f"{seconds:.0f} s: {share:.3f} ({seconds / with_ours:.3f} with our layers there, too)"
        rows.append(Row(f"{strategy}, the fourth site", "<= 1/5 of joint", measured, share <= 1 / 5))
    return rows


def plain_rows(found: dict[str, Any]) -> list[Row]:
    """What was asked of an update beside the plain loop, beside what it took; none where the loop was left out."""
    if not found:
        return []
    ours, plain = found["ours"], found["plain"]
    mine, theirs = (float(np.mean(list(way["score"].values()))) for way in (ours, plain))
    share = ours["cpu_seconds"] / plain["cpu_seconds"]
    return [
        Row("an update, processor seconds", "-", f"{ours['cpu_seconds']:.0f} s", None),
        Row("the same through plain Avalanche", "-", f"{plain['cpu_seconds']:.0f} s", None),
        Row("ours over plain", "<= 1/3", f"{share:.2f}", share <= 1 / 3),
        Row("mean score of both, ours and plain", "not worse", f"{mine:.3f} and {theirs:.3f}", mine >= theirs - 0.01),
    ]


def _silent(_steps: int) -> None:
    """Progress that nobody looks at."""


if __name__ == "__main__":
    main()
