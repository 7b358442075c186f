"""What a replay memory holds, read from records and stored samples alone: without torch, for people wait for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from continual.domain.adapters import CHAMPION, AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.metrics import task_of
from continual.domain.samples import Sample, Split
from flows.updates.stored_bytes import held_of, site_rows
from flows.workplace import Workplace, check_adapter
from registry import Registry


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
    check_adapter(workplace, adapter)
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
