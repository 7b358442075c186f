"""Strategies side by side: every (strategy, order, seed, rank) cell over the same stream, kept as soon as it is done.

Registers no version. A benchmark that was interrupted goes on where it stopped; one with other settings is refused.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from continual.domain.adapters import Task
from continual.domain.errors import SettingsError, StreamError
from continual.learning import CLOSED_FORMS, STRATEGIES, resolve_backbone
from flows.adapter_context import AdapterContext, AdapterOptions
from flows.evaluation import chance_on
from flows.ingest import take_in
from flows.memory_use import PeakMemory
from flows.progress import say
from flows.requests import Incoming
from flows.results import derived_scores
from flows.stream_runs import Start, StreamRun, classes_of, release_network, run_closed_form, run_strategy
from flows.terminal import write_json
from flows.workplace import open_workplace

SUMMARISED = ("acc", "bwt", "fwt", "forgetting", "worst_site", "worst_site_drop", "calibration_error", "auroc")
COSTS = ("trainable_parameters", "cpu_seconds", "seconds", "peak_memory_bytes", "gpu_memory_bytes", "replay_bytes")


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """What is compared. `seeds` and `orders` are how many of each; the first order is that of the sites."""

    sites: tuple[str, ...]
    strategies: tuple[str, ...]
    backbone: str
    backbone_name: str | None
    options: AdapterOptions
    seeds: int = 3
    orders: int = 2
    ranks: tuple[int, ...] = (8,)

    def __post_init__(self) -> None:
        known = (*STRATEGIES, *CLOSED_FORMS)
        unknown = [name for name in self.strategies if name not in known]
        if unknown or not self.strategies:
            raise StreamError(f"no strategy {', '.join(unknown) or 'named'}; choose among {', '.join(known)}")
        closed = [name for name in self.strategies if name in CLOSED_FORMS]
        if closed and self.options.task is Task.SEGMENTATION:
            raise StreamError(f"{', '.join(closed)} classify whole images and give no masks; leave them out")
        if min(self.seeds, self.orders, *self.ranks) < 1 or len(self.sites) < 2:
            raise SettingsError(
                f"{len(self.sites)} sites, {self.seeds} seeds, {self.orders} orders, ranks {self.ranks}: "
                "give at least 2 sites and 1 of each other"
            )


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the benchmark; `order` and `seed` count from 0. Closed forms have no rank (0)."""

    strategy: str
    order: int
    seed: int
    rank: int


def site_orders(sites: Sequence[str], count: int) -> tuple[tuple[str, ...], ...]:
    """`count` orders: the given one, its reverse, then others, evenly spread over all there are; fewer if there are."""
    every = list(itertools.permutations(sites))
    first = [tuple(sites), tuple(reversed(sites))]
    others = [order for order in every if order not in first]
    wanted = min(max(count - 2, 0), len(others))
    spread = [others[len(others) * place // wanted] for place in range(wanted)]
    return tuple(dict.fromkeys([*first, *spread]))[:count]


def run_benchmark(workspace: str, incoming: Incoming, plan: BenchmarkPlan, out: Path) -> dict[str, Any]:
    """Ingest, run every cell that `out` does not hold yet, and return everything with its summary.

    Raises SettingsError when `out` holds a benchmark of other settings.
    """
    for site in plan.sites:
        take_in(workspace, incoming, site, None)
    with open_workplace(workspace) as workplace:
        weights = resolve_backbone(plan.backbone, plan.backbone_name)

        def context_of(rank: int, seed: int) -> AdapterContext:
            options = plan.options
            lora = replace(options.lora, rank=rank, alpha=2 * rank)
            training = replace(options.training, seed=options.training.seed + 1000 * seed)
            return AdapterContext(workplace, "benchmark", weights, replace(options, lora=lora, training=training))

        first = context_of(plan.ranks[0], 0)
        found = _begun(out, _settings(first, plan))
        for group, cells in _groups(plan, found["cells"]):
            _run_group(context_of(*group[1:]), plan, group[0], cells, found, out)
    found["summary"] = summary(found["cells"])
    write_json(out, found)
    return found


def summary(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per strategy and rank: mean and spread (standard deviation) over seeds and orders, best ACC first."""
    rows = []
    for name, rank in dict.fromkeys((cell["strategy"], cell["rank"]) for cell in cells):
        mine = [cell for cell in cells if (cell["strategy"], cell["rank"]) == (name, rank)]
        row: dict[str, Any] = {"strategy": name, "rank": rank, "runs": len(mine)}
        for key in (*SUMMARISED, *COSTS):
            values = [cell["scores" if key in SUMMARISED else "costs"][key] for cell in mine]
            told = [value for value in values if value is not None]
            row[key] = {"mean": float(np.mean(told)), "spread": float(np.std(told))} if told else None
        rows.append(row)
    return sorted(rows, key=lambda row: -row["acc"]["mean"])


def _groups(
    plan: BenchmarkPlan, done: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[tuple[tuple[str, ...], int, int], list[Cell]]]:
    """Cells that share a release, (order, rank, seed) by (order, rank, seed); those already done are left out."""
    finished = {Cell(cell["strategy"], cell["order"], cell["seed"], cell["rank"]) for cell in done}
    orders = site_orders(plan.sites, plan.orders)
    for seed, (number, order), (place, rank) in itertools.product(
        range(plan.seeds), enumerate(orders), enumerate(plan.ranks)
    ):
        names = [name for name in plan.strategies if name in STRATEGIES or place == 0]
        cells = [Cell(name, number, seed, rank if name in STRATEGIES else 0) for name in names]
        missing = [cell for cell in cells if cell not in finished]
        if missing:
            yield (order, rank, seed), missing


def _run_group(
    context: AdapterContext,
    plan: BenchmarkPlan,
    sites: tuple[str, ...],
    cells: Sequence[Cell],
    found: dict[str, Any],
    out: Path,
) -> None:
    classes = classes_of(context, plan.sites)
    start: Start | None = None
    for cell in cells:
        say(f"{cell.strategy}: order {cell.order + 1} ({', '.join(sites)}), seed {cell.seed + 1}, rank {cell.rank}")
        with PeakMemory(context.device) as peak:
            if cell.strategy in CLOSED_FORMS:
                run = run_closed_form(context, cell.strategy, sites, classes)
            else:
                start = start or release_network(context, sites[0], classes)
                run = run_strategy(context, cell.strategy, sites, start)
        found["cells"].append(_record(context, cell, run, peak))
        write_json(out, found)


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
            "peak_memory_bytes": peak.memory_bytes,
            "gpu_memory_bytes": peak.gpu_memory_bytes,
            "replay_bytes": run.replay_bytes,
        },
    }


def _settings(context: AdapterContext, plan: BenchmarkPlan) -> dict[str, Any]:
    """What makes two benchmarks comparable; seeds, orders, strategies and ranks may grow from run to run."""
    options = plan.options.as_record()
    options["lora"] = {"blocks": options["lora"]["blocks"]}
    counts = {site: len(context.registry.samples.list(site)) for site in plan.sites}
    return {"sites": list(plan.sites), "samples": counts, "backbone": context.weights.digest, "options": options}


def _begun(out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    if not out.exists():
        return {"settings": dict(settings), "cells": [], "summary": []}
    try:
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        same = found["settings"] == json.loads(json.dumps(settings))
    except (ValueError, LookupError, TypeError) as error:
        raise SettingsError(f"{out} is no benchmark's JSON; write to another file with --json") from error
    if not same:
        raise SettingsError(f"{out} holds a benchmark of other settings or images; write to another file with --json")
    return found
