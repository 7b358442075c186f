"""Take in new institutional data: a manifest or a DICOM folder, site by site, nothing twice."""

import shlex
from dataclasses import dataclass

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from continual.domain.adapters import CHAMPION, Task
from continual.domain.errors import NotFoundError
from continual.domain.metrics import task_of
from continual.domain.samples import MOST_MASK_CLASSES, IntakeSummary, QuarantineEntry
from continual.imaging import clean_images
from flows.progress import track
from flows.requests import Incoming
from flows.sources import read_source
from flows.workplace import Workplace, check_adapter, open_workplace


def take_in(
    workspace: str, incoming: Incoming, site: str, adapter: str | None, *, new_classes: bool = False
) -> IntakeSummary:
    """One site's files through quality gate and de-identification into the registry.

    A label, or a class number of a mask, that the adapter never saw is held back, unless `new_classes` or its change
    plan allows it. An adapter that is yet to be released saw nothing: then nothing is held back for it.
    """
    with open_workplace(workspace, create=True) as workplace:
        known = None if new_classes else _known_classes(workplace, adapter)
        offer = read_source(incoming, [site], known.labels if known else None)
        images, held = [], list(offer.problems)
        advance = track(f"{site}: ingest", len(offer.sources))
        for outcome in clean_images(offer.sources, workplace.key, known.of_masks if known else MOST_MASK_CLASSES):
            if isinstance(outcome, QuarantineEntry):
                held.append(outcome)
            else:
                images.append(outcome)
            advance(1)
        return workplace.registry.samples.record(site, images, held, workplace.actor)


@dataclass(frozen=True, slots=True)
class _KnownClasses:
    """What an adapter saw: labels (None: any will do) and class numbers of masks, from 1."""

    labels: tuple[str, ...] | None = None
    of_masks: int = MOST_MASK_CLASSES


def _known_classes(workplace: Workplace, adapter: str | None) -> _KnownClasses | None:
    if adapter is None:
        return None
    try:
        champion = workplace.registry.adapters.current(adapter, CHAMPION)
    except NotFoundError:
        return None
    if champion.record["options"]["plan"].get("new_classes"):
        return None
    if task_of(champion.metric) is Task.SEGMENTATION:
        return _KnownClasses(of_masks=len(champion.classes))
    return _KnownClasses(labels=champion.classes)


def check_in_service(workspace: str, adapter: str | None) -> None:
    """Raise NotFoundError for an adapter that has no champion to say which labels are known; None is allowed."""
    if adapter is None:
        return
    with open_workplace(workspace, create=True) as workplace:
        check_adapter(workplace, adapter)
        workplace.registry.adapters.current(adapter, CHAMPION)


@task(name="ingest site", cache_policy=NO_CACHE)
def ingest_site(
    workspace: str, incoming: Incoming, site: str, adapter: str | None, *, new_classes: bool = False
) -> IntakeSummary:
    """One site's intake as a Prefect task."""
    return take_in(workspace, incoming, site, adapter, new_classes=new_classes)


@flow(name="ingest", validate_parameters=True)
def ingest(
    workspace: str,
    source: str,
    labels: str | None = None,
    sites: list[str] | None = None,
    adapter: str | None = None,
    *,
    new_classes: bool = False,
) -> list[IntakeSummary]:
    """Ingest every site of a manifest or DICOM folder. Running it again stores nothing twice.

    Raises NotFoundError, before anything is taken in, for an adapter that is not there.
    """
    check_in_service(workspace, adapter)
    incoming = Incoming(source, labels)
    names = sites or list(read_source(incoming, []).sites)
    return [ingest_site(workspace, incoming, site, adapter, new_classes=new_classes) for site in names]


def intake_line(summary: IntakeSummary) -> str:
    """What an intake did to one site, in one line."""
    relabelled = f", {summary.relabelled} relabelled" if summary.relabelled else ""
    why = f" (why: continual quarantine {shlex.quote(summary.site)})" if summary.quarantined else ""
    return (
        f"{summary.site}: {summary.new} new, {summary.duplicates} already stored{relabelled}, "
        f"{summary.quarantined} quarantined{why}"
    )
