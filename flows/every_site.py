"""The sites that a scheduled flow goes over, one after the other; one that fails keeps no other from its turn."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from continual.domain.errors import ContinualError
from flows.progress import say
from flows.updates.adapter_context import context_of
from flows.workplace import Workplace, check_site

Outcome = TypeVar("Outcome")


def sites_to_visit(workplace: Workplace, adapter: str, site: str | None) -> list[str]:
    """The site named, or every one that does not hold what the adapter never looks at (volumes, or images) alone.

    Raises NotFoundError for an unknown adapter or site.
    """
    context = context_of(workplace, adapter)
    check_site(workplace, site)
    return [site] if site else [name for name in workplace.registry.samples.sites() if context.looks_at(name)]


def visit_each(sites: Sequence[str], work: Callable[[str], Outcome]) -> dict[str, Outcome]:
    """What the work gives for every site.

    Raises ContinualError when all have had their turn and some failed: the error of a single site as it was, else one
    that tells of each.
    """
    done: dict[str, Outcome] = {}
    failed: dict[str, ContinualError] = {}
    for site in sites:
        try:
            done[site] = work(site)
        except ContinualError as error:
            failed[site] = error
            say(f"{site}: failed")
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        told = " | ".join(f"{site}: {error}" for site, error in failed.items())
        raise ContinualError(f"{len(failed)} of {len(sites)} sites failed. {told}")
    return done
