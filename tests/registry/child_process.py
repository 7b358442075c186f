"""What the registry's tests run in processes of their own, to be killed or to race; also makes their test pictures.

Run as a program it is a nursery: it loads the libraries once, holds nothing open, and forks a child for each line.
"""

import hashlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from continual.domain.adapters import CHAMPION, GateDecision, VersionDraft
from continual.domain.drift import Action, DriftReport, Verdict
from continual.domain.samples import CleanImage
from registry import ErasureOrder, Registry, open_registry

ACCEPTED = GateDecision(accepted=True, findings=(), margin=-0.05, confidence=0.9)


def make_images(count, site="north", labels=("benign", "malignant"), size_bytes=3000, start=0):
    """Pictures in name only: random bytes stand for a PNG, because the registry never looks inside."""
    rng = np.random.default_rng([start, size_bytes])
    return [
        CleanImage(
            digest=hashlib.sha256(f"pixels {number}".encode()).hexdigest(),
            site=site,
            subject=f"subject-{number}",
            label=labels[number % len(labels)] if labels else None,
            data=rng.bytes(size_bytes),
            width=64,
            height=48,
            tags={"manufacturer": "Acme", "kvp": 120.0},
            pixel_statistics={"mean": 0.5 + number, "noise": 0.01},
        )
        for number in range(start, start + count)
    ]


def make_draft(parent=None, adapter="lesion"):
    return VersionDraft(
        adapter=adapter,
        parent=parent,
        strategy="replay_ewc",
        backbone_digest="b" * 64,
        trained_on=("north", "south"),
        classes=("benign", "malignant"),
        metric="balanced_accuracy",
        metrics={"south": 0.75, "north": 0.5},
        record={"seed": 7, "matrix": [[0.5, None], [0.5, 0.75]]},
    )


def make_files(text="weights"):
    return {
        "adapter_model.safetensors": text.encode() * 100,
        "adapter_config.json": b"{}",
        "README.md": b"# card",
        "record.json": b"{}",
    }


def _announce_and_hang(*_args, **_kwargs):
    print("REACHED", flush=True)
    time.sleep(600)


def _hang_at(place):
    """Stops this process at its most delicate moment, so that the test can kill it exactly there."""
    if place == "before_rename":
        Path.replace = _announce_and_hang
    if place == "before_deletion":
        from registry.artifacts import ArtifactStore

        ArtifactStore.delete = _announce_and_hang
    if place == "before_commit":
        from registry import ledger

        append = ledger.append

        def append_then_hang(session, *args):
            append(session, *args)
            session.flush()
            _announce_and_hang()

        ledger.append = append_then_hang


def _run(registry: Registry, verb, count):
    if verb == "record":
        print("START", flush=True)
        summary = registry.samples.record("north", make_images(count), [], "child")
        print(f"new={summary.new} duplicates={summary.duplicates}", flush=True)
    if verb == "register":
        version = registry.adapters.register(make_draft(), make_files(), "child")
        print(f"number={version.number}", flush=True)
    if verb == "promote":
        print(registry.adapters.promote("lesion", 1, ACCEPTED, CHAMPION, "child", "gate passed").state, flush=True)
    if verb == "erase":
        registry.erasures.erase(ErasureOrder("north", "subject-1", "child", "the patient withdrew consent"))
        print("erased", flush=True)
    if verb == "file_report":
        report = DriftReport("north", "north", Verdict.NO_DRIFT, Action.NONE, "Nothing.", 0.05, 9, 9, 9, 9, 0, ())
        registry.drift.add(report, "child", ["https://desk.example#00000001"])
        _announce_and_hang()
    if verb == "updates":
        for number in range(count):
            begun = registry.updates.begin("lesion", f"site-{number}", None, {}, "child")
            registry.updates.finish(begun.id, None, "skipped", {"all": 0.1})
        print("done", flush=True)


def main(verb, database_url, artifacts_url, count="0", place=""):
    if place == "small_files_only":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
        with open_registry(database_url, artifacts_url) as registry:
            try:
                registry.samples.record("north", make_images(1, size_bytes=int(count)), [], "child")
            except Exception as error:  # noqa: BLE001  the test reads which
                print(type(error).__name__, flush=True)
        return
    with open_registry(database_url, artifacts_url) as registry:
        _hang_at(place)
        _run(registry, verb, int(count))
        if verb == "open":
            print("opened", flush=True)


def _child(output, arguments):
    code = 1
    try:
        os.dup2(os.open(output, os.O_WRONLY), 1)
        main(*arguments)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def nursery():
    """Answers each order, one JSON value a line: a list starts a child and gives its id, an id waits for its end."""
    import alembic.command  # noqa: F401  what a child would spend a second on
    import psycopg  # noqa: F401
    from sqlalchemy.orm import configure_mappers

    import registry.registry  # noqa: F401

    configure_mappers()
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
            continue
        number = os.fork()
        if number == 0:
            _child(order[0], order[1:])
        print(number, flush=True)


if __name__ == "__main__":
    nursery()
