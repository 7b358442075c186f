"""Successive looks at a site: windows that close once, evidence that adds up, and judging again when labels come."""

from dataclasses import replace

from continual.domain.drift import Action, Verdict


def arrive(desk, first, last, *, site="first", seed=50, labelled=True):
    """Two pictures each of subjects u<first> to u<last - 1>, in one intake."""
    rows = desk.cells(site, tuple(f"u{number}" for number in range(first, last)), seed=seed + first)
    if not labelled:
        rows = [replace(row, label="") for row in rows]
    desk.take_in(rows, site, "cells")


def look(desk, site="first", *, now=False):
    from flows.monitor import look as look_at

    return look_at(desk.workspace, "cells", site, now=now)


def test_a_scheduled_look_waits_for_the_plans_window_and_one_by_hand_does_not(released):
    arrive(released, 0, 12)
    assert look(released) is None
    assert look(released, now=True).current_subjects == 12


def test_a_window_that_is_old_enough_is_looked_at_if_it_can_be_tested_and_the_last_stands_until_then(desk):
    desk.take_in(desk.cells("first"), "first")
    assert desk.release(window_days=0.0) == "accepted"
    arrive(desk, 0, 4, labelled=False)
    assert look(desk).verdict is Verdict.INSUFFICIENT_DATA
    arrive(desk, 4, 12, labelled=False)
    first = look(desk)
    assert (first.current_subjects, first.over_time.windows) == (12, 1)
    arrive(desk, 12, 16, labelled=False)
    assert look(desk) == first


def test_each_window_closes_once_and_evidence_adds_up_over_them(released):
    arrive(released, 0, 20)
    first = look(released)
    arrive(released, 20, 45)
    second = look(released)
    assert [report.current_subjects for report in (first, second)] == [20, 25]
    assert max(first.batches) < min(second.batches)
    assert [report.over_time.windows for report in (first, second)] == [1, 2]
    assert (second.adapter, second.version) == ("cells", 1)
    assert second.verdict is Verdict.NO_DRIFT, second.reason


def test_the_list_of_looks_tells_evidence_and_verdict_within_a_terminal(released):
    from rich.console import Console

    from flows.commands.terminal import show_looks, show_report

    arrive(released, 0, 20)
    report = look(released)
    console = Console(width=80, record=True)
    show_looks(console, [report])
    show_report(console, report)
    said = console.export_text()
    assert "20 / 16" in said
    assert f"{report.over_time.value:.3g} of 40" in said
    assert "no_drift" in said
    assert "Evidence since the promotion" in said
    assert max(len(line) for line in said.splitlines()) <= 80


def test_a_look_at_nothing_new_is_the_last_report_and_files_no_other(released):
    arrive(released, 0, 20)
    first = look(released)
    assert look(released) == first
    arrive(released, 20, 24, labelled=False)
    assert look(released, now=True) == first
    with released.registry() as registry:
        assert len(registry.drift.list("first")) == 1


def test_a_subject_who_returns_is_no_new_evidence(released):
    arrive(released, 0, 20)
    look(released)
    rows = released.cells("first", tuple(f"u{number}" for number in range(10, 45)), seed=99)
    released.take_in(rows, "first", "cells")
    assert look(released).current_subjects == 25


def test_a_site_that_drifted_stays_so_in_later_windows_until_a_promotion(released):
    arrive(released, 0, 24, site="second", labelled=False)
    assert look(released, "second").verdict is Verdict.COVARIATE_SHIFT
    arrive(released, 24, 48, site="second", labelled=False)
    again = look(released, "second")
    assert (again.verdict, again.over_time.windows, again.over_time.called_at) == (Verdict.COVARIATE_SHIFT, 2, 1)


def test_labels_that_come_late_judge_the_last_window_again_without_new_evidence(released):
    arrive(released, 0, 24, site="second", labelled=False)
    asked = look(released, "second")
    assert (asked.verdict, asked.action) == (Verdict.COVARIATE_SHIFT, Action.REQUEST_LABELS)
    rows = released.cells("second", tuple(f"u{number}" for number in range(24)), seed=50)
    released.take_in(rows, "second", "cells")
    judged = look(released, "second")
    assert judged.performance.labelled > 0
    assert judged.action is not Action.REQUEST_LABELS or "labelled training samples" in judged.reason
    assert judged.over_time == asked.over_time
    assert judged.batches == asked.batches
