"""Which version served after each site of a stream, and which one the references start from."""

from types import SimpleNamespace

import pytest

from continual.domain.adapters import AdapterState

ACCEPTED, REJECTED = AdapterState.ACCEPTED, AdapterState.REJECTED


def versions(*learnt):
    """Versions by the site that each learnt, and whether the gate let it pass."""
    return [
        SimpleNamespace(number=number, state=state, record={"experience": {"site": site}})
        for number, (site, state) in enumerate(learnt, start=1)
    ]


@pytest.mark.parametrize(
    ("learnt", "latest", "serving"),
    [
        ([("a", ACCEPTED), ("b", ACCEPTED), ("c", ACCEPTED)], 3, [1, 2, 3]),
        ([("a", ACCEPTED), ("b", REJECTED), ("c", ACCEPTED)], 3, [1, 1, 3]),
        # A site that was skipped, and one that was learnt again after the others.
        ([("a", ACCEPTED), ("c", ACCEPTED)], 2, [1, 1, 2]),
        ([("a", ACCEPTED), ("b", ACCEPTED), ("c", ACCEPTED), ("b", ACCEPTED)], 4, [1, 2, 4]),
        # A release that was refused and tried again; a rollback at the end.
        ([("a", REJECTED), ("a", ACCEPTED), ("b", ACCEPTED), ("c", ACCEPTED)], 4, [2, 3, 4]),
        ([("a", ACCEPTED), ("b", ACCEPTED), ("c", ACCEPTED)], 2, [1, 2, 2]),
    ],
)
def test_scores_follow_the_version_that_served_after_each_site_and_the_one_that_serves_now(
    libraries, learnt, latest, serving
):
    from flows.benchmarks.results import _in_service

    made = versions(*learnt)
    assert _in_service(made, made[latest - 1], ["a", "b", "c"]) == serving


def test_references_start_from_the_first_version_that_was_accepted(libraries):
    from flows.benchmarks.results import _accepted

    made = versions(("a", REJECTED), ("a", ACCEPTED), ("b", ACCEPTED))
    assert [version.number for version in _accepted(made)] == [2, 3]


def test_sites_come_in_the_order_of_learning_and_one_that_nobody_learnt_keeps_its_place(libraries):
    from flows.benchmarks.results import _as_learnt, _begun

    begun = _begun(versions(("a", ACCEPTED), ("b", REJECTED), ("c", ACCEPTED), ("b", ACCEPTED)))
    assert _as_learnt(["a", "b", "c"], begun) == ["a", "b", "c"]
    assert _as_learnt(["c", "quiet", "a", "b"], begun) == ["a", "quiet", "b", "c"]
