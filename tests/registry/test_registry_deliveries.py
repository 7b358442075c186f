"""The outbox on both databases: there with its report or not at all, claimed by one, kept until taken or given up."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from continual.domain.drift import Action, DriftReport, Verdict
from continual.domain.errors import NotFoundError, RegistryError
from registry import DeliveryState, open_registry

REPORT = DriftReport("north", "north", Verdict.NO_DRIFT, Action.NONE, "Nothing changed.", 0.05, 9, 9, 9, 9, 0, ())
DESK, PAGER = "https://desk.example#00000001", "https://pager.example#00000002"
LEASE = timedelta(minutes=5)


def later(**passed):
    return datetime.now(UTC) + timedelta(**passed)


def test_a_report_comes_with_one_delivery_for_each_target_due_at_once(registry):
    registry.drift.add(REPORT, "monitor", [DESK, PAGER, DESK])
    queued = registry.deliveries.list()
    assert [(one.report, one.target, one.state, one.attempts) for one in queued] == [
        (1, DESK, DeliveryState.WAITING, 0),
        (1, PAGER, DeliveryState.WAITING, 0),
    ]
    assert len({one.id for one in queued}) == 2
    assert registry.deliveries.claim(DESK, later(), LEASE).id == queued[0].id


def test_a_ledger_that_a_wrong_clock_wrote_does_not_hold_deliveries_back(registry, monkeypatch):
    with monkeypatch.context() as wrong:

        class NextYear(datetime):
            @classmethod
            def now(cls, zone=None):
                return datetime.now(zone) + timedelta(days=365)

        wrong.setattr("registry.ledger.datetime", NextYear)
        registry.drift.add(REPORT, "monitor")
    filed = registry.drift.add(REPORT, "monitor", [DESK])
    assert filed.created_at > later(days=364)
    assert registry.deliveries.claim(DESK, later(), LEASE).report == filed.id


def test_a_report_that_is_refused_leaves_no_delivery(registry):
    with pytest.raises(RegistryError, match="target has 0 characters"):
        registry.drift.add(REPORT, "monitor", [DESK, ""])
    assert registry.drift.list() == []
    assert registry.deliveries.list() == []
    assert registry.ledger.verify() == 0


def test_a_claimed_delivery_is_nobody_elses_until_the_hold_is_over_and_keeps_its_id(registry):
    registry.drift.add(REPORT, "monitor", [DESK])
    first = registry.deliveries.claim(DESK, later(), LEASE)
    assert registry.deliveries.claim(DESK, later(minutes=4), LEASE) is None
    again = registry.deliveries.claim(DESK, later(minutes=6), LEASE)
    assert (again.id, again.attempts) == (first.id, 2)


def test_of_senders_that_come_together_each_delivery_has_one(registry):
    for _ in range(6):
        registry.drift.add(REPORT, "monitor", [DESK])

    def claim_all(_number):
        now, claimed = later(), []
        while (one := registry.deliveries.claim(DESK, now, LEASE)) is not None:
            claimed.append(one.report)
        return claimed

    with ThreadPoolExecutor(4) as pool:
        claimed = [report for found in pool.map(claim_all, range(4)) for report in found]
    assert sorted(claimed) == [1, 2, 3, 4, 5, 6]


def test_the_oldest_report_goes_first_and_only_to_the_target_that_asks(registry):
    for site in ("north", "south"):
        registry.drift.add(dataclasses.replace(REPORT, site=site), "monitor", [DESK, PAGER])
    assert [registry.deliveries.claim(DESK, later(), LEASE).report for _ in range(2)] == [1, 2]
    assert registry.deliveries.claim(DESK, later(), LEASE) is None
    assert registry.deliveries.claim(PAGER, later(), LEASE).report == 1


def test_what_was_taken_is_sent_no_more_even_if_a_slower_attempt_fails_afterwards(registry):
    registry.drift.add(REPORT, "monitor", [DESK])
    one = registry.deliveries.claim(DESK, later(), LEASE)
    registry.deliveries.delivered(one.id, later())
    registry.deliveries.failed(one.id, "HTTP 503", later())
    (kept,) = registry.deliveries.list()
    assert (kept.state, kept.last_error, kept.next_attempt_at) == (DeliveryState.DELIVERED, None, None)
    assert registry.deliveries.claim(DESK, later(days=30), LEASE) is None


def test_what_failed_is_due_at_its_time_and_not_before(registry):
    registry.drift.add(REPORT, "monitor", [DESK])
    one = registry.deliveries.claim(DESK, later(), LEASE)
    registry.deliveries.failed(one.id, "HTTP 503", later(hours=2))
    assert registry.deliveries.claim(DESK, later(hours=1), LEASE) is None
    assert registry.deliveries.claim(DESK, later(hours=3), LEASE).last_error == "HTTP 503"


def test_states_are_counted_and_listed(registry):
    for _ in range(4):
        registry.drift.add(REPORT, "monitor", [DESK])
    assert registry.deliveries.counts() == dict.fromkeys(DeliveryState, 0) | {DeliveryState.WAITING: 4}
    taken, failed, ended = [registry.deliveries.claim(DESK, later(), LEASE) for _ in range(3)]
    registry.deliveries.delivered(taken.id, later())
    registry.deliveries.failed(failed.id, "HTTP 503", later(hours=2))
    registry.deliveries.failed(ended.id, "refused (HTTP 404)", None)
    assert registry.deliveries.counts() == dict.fromkeys(DeliveryState, 1)
    for state, report in zip(DeliveryState, (4, 2, 1, 3), strict=True):
        assert [one.report for one in registry.deliveries.list(state)] == [report]


def test_what_nobody_took_in_time_is_given_up_whatever_its_target_and_can_be_queued_again(registry):
    registry.drift.add(REPORT, "monitor", [DESK, PAGER])
    one = registry.deliveries.claim(DESK, later(), LEASE)
    registry.deliveries.failed(one.id, "HTTP 503", later(hours=2))
    assert registry.deliveries.give_up(later(minutes=-1), "too late") == 0
    assert registry.deliveries.give_up(later(minutes=1), "too late") == 2
    assert [kept.last_error for kept in registry.deliveries.list(DeliveryState.GIVEN_UP)] == ["HTTP 503", "too late"]
    assert registry.deliveries.claim(DESK, later(days=9), LEASE) is None
    assert registry.deliveries.requeue(later()) == 2
    assert registry.deliveries.claim(DESK, later(seconds=1), LEASE).id == one.id


def test_a_delivery_that_is_not_there_is_named(registry):
    with pytest.raises(NotFoundError, match="there is no delivery nothing"):
        registry.deliveries.delivered("nothing", later())


def test_killed_before_the_commit_neither_report_nor_delivery_is_there_and_after_it_both(
    database, artifacts, start_child
):
    child = start_child("file_report", database, artifacts, 1, "before_commit")
    assert any("REACHED" in line for line in child.stdout)
    child.kill()
    child.wait()
    with open_registry(database, artifacts) as registry:
        assert (registry.drift.list(), registry.deliveries.list()) == ([], [])
    child = start_child("file_report", database, artifacts, 1, "after_filing")
    assert any("REACHED" in line for line in child.stdout)
    child.kill()
    child.wait()
    with open_registry(database, artifacts) as registry:
        assert len(registry.drift.list()) == 1
        assert registry.deliveries.claim(DESK, later(), LEASE).report == 1


def test_reports_are_counted_and_the_newest_is_read_by_site_and_adapter(registry):
    shifted = dataclasses.replace(REPORT, verdict=Verdict.COVARIATE_SHIFT, action=Action.LOG, adapter="cells")
    for report in (REPORT, shifted, REPORT, shifted, dataclasses.replace(shifted, site="south", adapter="other")):
        registry.drift.add(report, "monitor")
    assert registry.drift.counts() == {
        ("north", "", Verdict.NO_DRIFT): 2,
        ("north", "cells", Verdict.COVARIATE_SHIFT): 2,
        ("south", "other", Verdict.COVARIATE_SHIFT): 1,
    }
    newest = {of: report.id for of, report in registry.drift.latest_of_each().items()}
    assert newest == {("north", ""): 3, ("north", "cells"): 4, ("south", "other"): 5}
