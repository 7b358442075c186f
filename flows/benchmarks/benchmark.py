"""Strategies side by side: every (strategy, order, seed, method, rank) cell over the same stream, kept once it is done.

Registers no version. A benchmark that was interrupted goes on where it stopped; one with other settings is refused.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from continual.domain.adapters import Task
from continual.domain.digests import sha256_json
from continual.domain.errors import SettingsError, StreamError
from continual.domain.samples import Split
from continual.learning import (
    CLOSED_FORMS,
    PEFT_METHODS,
    REFERENCES,
    STRATEGIES,
    WHOLE_BACKBONE,
    BackboneWeights,
    LoraShape,
    build_backbone,
    check_kind,
    first_tuned_block,
    peft_configuration,
    peft_method,
    resolve_backbone,
    usual_alpha,
)
from flows.benchmarks.benchmark_page import KIND, kind_of
from flows.benchmarks.memory_use import PeakMemory
from flows.benchmarks.results import derived_scores
from flows.benchmarks.stream_runs import (
    Start,
    StreamRun,
    classes_of,
    fill_stream,
    release_network,
    run_closed_form,
    run_strategy,
)
from flows.ingest import take_in
from flows.progress import say
from flows.requests import Incoming
from flows.sources import read_source
from flows.updates.adapter_context import AdapterContext, AdapterOptions
from flows.updates.choice import check_kept, check_mixing, check_views
from flows.updates.evaluation import chance_on, check_masks
from flows.whole_files import write_json
from flows.workplace import Workplace, open_workplace

SUMMARISED = ("acc", "bwt", "fwt", "forgetting", "worst_site", "worst_site_drop", "calibration_error", "auroc")
CELL = ("strategy", "order", "seed", "rank", "method")
ORDERS_DRAWN_FROM = 20260301
COSTS = ("trainable_parameters", "cpu_seconds", "seconds", "peak_memory_bytes", "gpu_memory_bytes", "replay_bytes")


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """What is compared. `seeds` and `orders` are how many of each; the first order is that of the sites.

    A strategy that is named twice is run once; a site must be named once. `methods` (of `PEFT_METHODS`) and `ranks` are
    swept together; those in `options` are not looked at.
    """

    sites: tuple[str, ...]
    strategies: tuple[str, ...]
    backbone: str
    backbone_name: str | None
    options: AdapterOptions
    seeds: int = 3
    orders: int = 2
    ranks: tuple[int, ...] = (8,)
    methods: tuple[str, ...] = ("lora",)

    def __post_init__(self) -> None:
        known = (*STRATEGIES, *REFERENCES, *CLOSED_FORMS)
        unknown = [name for name in self.strategies if name not in known]
        if unknown or not self.strategies:
            raise StreamError(f"no strategy {', '.join(unknown) or 'named'}; choose among {', '.join(known)}")
        closed = [name for name in self.strategies if name in CLOSED_FORMS]
        if closed and self.options.task is Task.SEGMENTATION:
            raise StreamError(f"{', '.join(closed)} classify whole images and give no masks; leave them out")
        check_views(self.options, self.strategies)
        check_mixing(self.options, self.strategies)
        check_kept(self.options.plan, self.strategies)
        for name in self.methods:
            peft_method(name)
        repeated = [site for site in dict.fromkeys(self.sites) if self.sites.count(site) > 1]
        if repeated:
            raise SettingsError(f"{repeated[0]} is named twice; name each site once")
        if min(self.seeds, self.orders, len(self.methods), *self.ranks) < 1 or len(self.sites) < 2:
            raise SettingsError(
                f"{len(self.sites)} sites, {self.seeds} seeds, {self.orders} orders, ranks {self.ranks}, "
                f"{len(self.methods)} PEFT methods: give at least 2 sites and 1 of each other"
            )

    def variants(self) -> tuple["Variant", ...]:
        """What is tuned, one after the other; the whole backbone last, where a reference asks for it."""
        swept = [
            Variant(method, rank if PEFT_METHODS[method].ranked else 0)
            for method in self.methods
            for rank in self.ranks
        ]
        whole = [Variant(WHOLE_BACKBONE, 0)] if any(name in REFERENCES for name in self.strategies) else []
        return tuple(dict.fromkeys([*swept, *whole]))


@dataclass(frozen=True, slots=True)
class Variant:
    """What is tuned: a method of `PEFT_METHODS` at a rank, or `WHOLE_BACKBONE`; 0 where the rank changes nothing."""

    method: str
    rank: int

    def shape(self, options: AdapterOptions) -> LoraShape:
        """The shape of such an adapter, in as many blocks as the options say."""
        rank = self.rank or options.lora.rank
        return replace(options.lora, rank=rank, alpha=usual_alpha(self.method, rank), method=self.method)


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the benchmark; `order` and `seed` count from 0. Closed forms have no rank (0) and no method ("")."""

    strategy: str
    order: int
    seed: int
    rank: int
    method: str


