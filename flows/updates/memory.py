"""The replay memory at work: what is chosen after an update, what of it is still stored, and what it holds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from continual.domain.adapters import CHAMPION, AdapterVersion, Task
from continual.domain.change_plan import ChangePlan
from continual.domain.errors import NotFoundError, StreamError
from continual.domain.metrics import task_of
from continual.domain.samples import Sample, Split
from continual.learning import STRATEGIES, Candidates, Capacity, DenseCache, policy_named, select_memory
from flows.updates.stored_bytes import held_of, site_rows
from flows.workplace import Workplace
from registry import Registry

if TYPE_CHECKING:
    from flows.updates.adapter_context import AdapterContext


def choose_memory(context: "AdapterContext", samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """What the change plan's policy and capacity keep of the samples, the worthiest first.

    Of one picture at two sites the earlier in `samples` is kept.
    """
    plan = context.options.plan
    if policy_named(plan.replay_policy).needs_features:
        context.fill(samples, 0, "replay memory: features")
    sizes = bytes_kept(context, samples) if plan.replay_bytes else {}
    candidates = Candidates(
        _as_one_class(samples) if context.options.task is Task.SEGMENTATION else samples,
        context.options.training.seed,
        sizes,
        context.cache.features,
    )
    kept = select_memory(candidates, Capacity(plan.replay_samples, plan.replay_bytes), plan.replay_policy)
    # The reversed order lets the earlier overwrite the later; a label or a mask is what makes a sample a candidate.
    chosen = {sample.digest: sample for sample in reversed(samples) if sample.labelled_for(context.options.task)}
    return tuple(chosen[digest] for digest in kept)


def check_memory(context: "AdapterContext", memory: Sequence[Sample], samples: Sequence[Sample]) -> None:
    """Raise StreamError where importance will be measured on a memory whose bytes hold none of the samples."""
    plan = context.options.plan
    holding = [name for name in plan.strategies if name in STRATEGIES and STRATEGIES[name].regularises]
    if memory or not holding or not samples:
        return
    smallest = min(bytes_kept(context, samples).values())
    raise StreamError(
        f"a replay memory of {plan.replay_bytes} bytes holds 0 of {len(samples)} samples, the smallest of which takes "
        f"{smallest}, and {holding[0]} measures the importance of weights on it; release with a larger --replay-bytes, "
        "or with --allow for strategies that measure none"
    )


def _as_one_class(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with masks, all of one class: policies then share the memory out by site."""
    return [replace(sample, label="mask") for sample in samples if sample.mask is not None]


def bytes_kept(context: "AdapterContext", samples: Sequence[Sample]) -> dict[str, int]:
    """Bytes that remembering each sample, by digest, costs: those of its image, or of its activations without images.

    Activations are features and the views that are drawn from; where one is missing, it is computed.
    """
    if context.options.plan.keep_images or isinstance(context.cache, DenseCache):
        return context.registry.samples.sizes(samples)
    views = context.options.training.views
    context.fill(samples, views, "replay memory: sizes")
    return context.cache.sizes([sample.digest for sample in samples], views)


def remembered_by(registry: Registry, version: AdapterVersion | None) -> list[Sample]:
    """The samples of a version's replay memory that are still stored, the worthiest first; erased ones are left out."""
    if version is None:
        return []
    # Training side only: a picture that was erased and came back under another name may stand on another.
    task = task_of(version.metric)
    training = [s for site in version.trained_on for s in registry.samples.list(site, Split.TRAIN, labelled=task)]
    stored = {(sample.site, sample.digest): sample for sample in training}
    return [stored[site, digest] for site, digest in version.record["memory"] if (site, digest) in stored]


@dataclass(frozen=True, slots=True)
class MemoryView:
    """A champion's replay memory as a person reads it. `erased` counts what it remembered and is erased, or held.

    `size_bytes` is what the capacity counts: stored images where the plan keeps images, else kept activations.
    """

    adapter: str
    version: int
    policy: str
    capacity_samples: int
    capacity_bytes: int
    samples: int
    size_bytes: int
    erased: int
    cells: tuple[dict[str, Any], ...]
    """Per site and class: `site`, `label`, `samples`, `bytes`."""
    listed: tuple[dict[str, Any], ...]
    """Per sample: `site`, `subject`, `label`, `digest`, `bytes`, `kept`, `image_bytes`, `activation_bytes`,
    `since_version`."""
    sites: tuple[dict[str, Any], ...] = ()
    """Per site, of all its samples: `site`, `samples`, `images` and `activations` that are kept, bytes of both."""

    def as_record(self, with_samples: bool) -> dict[str, Any]:
        """Plain JSON, the samples one by one only if asked for."""
        record = asdict(self)
        listed = record.pop("listed")
        return record | ({"listed": listed} if with_samples else {})


