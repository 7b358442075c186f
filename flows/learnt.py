"""Which intake batches a version has learnt, by its record; knows nothing of networks.

A version learns all that a site had brought up to its last batch, but for batches that were held at the time.
"""

from collections.abc import Collection, Mapping
from typing import Any

from continual.domain.adapters import AdapterVersion
from continual.domain.samples import Sample


def learnt_batch(version: AdapterVersion, site: str) -> int:
    """Number of the last intake batch of `site` that the version was trained on; 0 for a site it never saw."""
    return int(version.record["learnt_batches"].get(site, 0))


def has_learnt(version: AdapterVersion | None, sample: Sample) -> bool:
    """Whether the sample's batch was among those that the version, or an ancestor, learnt."""
    return version is not None and has_learnt_batch(version, sample.site, sample.batch)


def has_learnt_batch(version: AdapterVersion, site: str, batch: int) -> bool:
    """The same of a batch by its number."""
    return batch <= learnt_batch(version, site) and batch not in _left_out(version.record, site)


def learnt_record(
    parent: AdapterVersion | None, site: str, last: int, held: Collection[int]
) -> dict[str, dict[str, Any]]:
    """What a version's record says of batches after it learnt `site` up to batch `last`, without those held then.

    What the parent has learnt stays learnt, whatever was held since.
    """
    learnt = {**(parent.record["learnt_batches"] if parent else {}), site: last}
    left_out = {**(parent.record.get("held_batches", {}) if parent else {})}
    new = [batch for batch in held if parent is None or not has_learnt_batch(parent, site, batch)]
    left_out[site] = sorted(batch for batch in new if batch <= last)
    return {"learnt_batches": learnt, "held_batches": {name: each for name, each in left_out.items() if each}}


def _left_out(record: Mapping[str, Any], site: str) -> Collection[int]:
    # Versions of the first release held nothing back.
    found: Collection[int] = record.get("held_batches", {}).get(site, ())
    return found
