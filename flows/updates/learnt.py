"""Which intake batches a version has learnt, by its record; knows nothing of networks."""

from collections.abc import Collection
from typing import Any

from continual.domain.adapters import AdapterVersion, records_learnt
from continual.domain.samples import Sample


def has_learnt(version: AdapterVersion | None, sample: Sample) -> bool:
    """Whether the sample's batch was among those that the version, or an ancestor, learnt."""
    return version is not None and has_learnt_batch(version, sample.site, sample.batch)


def has_learnt_batch(version: AdapterVersion, site: str, batch: int) -> bool:
    """The same of a batch by its number."""
    return records_learnt(version.record, site, batch)


def learnt_record(
    parent: AdapterVersion | None, site: str, last: int, held: Collection[int]
) -> dict[str, dict[str, Any]]:
    """What a version's record says of batches after it learnt `site` up to batch `last`, without those held then.

    What the parent has learnt stays learnt, whatever was held since, also where `last` is an old batch, released late.
    """
    learnt = dict(parent.record["learnt_batches"]) if parent else {}
    last = learnt[site] = max(last, learnt.get(site, 0))
    left_out = {**(parent.record.get("held_batches", {}) if parent else {})}
    new = [batch for batch in held if parent is None or not has_learnt_batch(parent, site, batch)]
    left_out[site] = sorted(batch for batch in new if batch <= last)
    return {"learnt_batches": learnt, "held_batches": {name: each for name, each in left_out.items() if each}}
