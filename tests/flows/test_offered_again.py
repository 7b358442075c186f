"""A manifest that is read again every night: what was offered before neither hides a fault nor makes one."""

from datetime import UTC, datetime, timedelta

import numpy as np
from PIL import Image

from continual.domain.drift import Verdict
from registry import Batch

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def emptied(desk, rows):
    """Pictures without anything on them, which the quality gate refuses."""
    for row in rows:
        Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(desk.folder / row.path)
    return rows


def look(desk):
    from flows.monitor import look as look_at

    return look_at(desk.workspace, "cells", "first", now=False)


def test_what_is_offered_again_every_night_hides_no_broken_scanner(libraries):
    from flows.drift.arrivals import Arrivals, Stretch

    # A thousand known files are named again each night; then come twenty new ones, all of them refused.
    batches = [
        Batch(night, "north", BEGAN + timedelta(days=night), new, 1000, quarantined, "ingest")
        for night, new, quarantined in ((1, 0, 20), (2, 2, 0))
    ]
    arrivals = Arrivals("north", batches, [])
    asked = [arrivals.intake(Stretch((night,), [])) for night in (1, 2)]
    assert [(intake.offered, intake.quarantined) for intake in asked] == [(20, 20), (2, 0)]


def test_a_broken_night_is_a_fault_also_behind_a_manifest_of_known_files(released):
    manifest = released.cells("first", tuple(f"u{number}" for number in range(60)), seed=70)
    released.take_in(manifest, "first", "cells")
    assert look(released).verdict is Verdict.NO_DRIFT
    manifest += emptied(released, released.cells("first", tuple(f"v{number}" for number in range(6)), seed=77))
    summary = released.take_in(manifest, "first", "cells")
    assert (summary.new, summary.duplicates, summary.quarantined) == (0, 120, 12)
    report = look(released)
    assert report.verdict is Verdict.DATA_FAULT
    assert "held back 12 of 12 images" in report.reason


def test_files_that_are_refused_one_night_and_welcome_the_next_are_no_fault(released, stream, monkeypatch):
    monkeypatch.setitem(stream.COLOURS, "green", (60.0, 150.0, 70.0))
    manifest = released.cells("first", tuple(f"g{number}" for number in range(40)), seed=5)
    refused = released.take_in(manifest, "first", "cells").quarantined
    assert refused > 0.2 * len(manifest)
    assert released.take_in(manifest, "first", "cells", new_classes=True).new == refused
    report = look(released)
    assert report is None or report.verdict is not Verdict.DATA_FAULT