@dataclass(frozen=True, slots=True)
class Group:
    """Cells that share a release: what is tuned, the sites in one order, and a seed."""

    variant: Variant
    sites: tuple[str, ...]
    seed: int


def site_orders(sites: Sequence[str], count: int) -> tuple[tuple[str, ...], ...]:
    """`count` orders, fewer if there are: the given one, its reverse, then others as chance has them.

    A longer list begins with the shorter one.
    """
    orders = dict.fromkeys([tuple(sites), tuple(reversed(sites))])
    chance = np.random.default_rng(ORDERS_DRAWN_FROM)
    while len(orders) < min(count, math.factorial(len(set(sites)))):
        orders[tuple(sites[place] for place in chance.permutation(len(sites)))] = None
    return tuple(orders)[:count]


def run_benchmark(workspace: str, incoming: Incoming, plan: BenchmarkPlan, out: Path) -> dict[str, Any]:
    """Ingest, run every cell that `out` does not hold yet, and return everything with its summary.

    Cells that another run writes to `out` meanwhile are kept. Raises SettingsError when `out` is a folder or holds a
    benchmark of other settings, before anything is taken in; LearningError when a variant cannot be built.
    """
    weights = resolve_backbone(plan.backbone, plan.backbone_name)
    _check_variants(weights, plan)
    asked = _asked(weights, incoming, plan)
    _begun(out, asked)
    for site in plan.sites:
        take_in(workspace, incoming, site, None)
    with open_workplace(workspace) as workplace:
        _check_splits(workplace, plan)

        def context_of(variant: Variant, seed: int) -> AdapterContext:
            options = plan.options
            training = replace(options.training, seed=options.training.seed + 1000 * seed)
            changed = replace(options, lora=variant.shape(options), training=training)
            return AdapterContext(workplace, "benchmark", weights, changed)

        found = _begun(out, asked | _stored(workplace, plan))
        for group, cells in _groups(plan, found["cells"]):
            _run_group(context_of(group.variant, group.seed), plan, group.sites, cells, found, out)
    _join(found, out)
    found["summary"] = summary(found["cells"])
    write_json(out, found)
    return found


