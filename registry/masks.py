"""Masks of stored samples: which one counts now, and which a later intake replaced; knows nothing of what they show.

A replaced mask stays in the store: a version may have learnt from it, and whoever erases a subject must find it.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.orm import Session

from continual.domain.digests import sha256_bytes
from continual.domain.samples import CleanImage
from registry.database import chunks
from registry.tables import ReplacedMaskRow, SampleRow

_OF_SAMPLE = and_(ReplacedMaskRow.site == SampleRow.site, ReplacedMaskRow.digest == SampleRow.digest)


def mask_address(image: CleanImage) -> str | None:
    """Where an image's mask lies, or will lie, in the artifact store; None without one."""
    return None if image.mask_data is None else sha256_bytes(image.mask_data)


def write_masks(session: Session, site: str, masks: Mapping[str, str], batch: int) -> None:
    """Give stored samples, by digest, the masks at these addresses; the batch that replaced one is kept beside it."""
    for digest, mask in masks.items():
        at_sample = (SampleRow.site == site, SampleRow.digest == digest)
        before = session.scalar(select(SampleRow.mask).where(*at_sample))
        if before is not None and session.get(ReplacedMaskRow, (site, digest, before)) is None:
            session.execute(insert(ReplacedMaskRow).values(site=site, digest=digest, mask=before, batch=batch))
        session.execute(update(SampleRow).where(*at_sample).values(mask=mask))


def masks_of(session: Session, whose: ColumnElement[bool]) -> set[str]:
    """Addresses of all masks, in use or replaced, of the samples that the condition names."""
    current = select(SampleRow.mask).where(whose, SampleRow.mask.is_not(None))
    replaced = select(ReplacedMaskRow.mask).join(SampleRow, _OF_SAMPLE).where(whose)
    return {mask for query in (current, replaced) for mask in session.scalars(query) if mask is not None}


def used_masks(session: Session, addresses: Sequence[str], whose: ColumnElement[bool]) -> set[str]:
    """Those of the addresses that are masks, in use or replaced, of the samples that the condition names."""
    found: set[str] = set()
    for keys in chunks(addresses):
        current = select(SampleRow.mask).where(whose, SampleRow.mask.in_(keys))
        replaced = select(ReplacedMaskRow.mask).join(SampleRow, _OF_SAMPLE).where(whose, ReplacedMaskRow.mask.in_(keys))
        found |= {mask for query in (current, replaced) for mask in session.scalars(query) if mask is not None}
    return found


def drop_replaced(session: Session, site: str, digests: Sequence[str]) -> None:
    """Forget which masks of these samples were replaced, so that the samples themselves can go."""
    for keys in chunks(digests):
        session.execute(delete(ReplacedMaskRow).where(ReplacedMaskRow.site == site, ReplacedMaskRow.digest.in_(keys)))
