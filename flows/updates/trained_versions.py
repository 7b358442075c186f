"""Which adapter versions were trained on a subject, worked out from the registry's records alone: no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from continual.domain.adapters import AdapterVersion, Task
from continual.domain.samples import Sample, Split
from flows.updates.learnt import has_learnt
from registry import Erasure, Registry

LEARNT, REPLAYED, INHERITED, POSSIBLY = "learnt", "replayed", "inherited", "possibly"
HOW: Mapping[str, str] = {
    LEARNT: "what it was trained on held the subject",
    REPLAYED: "it replayed the subject, its parent remembered it",
    INHERITED: "its weights or sums start from a version that learnt the subject",
    POSSIBLY: "its update was running while the subject was erased",
}
"""How a version came by a subject."""

JOINT = "joint"
"""Records of the first release do not count past samples; this strategy alone took them."""


@dataclass(frozen=True, slots=True, order=True)
class TrainedVersion:
    """One version that was trained on a subject; `how` is a key of `HOW`."""

    adapter: str
    version: int
    how: str


def trained_versions(
    registry: Registry, samples: Sequence[Sample], earlier: Sequence[Erasure]
) -> tuple[TrainedVersion, ...]:
    """Every version trained on one of the subject's samples, by adapter and number.

    `earlier` erasures of the subject bring the versions they found, whose descendants are sought anew. Rather too many
    versions are named than too few: a label or mask that came after an update counts as if it had been there.
    """
    training = [one for one in samples if one.split is Split.TRAIN and any(one.labelled_for(task) for task in Task)]
    arrived = {batch.number: batch.created_at for batch in registry.samples.batches()}
    known = _known(registry, earlier)
    found: list[TrainedVersion] = []
    for adapter in registry.adapters.names():
        hows = {number: how for (name, number), how in known.items() if name == adapter}
        versions = registry.adapters.list(adapter)
        by_number = {version.number: version for version in versions}
        for version in versions:
            parent = None if version.parent is None else by_number[version.parent]
            how = _directly(version, parent, training, arrived)
            # A closed form that was fitted anew has no version's weights in it; older records start from the parent.
            if how is None and version.record.get("start", version.parent) in hows:
                how = INHERITED
            if how is not None and hows.get(version.number, POSSIBLY) == POSSIBLY:
                hows[version.number] = how
        found += [TrainedVersion(adapter, number, how) for number, how in hows.items()]
    return tuple(sorted(found))


def _directly(
    version: AdapterVersion, parent: AdapterVersion | None, samples: Iterable[Sample], arrived: Mapping[int, datetime]
) -> str | None:
    """Whether one of the training samples was learnt as new or replayed; an experience is told by its batches."""
    site = version.record["experience"]["site"]
    here = [sample for sample in samples if sample.site == site]
    if any(has_learnt(version, sample) and not has_learnt(parent, sample) for sample in here):
        return LEARNT
    if parent is None:
        return None
    if version.record.get("past", version.strategy == JOINT) and any(
        sample.site in parent.trained_on and arrived[sample.batch] <= version.created_at for sample in samples
    ):
        return LEARNT
    remembered = {(site, digest) for site, digest in parent.record["memory"]}
    replayed = version.record.get("replayed", True) and any((s.site, s.digest) in remembered for s in samples)
    return REPLAYED if replayed else None


def _known(registry: Registry, earlier: Sequence[Erasure]) -> dict[tuple[str, int], str]:
    """What earlier erasures found, and what updates that ran beside them have made since."""
    running = {number for erasure in earlier for number in erasure.findings["running_updates"]}
    ended = [update for update in registry.updates.list(limit=1_000_000) if update.id in running] if running else []
    known = {(update.adapter, update.version): POSSIBLY for update in ended if update.version is not None}
    for erasure in earlier:
        known |= {(row["adapter"], row["version"]): row["how"] for row in erasure.findings["versions"]}
    return known
