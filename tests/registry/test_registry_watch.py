"""Drift reports and update attempts on both databases."""

import dataclasses
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import (
    Action,
    CaseMix,
    DriftReport,
    EvidenceOverTime,
    PerformanceEvidence,
    RollingComparison,
    Signal,
    SignalFamily,
    Verdict,
)
from continual.domain.errors import ConflictError, NotFoundError, RegistryError, SettingsError

SIGNAL = Signal(SignalFamily.EMBEDDINGS, "mmd", "energy", 0.25, 0.001, 0.002, True, {"columns": [1, 2], "top": "kvp"})
REPORT = DriftReport(
    site="north",
    reference_site="north",
    verdict=Verdict.COVARIATE_SHIFT,
    action=Action.UPDATE,
    reason="Balanced accuracy fell from 0.81 to 0.62 on 40 labelled images.",
    alpha=0.05,
    reference_subjects=80,
    current_subjects=40,
    reference_samples=160,
    current_samples=60,
    quarantined=2,
    signals=(SIGNAL, dataclasses.replace(SIGNAL, family=SignalFamily.OUTPUTS, alarm=False, detail={})),
    smallest_detectable={"embeddings": 0.1},
    performance=PerformanceEvidence("balanced_accuracy", 0.81, 0.62, 40, for_training=30),
    over_time=EvidenceOverTime(55.0, 40.0, {"embeddings": 55.0}, {"embeddings": 20.8}, windows=3, since=2, called_at=2),
    case_mix=CaseMix(("benign", "malignant"), (0.9, 0.1), (0.6, 0.4), explains=False),
    rolling=RollingComparison(1, 2, 40, {"embeddings": 0.4}, level=0.025, differs=False),
    harmed=True,
    adapter="cells",
    version=3,
    batches=(4, 7),
)


def test_drift_report_comes_back_with_a_number_and_a_time(registry):
    stored = registry.drift.add(REPORT, "monitor")
    assert stored.id == 1
    assert abs(stored.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert dataclasses.replace(stored, id=None, created_at=None) == REPORT
    assert registry.drift.get(1) == stored
    assert isinstance(stored.signals[0].family, SignalFamily)


def test_report_without_performance_and_with_its_own_time_is_kept_so(registry):
    then = datetime(2026, 2, 1, tzinfo=UTC)
    stored = registry.drift.add(dataclasses.replace(REPORT, performance=None, signals=(), created_at=then), "monitor")
    assert (stored.performance, stored.signals, stored.created_at) == (None, (), then)


def test_of_two_looks_that_knew_the_same_reports_the_first_is_filed_and_what_others_filed_is_no_hindrance(registry):
    first = registry.drift.add(REPORT, "monitor", ["desk"], after=0)
    slower = dataclasses.replace(REPORT, reason="the same window, a second later")
    assert registry.drift.add(slower, "monitor", ["desk"], after=0) == first
    assert [queued.report for queued in registry.deliveries.list()] == [first.id]
    for other in ({"site": "south"}, {"adapter": "tissue"}, {"version": 4}):
        registry.drift.add(dataclasses.replace(REPORT, **other), "monitor", after=0)
    assert registry.drift.add(slower, "monitor", after=first.id).id == 5


def test_reports_are_listed_newest_first_by_site(registry):
    for site in ("north", "south", "north"):
        registry.drift.add(dataclasses.replace(REPORT, site=site), "monitor")
    assert [report.id for report in registry.drift.list()] == [3, 2, 1]
    assert [report.id for report in registry.drift.list("north", limit=1)] == [3]
    assert registry.drift.latest("south").id == 2
    assert registry.drift.latest("nowhere") is None
    with pytest.raises(NotFoundError, match="no drift report 4"):
        registry.drift.get(4)


def test_numpy_numbers_in_a_report_become_plain_and_nan_is_refused_by_its_place(registry):
    detail = {"score": np.float32(0.5), "count": np.int64(3), "curve": np.array([0.25, 0.5])}
    stored = registry.drift.add(dataclasses.replace(REPORT, signals=(dataclasses.replace(SIGNAL, detail=detail),)), "m")
    assert stored.signals[0].detail == {"score": 0.5, "count": 3, "curve": [0.25, 0.5]}
    broken = dataclasses.replace(SIGNAL, detail={"score": math.nan})
    with pytest.raises(RegistryError, match=r"report\.signals\[0\]\.detail\.score is nan"):
        registry.drift.add(dataclasses.replace(REPORT, signals=(broken,)), "monitor")
    assert registry.ledger.verify() == 1


def test_update_runs_until_it_is_finished_once(registry):
    plan = ChangePlan().as_record()
    begun = registry.updates.begin("lesion", "north", 3, plan, "flow")
    assert (begun.outcome, begun.parent, begun.version, begun.finished_at) == ("running", 3, None, None)
    assert begun.plan["strategies"] == ["replay_ewc"]
    ended = registry.updates.finish(begun.id, 4, "accepted", {"train": 12.5})
    assert (ended.outcome, ended.version, ended.seconds) == ("accepted", 4, {"train": 12.5})
    assert ended.finished_at >= ended.started_at
    assert registry.updates.finish(begun.id, 4, "accepted", {"train": 99.0}) == ended
    assert registry.updates.list() == [ended]
    with pytest.raises(ConflictError, match="ended accepted already"):
        registry.updates.finish(begun.id, None, "failed", {})


def test_beginning_again_marks_the_killed_attempt_interrupted(registry):
    killed = registry.updates.begin("lesion", "north", None, {}, "flow")
    other = registry.updates.begin("lesion", "south", None, {}, "flow")
    again = registry.updates.begin("lesion", "north", None, {}, "flow")
    assert {update.id: update.outcome for update in registry.updates.list()} == {
        killed.id: "interrupted",
        other.id: "running",
        again.id: "running",
    }
    assert [update.id for update in registry.updates.list("lesion", limit=1)] == [again.id]
    assert registry.updates.list("fracture") == []


def test_reaper_takes_only_what_is_old_and_still_running(registry):
    done = registry.updates.begin("lesion", "north", None, {}, "flow")
    registry.updates.finish(done.id, None, "skipped", {})
    registry.updates.begin("lesion", "south", None, {}, "flow")
    assert registry.updates.reap(timedelta(hours=1)) == 0
    assert registry.updates.reap(timedelta(0)) == 1
    assert registry.updates.reap(timedelta(0)) == 0
    assert [update.outcome for update in registry.updates.list()] == ["interrupted", "skipped"]


def test_attempt_thought_dead_may_still_report_its_end(registry):
    begun = registry.updates.begin("lesion", "north", None, {}, "flow")
    registry.updates.reap(timedelta(0))
    assert registry.updates.finish(begun.id, 2, "rejected", {}).outcome == "rejected"


def test_unknown_outcome_or_update_is_refused(registry):
    with pytest.raises(SettingsError, match="'done' is unknown"):
        registry.updates.finish(1, None, "done", {})
    with pytest.raises(NotFoundError, match="no update 1"):
        registry.updates.finish(1, None, "failed", {})