def memory_view(workplace: Workplace, adapter: str) -> MemoryView:
    """The replay memory of an adapter's champion; NotFoundError when it has none."""
    registry = workplace.registry
    names = registry.adapters.names()
    if adapter not in names:
        raise NotFoundError(f"no adapter {adapter!r}; known: {', '.join(names) or 'none yet'}")
    champion = registry.adapters.current(adapter, CHAMPION)
    plan = ChangePlan.from_record(champion.record["options"]["plan"])
    stored = registry.samples.list(with_held=True)
    holding = held_of(workplace, stored)
    held = remembered_by(registry, champion)
    since = _since(registry.adapters.list(adapter), champion)
    listed: tuple[dict[str, Any], ...] = tuple(
        {
            "site": sample.site,
            "subject": sample.subject,
            "label": sample.label or "-",
            "digest": sample.digest,
            "bytes": holding.image_bytes(sample) if plan.keep_images else holding.activation_bytes(sample),
            "kept": holding.what(sample),
            "image_bytes": holding.image_bytes(sample),
            "activation_bytes": holding.activation_bytes(sample),
            "since_version": since[sample.site, sample.digest],
        }
        for sample in held
    )
    return MemoryView(
        adapter=adapter,
        version=champion.number,
        policy=plan.replay_policy,
        capacity_samples=plan.replay_samples,
        capacity_bytes=plan.replay_bytes,
        samples=len(held),
        size_bytes=sum(row["bytes"] for row in listed),
        erased=len(champion.record["memory"]) - len(held),
        cells=_cells(listed),
        listed=listed,
        sites=site_rows(holding, stored),
    )


def _cells(listed: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in listed:
        empty = {"site": row["site"], "label": row["label"], "samples": 0, "bytes": 0}
        cell = cells.setdefault((row["site"], row["label"]), empty)
        cell["samples"] += 1
        cell["bytes"] += row["bytes"]
    return tuple(cells[key] for key in sorted(cells))


def _since(versions: Sequence[AdapterVersion], champion: AdapterVersion) -> dict[tuple[str, str], int]:
    """The version of the champion's lineage since which each sample has been remembered without a break."""
    by_number = {version.number: version for version in versions}
    unbroken = {(site, digest) for site, digest in champion.record["memory"]}
    since, version = dict.fromkeys(unbroken, champion.number), champion
    while version.parent is not None and unbroken:
        version = by_number[version.parent]
        unbroken &= {(site, digest) for site, digest in version.record["memory"]}
        since |= dict.fromkeys(unbroken, version.number)
    return since


def show_memory(console: Console, view: MemoryView, with_samples: bool) -> None:
    """Policy and capacity in one line, then counts per site and class, then the samples if asked for."""
    most = f"{view.capacity_samples} samples" + (f", {view.capacity_bytes} bytes" if view.capacity_bytes else "")
    console.print(
        f"{view.adapter} version {view.version} remembers {view.samples} samples, {view.size_bytes} bytes "
        f"(policy {view.policy}, at most {most})",
        highlight=False,
    )
    if view.erased:
        console.print(f"{view.erased} more were remembered and are erased or held now", highlight=False)
    _print_table(console, ("site", "label", "samples", "bytes"), view.cells)
    console.print("Kept of all samples, learnt or not:")
    _print_table(console, ("site", "samples", "images", "image_bytes", "activations", "activation_bytes"), view.sites)
    if with_samples:
        _print_table(
            console, ("site", "subject", "label", "digest", "kept", "bytes", "since"), [_short(r) for r in view.listed]
        )


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"digest": row["digest"][:12], "since": f"v{row['since_version']}"}


def _print_table(console: Console, headings: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title_justify="left")
    for heading in headings:
        text = heading in {"site", "subject", "label", "digest", "kept", "since"}
        table.add_column(heading.replace("_", " "), justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(str(row[heading]) for heading in headings))
    console.print(table)