def summary(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per strategy, method and rank: mean and spread (standard deviation) over seeds and orders, best first."""
    rows = []
    for kind in dict.fromkeys(kind_of(cell) for cell in cells):
        mine = [cell for cell in cells if kind_of(cell) == kind]
        row: dict[str, Any] = {**dict(zip(KIND, kind, strict=True)), "runs": len(mine)}
        for key in (*SUMMARISED, *COSTS):
            values = [cell["scores" if key in SUMMARISED else "costs"][key] for cell in mine]
            told = [value for value in values if value is not None]
            row[key] = {"mean": float(np.mean(told)), "spread": float(np.std(told))} if told else None
        rows.append(row)
    return sorted(rows, key=lambda row: -row["acc"]["mean"])


def _check_variants(weights: BackboneWeights, plan: BenchmarkPlan) -> None:
    """Now, since a sweep would otherwise end at the first method that this backbone cannot carry, hours later."""
    check_kind(weights, plan.options.task, plan.options.volume)
    network = build_backbone(weights)
    for variant in plan.variants():
        shape = variant.shape(plan.options)
        first_tuned_block(network, shape)
        if variant.method != WHOLE_BACKBONE:
            peft_configuration(network, shape)


def _check_splits(workplace: Workplace, plan: BenchmarkPlan) -> None:
    """Now, since a site that nothing can be learnt from or judged by would otherwise end the benchmark at its turn."""
    for site, split in itertools.product(plan.sites, (Split.TRAIN, Split.TEST)):
        stored = workplace.registry.samples.list(site, split)
        if not any(sample.labelled_for(plan.options.task) for sample in stored):
            raise StreamError(
                f"site {site} has 0 labelled images in its {split} split, and every strategy is trained and judged at "
                "each site; label some, or leave the site out"
            )


def _groups(plan: BenchmarkPlan, done: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Group, list[Cell]]]:
    """Groups with their cells; those already done are left out."""
    finished = {_identity(cell) for cell in done}
    orders = site_orders(plan.sites, plan.orders)
    for seed, (number, order), (place, variant) in itertools.product(
        range(plan.seeds), enumerate(orders), enumerate(plan.variants())
    ):
        trained = REFERENCES if variant.method == WHOLE_BACKBONE else STRATEGIES
        # Training-free classifiers are the same under every variant: the first one brings them along.
        free = CLOSED_FORMS if place == 0 else {}
        cells = [
            Cell(name, number, seed, variant.rank, variant.method)
            if name in trained
            else Cell(name, number, seed, 0, "")
            for name in dict.fromkeys(plan.strategies)
            if name in trained or name in free
        ]
        missing = [cell for cell in cells if _identity({**asdict(cell), "sites": order}) not in finished]
        if missing:
            yield Group(variant, order, seed), missing


def _identity(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a cell from all others: its order by the sites themselves, not by its number."""
    return (tuple(cell["sites"]), *(cell[key] for key in CELL if key != "order"))


def _join(found: dict[str, Any], out: Path) -> None:
    """Add the cells that another run wrote to `out` meanwhile."""
    if out.exists():
        mine = {_identity(cell) for cell in found["cells"]}
        found["cells"] += [cell for cell in _begun(out, found["settings"])["cells"] if _identity(cell) not in mine]


def _run_group(
    context: AdapterContext,
    plan: BenchmarkPlan,
    sites: tuple[str, ...],
    cells: Sequence[Cell],
    found: dict[str, Any],
    out: Path,
) -> None:
    classes = classes_of(context, plan.sites)
    check_masks(context, plan.sites)
    start = _release(context, sites, cells)
    for cell in cells:
        tuned = f"{cell.method or 'nothing'} tuned, rank {cell.rank}"
        say(f"{cell.strategy}: order {cell.order + 1} ({', '.join(sites)}), seed {cell.seed + 1}, {tuned}")
        with PeakMemory(context.device) as peak:
            if start is None or cell.strategy in CLOSED_FORMS:
                run = run_closed_form(context, cell.strategy, sites, classes)
            else:
                run = run_strategy(context, cell.strategy, sites, start)
        found["cells"].append(_record(context, cell, run, peak))
        _join(found, out)
        write_json(out, found)


def _release(context: AdapterContext, sites: tuple[str, ...], cells: Sequence[Cell]) -> Start | None:
    """What the group's cells go on from, and every activation that they read; None where nothing is trained.

    It knows the first site's classes, as a release does, and its head grows with those that come. Before the first
    cell, whose memory would otherwise be that of the release and of the backbone.
    """
    trained = [cell.strategy for cell in cells if cell.strategy not in CLOSED_FORMS]
    fill_stream(context, sites, context.options.training.views if trained else 0)
    if not trained:
        return None
    return release_network(
        context, sites[0], classes_of(context, sites[:1]), trained[0] if trained[0] in REFERENCES else "naive"
    )


def _record(context: AdapterContext, cell: Cell, run: StreamRun, peak: PeakMemory) -> dict[str, Any]:
    chance = [chance_on(context, site) for site in run.sites]
    scores = derived_scores(run.matrix, run.sites, chance)
    last = run.rows[-1]
    areas = [area for area in last.auroc.values() if area is not None]
    return {
        **asdict(cell),
        "sites": list(run.sites),
        "result_matrix": run.matrix,
        "calibration_error": dict(last.calibration_error),
        "forgetting": scores["forgetting"],
        "scores": {
            **scores,
            "forgetting": float(np.mean([scores["forgetting"][site] for site in run.sites[:-1]])),
            "calibration_error": float(np.mean(list(last.calibration_error.values()))),
            "auroc": float(np.mean(areas)) if areas else None,
        },
        "costs": {
            "trainable_parameters": run.trainable_parameters,
            # The release is the same for all; what a strategy costs is its updates.
            "cpu_seconds": sum(run.cpu_seconds[1:]),
            "seconds": sum(run.seconds[1:]),
            # The cell's own, above what the process held when it began.
            "peak_memory_bytes": peak.memory_bytes,
            "resident_memory_bytes": peak.resident_bytes,
            "gpu_memory_bytes": peak.gpu_memory_bytes,
            "replay_bytes": run.replay_bytes,
        },
    }


def _asked(weights: BackboneWeights, incoming: Incoming, plan: BenchmarkPlan) -> dict[str, Any]:
    """What makes two benchmarks comparable; seeds, orders, strategies, methods and ranks may grow from run to run."""
    options = plan.options.as_record()
    options["lora"] = {"blocks": options["lora"]["blocks"]}
    offer = read_source(incoming, list(plan.sites)).sources
    rows = sorted([one.site, one.path.name, one.label or "", one.split or ""] for one in offer)
    return {"sites": list(plan.sites), "backbone": weights.digest, "options": options, "offered": sha256_json(rows)}


def _stored(workplace: Workplace, plan: BenchmarkPlan) -> dict[str, Any]:
    """The same of the images that were taken in."""
    samples = {site: workplace.registry.samples.list(site) for site in plan.sites}
    told = {site: sorted([s.digest, s.label or "", s.mask or ""] for s in samples[site]) for site in plan.sites}
    return {"samples": {site: len(samples[site]) for site in plan.sites}, "images": sha256_json(told)}


def _completed(began: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a benchmark that was begun; options that came since have their defaults.

    Of what is not known yet, or was not written down then, nothing is said.
    """
    usual = AdapterOptions(now["options"]["image_size"]).as_record()
    usual["lora"] = {}
    options = began.get("options", {})
    completed = {
        name: usual[name] | options.get(name, {}) if isinstance(usual.get(name), dict) else value
        for name, value in (usual | options).items()
    }
    return {key: began.get(key, value) for key, value in now.items()} | {"options": completed}


def _begun(out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    if out.is_dir():
        raise SettingsError(f"{out} is a folder; give a file with --json")
    if not out.exists():
        return {"settings": dict(settings), "cells": [], "summary": []}
    try:
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        same = _completed(found["settings"], settings) == json.loads(json.dumps(settings))
        for cell in found["cells"]:
            # Before there were methods, whatever was trained was trained by LoRA.
            cell.setdefault("method", "" if cell["strategy"] in CLOSED_FORMS else "lora")
            # Then the peak was the whole process's, which tells the order of running.
            if "resident_memory_bytes" not in cell["costs"]:
                cell["costs"]["peak_memory_bytes"] = None
    except (ValueError, LookupError, TypeError) as error:
        raise SettingsError(f"{out} is no benchmark's JSON; write to another file with --json") from error
    if not same:
        raise SettingsError(
            f"{out} holds a benchmark of other settings or images; write to another file with --json, or give what it "
            "was begun with (of volumes before there was --views: turned)"
        )
    return {**found, "settings": {**found["settings"], **settings}}
