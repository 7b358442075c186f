"""Take in new institutional data: a manifest or a DICOM folder, site by site, nothing twice."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from continual.domain.adapters import CHAMPION, Task
from continual.domain.errors import NotFoundError
from continual.domain.metrics import task_of
from continual.domain.samples import IntakeSummary, QuarantineEntry
from continual.imaging import clean_images
from flows.progress import track
from flows.requests import Incoming
from flows.sources import read_source
from flows.workplace import Workplace, open_workplace


def take_in(
    workspace: str, incoming: Incoming, site: str, adapter: str | None, *, new_classes: bool = False
) -> IntakeSummary:
    """One site's files through quality gate and de-identification into the registry.

    A label that the adapter never saw is held back, unless `new_classes` or its change plan allows it.
    """
    with open_workplace(workspace, create=True) as workplace:
        offer = read_source(incoming, [site], None if new_classes else _known_labels(workplace, adapter))
        images, held = [], list(offer.problems)
        advance = track(f"{site}: ingest", len(offer.sources))
        for outcome in clean_images(offer.sources, workplace.key):
            if isinstance(outcome, QuarantineEntry):
                held.append(outcome)
            else:
                images.append(outcome)
            advance(1)
        return workplace.registry.samples.record(site, images, held, workplace.actor)


def _known_labels(workplace: Workplace, adapter: str | None) -> tuple[str, ...] | None:
    if adapter is None:
        return None
    try:
        champion = workplace.registry.adapters.current(adapter, CHAMPION)
    except NotFoundError:
        return None
    if task_of(champion.metric) is Task.SEGMENTATION:
        return None
    return None if champion.record["options"]["plan"].get("new_classes") else champion.classes


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
    """Ingest every site of a manifest or DICOM folder. Running it again stores nothing twice."""
    incoming = Incoming(source, labels)
    names = sites or list(read_source(incoming, []).sites)
    return [ingest_site(workspace, incoming, site, adapter, new_classes=new_classes) for site in names]
