"""Kills a process while it lets images go, at a chosen moment: `kill_letting_go.py MOMENT WORKSPACE ...`.

Forks and kills as `kill_an_update.py` beside it does.
"""

import itertools
import sys
from collections.abc import Callable
from typing import Any

import kill_an_update

from continual.learning import kept_files
from flows.updates import letting_go
from registry import images
from registry.artifacts import ArtifactStore
from registry.images import LET_GO, ImageStore


def _stop_after(calls: int, inner: Callable[..., Any]) -> Callable[..., Any]:
    count = itertools.count(1)

    def counted(*arguments: Any) -> Any:
        if next(count) >= calls:
            kill_an_update._stop()
        return inner(*arguments)

    return counted


def _stop_at(moment: str) -> None:
    if moment == "in_keeping":
        kept_files._keep = _stop_after(40, kept_files._keep)
    elif moment == "before_deletion":
        ImageStore.let_go = kill_an_update._stop
    elif moment == "in_deletion":
        ArtifactStore.delete = _stop_after(30, ArtifactStore.delete)
    elif moment == "before_the_entry":
        append = images.ledger.append

        def stop_at_entry(session: Any, at: Any, actor: str, event: str, payload: Any) -> None:
            if event == LET_GO:
                kill_an_update._stop()
            append(session, at, actor, event, payload)

        images.ledger.append = stop_at_entry
    elif moment == "before_forgetting":
        letting_go._forget = kill_an_update._stop
    else:
        raise ValueError(moment)


if __name__ == "__main__":
    kill_an_update._stop_at = _stop_at
    for place in range(1, len(sys.argv), 2):
        kill_an_update.kill_at(*sys.argv[place : place + 2])
