"""The main job: release on the first site, then ingest, check, learn, gate and register every later one.

An adapter that is in service already is not released again: then every site is a later one.
"""

import time
from typing import Any

from prefect import flow

from continual.domain.drift import Action
from flows.ingest import ingest_site, intake_line
from flows.progress import say
from flows.requests import Incoming, Release
from flows.update import check_before_release, is_in_service, release_adapter, update_site
from flows.updates.occasions import LEARN_ON, Occasion

# Whoever runs a stream by hand asks for every shifted site to be learnt, harm or not, one after the other.
LEARN_ON_ANY_SHIFT = Occasion((*LEARN_ON.actions, Action.LOG), paced=False)


@flow(name="run")
def run(
    workspace: str, incoming: Incoming, sites: list[str], wanted: Release, strategy: str | None = None
) -> dict[str, Any]:
    """Seconds per phase and, per site, what was taken in and what was learnt."""
    kept = check_before_release(workspace, wanted, strategy)
    if kept:
        say(f"adapter {wanted.adapter} keeps the options of its release: {', '.join(kept)}")
    seconds: dict[str, float] = {"ingest": 0.0, "release": 0.0, "update": 0.0}
    intake, learnt = {}, {}
    allowed = bool(wanted.options["plan"].get("new_classes"))
    for site in sites:
        started = time.perf_counter()
        summary = intake[site] = ingest_site(workspace, incoming, site, wanted.adapter, new_classes=allowed)
        say(intake_line(summary) + ("" if summary.new or summary.relabelled else "; nothing ingested twice"))
        ended = time.perf_counter()
        seconds["ingest"] += ended - started
        if not is_in_service(workspace, wanted.adapter):
            number = release_adapter(workspace, site, wanted)
            learnt[site] = f"version {number}"
            seconds["release"] += time.perf_counter() - ended
        else:
            learnt[site] = update_site(
                workspace, wanted.adapter, site, strategy, LEARN_ON_ANY_SHIFT, new_classes=allowed
            )
            seconds["update"] += time.perf_counter() - ended
        say(f"{site}: {learnt[site]}")
    return {"seconds": seconds, "intake": intake, "learnt": learnt}
