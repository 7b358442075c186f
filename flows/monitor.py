"""Look at every site's new samples against the champion's references and file a drift report."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from continual.domain.drift import DriftReport
from flows.alerting.alerts import send_after_look
from flows.drift.looks import look_at_site
from flows.every_site import sites_to_visit, visit_each
from flows.progress import say
from flows.updates.adapter_context import context_of
from flows.workplace import open_workplace


def look(workspace: str, adapter: str, site: str, *, now: bool) -> DriftReport | None:
    """One look at one site; None when nothing arrived since the champion learnt it, or too little for a look."""
    with open_workplace(workspace) as workplace:
        context = context_of(workplace, adapter)
        champion = workplace.registry.adapters.current(adapter)
        return look_at_site(context, champion, site, now=now)


@task(name="monitor site", cache_policy=NO_CACHE)
def monitor_site(workspace: str, adapter: str, site: str, *, now: bool) -> DriftReport | None:
    """One look as a Prefect task."""
    return look(workspace, adapter, site, now=now)


@task(name="send alerts", cache_policy=NO_CACHE)
def send_alerts(workspace: str) -> None:
    """Send what earlier looks could not, as a Prefect task."""
    with open_workplace(workspace) as workplace:
        send_after_look(workplace)


@flow(name="monitor", validate_parameters=True)
def monitor(workspace: str, adapter: str, site: str | None = None, *, now: bool = False) -> dict[str, str]:
    """Site to verdict for one site or all; sites without a window to look at are left out.

    A window closes when the change plan says that a look is due; with `now` as soon as it has the fewest subjects.
    A site that fails keeps no other from its turn; the flow fails after the last one.
    """
    with open_workplace(workspace) as workplace:
        sites = sites_to_visit(workplace, adapter, site)

    def looked(name: str) -> str | None:
        report = monitor_site(workspace, adapter, name, now=now)
        verdict = None if report is None else report.verdict.value
        if verdict is not None:
            say(f"{name}: {verdict}")
        return verdict

    try:
        verdicts = visit_each(sites, looked)
    finally:
        send_alerts(workspace)
    return {name: verdict for name, verdict in verdicts.items() if verdict is not None}
