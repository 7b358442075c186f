"""Updates a workspace in a process that is killed at a chosen moment: `kill_an_update.py MOMENT WORKSPACE ...`.

A moment is a name below, or the number of a training step after which the process stops. The libraries load once; each
update runs in a fork that stops at its moment, says so, and is killed there.
"""

import os
import signal
import sys
import time
from pathlib import Path

from flows.run import LEARN_ON_ANY_SHIFT
from flows.update import look_and_learn
from flows.updates import candidates
from registry.adapters import AdapterStore
from registry.updates import UpdateStore


def _stop(*_arguments: object) -> None:
    # In one piece: of threads that come here together, none may write into another's line.
    os.write(sys.stdout.fileno(), b"reached\n")
    time.sleep(600)


def _stop_at(moment: str) -> None:
    if moment.isdigit():
        _stop_after_step(int(moment))
    elif moment == "writing_a_state":
        _stop_before_renaming(5)
    elif moment == "choosing":
        # Candidates are trained and the plan's last is about to be; its steps move this bar.
        watched = candidates.track
        candidates.track = lambda text, total: _stop if text == "second: replay_lwf" else watched(text, total)
    elif moment == "before_registration":
        AdapterStore.register = _stop
    elif moment == "before_promotion":
        AdapterStore.promote = _stop
    elif moment == "after_promotion":
        UpdateStore.finish = _stop
    else:
        raise ValueError(moment)


def _stop_after_step(wanted: int) -> None:
    watched = candidates.track

    def track(description, total):
        # The bar of the update's own steps is named after site and strategy; it moves after each step.
        if description != "second: replay_ewc":
            return watched(description, total)
        done = []

        def advance(steps):
            done.append(steps)
            if sum(done) == wanted:
                _stop()

        return advance

    candidates.track = track


def _stop_before_renaming(wanted: int) -> None:
    """Stops when the state after that many steps is written, but has not yet taken the place of the one before."""
    written, replace = [], Path.replace

    def stop(path, target):
        written.append(path) if Path(target).parent.name == "training" else None
        if len(written) == wanted:
            _stop()
        return replace(path, target)

    Path.replace = stop


def kill_at(moment: str, workspace: str) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writable, 1)
        os.close(readable)
        _stop_at(moment)
        strategy = "auto" if moment == "choosing" else None
        look_and_learn(workspace, "cells", "second", strategy, LEARN_ON_ANY_SHIFT)
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as said:
        line = said.readline()
        reached = line == "reached\n"
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not reached or code != -signal.SIGKILL:
        sys.exit(f"the update said {line!r} and ended with {code} before it came to {moment}")


if __name__ == "__main__":
    for place in range(1, len(sys.argv), 2):
        kill_at(*sys.argv[place : place + 2])
