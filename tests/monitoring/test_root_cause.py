"""The card: a planted tag or pixel shift is found with its window, and nothing is said where nothing shifted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import SignalFamily, Verdict
from monitoring import Intake, Past, look
from monitoring.change_points import change_point
from monitoring.root_cause import Stretch, root_cause

CLEAN = Intake(offered=100, quarantined=0)
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def week(make_window):
    """One window: `maker` the scanner, `darker` subtracted from the grey levels, `moved` from the embeddings."""

    def make(seed, count=40, *, maker="acme", darker=0.0, moved=0.0, tags=True):
        generator = np.random.default_rng(seed)
        levels = generator.normal(120, 10, size=count) - darker
        window = make_window(
            generator.normal(moved, size=(count, 4)),
            subjects=[f"{seed}-{number}" for number in range(count)],
            tags=[{"maker": maker, "kvp_kv": float(generator.choice([90, 110]))} if tags else {} for _ in range(count)],
            pixels=[{"mean": float(level), "noise": float(generator.normal(5))} for level in levels],
        )
        digests = tuple(f"{seed:032x}{number:032x}" for number in range(count))
        return replace(window, samples=digests, arrived=BEGAN + timedelta(weeks=seed))

    return make


def card(reference, windows, shifted=1, strongest=SignalFamily.EMBEDDINGS):
    return root_cause(reference, Stretch(tuple(windows), shifted, strongest), ChangePlan())


def test_a_planted_tag_and_a_planted_pixel_shift_are_named_with_their_windows_and_the_tag_first(week):
    windows = [week(1), week(2), week(3, maker="bolt"), week(4, maker="bolt", darker=25)]
    found = card(week(0, 200), windows, shifted=3)
    assert [shift.name for shift in found.shifts] == ["maker", "mean"]
    maker, mean = found.shifts
    assert (maker.usual, maker.now, maker.score) == ("acme (100 %)", "bolt (100 %)", 1.0)
    assert (maker.since_window, maker.since_date) == (3, BEGAN + timedelta(weeks=3))
    assert mean.family is SignalFamily.PIXEL_STATISTICS
    assert mean.since_window == 4
    assert mean.usual.startswith("median 12")
    assert mean.now.startswith("median 9")
    assert found.said.startswith("tag maker moved most, from acme (100 %) to bolt (100 %), since window 3 (2026-03-23)")


def test_the_window_of_a_step_is_found_in_nine_of_ten_sites(week):
    hits = 0
    for site in range(20):
        windows = [week(100 * site + number, darker=12 * (number >= 4)) for number in range(1, 7)]
        shift = card(week(100 * site, 200), windows, shifted=4).shifts[0]
        hits += (shift.name, shift.since_window) == ("mean", 4)
    assert hits >= 18


def test_without_a_shift_the_card_names_no_property_at_its_level(week):
    # At a level of .025 a site in forty may name something; over 40 sites more than 4 have probability .003.
    named = sum(bool(card(week(1000 + site, 100), [week(site, 40)]).shifts) for site in range(40))
    assert named <= 4


def test_embeddings_that_moved_alone_are_said_to_have_and_the_farthest_images_are_theirs(week):
    current = week(1, moved=0.0)
    odd = np.array([3, 17, 30, 31])
    current.embeddings[odd] += 9.0
    found = card(week(0, 200), [current])
    assert found.shifts == ()
    assert "mostly in the embeddings" in found.said
    assert set(found.farthest) == {current.samples[row] for row in odd}
    assert not set(found.farthest) & set(found.nearest)
    assert len(found.usual) == 4


def test_examples_are_one_image_of_each_subject(week):
    current = week(1, 12)
    current = replace(current, subjects=tuple(f"s{row // 4}" for row in range(12)))
    found = card(week(0), [current])
    owners = [current.subjects[current.samples.index(digest)] for digest in (*found.nearest, *found.farthest)]
    assert sorted(owners) == ["s0", "s1", "s2"]


def test_a_window_of_one_subject_gives_a_card_that_blames_nothing(week):
    current = week(1, 1, maker="bolt", darker=80)
    found = card(week(0), [current], strongest=None)
    assert found.shifts == ()
    assert found.farthest == current.samples
    assert found.nearest == ()


def test_tags_that_are_missing_are_named_and_windows_without_digests_show_no_images(week):
    found = card(week(0), [replace(week(1, tags=False), samples=())])
    assert [(shift.name, shift.usual, shift.now) for shift in found.shifts] == [
        ("kvp_kv is recorded", "yes (100 %)", "no (100 %)"),
        ("maker", "acme (100 %)", "(not recorded) (100 %)"),
    ]
    assert (found.usual, found.nearest, found.farthest) == ((), (), ())


def test_erased_windows_keep_their_numbers(week):
    windows = [week(1), None, week(3), week(4, maker="bolt"), week(5, maker="bolt")]
    assert card(week(0), windows, shifted=4).shifts[0].since_window == 4


def test_equal_columns_are_told_once(week):
    def grey(window):
        rows = tuple({"mean": row["mean"], "mean_red": row["mean"]} for row in window.pixel_statistics)
        return replace(window, pixel_statistics=rows)

    found = card(grey(week(0, 100)), [grey(week(1, darker=30))])
    assert [shift.name for shift in found.shifts] == ["mean"]


def test_since_when_cannot_be_told_of_a_handful_of_subjects():
    assert change_point([0.0, 1.0], [[1.5], [2.0]]) is None


def test_a_property_that_changes_in_two_steps_began_with_the_first():
    generator = np.random.default_rng(0)
    levels = [0, 0, 4, 4, 12, 12]
    windows = [list(generator.normal(level, size=20)) for level in levels]
    assert change_point(list(generator.normal(size=100)), windows) == 3
    shares = [["bolt"] * (20 * level // 12) + ["acme"] * (20 - 20 * level // 12) for level in levels]
    assert change_point(["acme"] * 100, shares) == 3


def test_a_change_between_reference_and_first_window_is_of_window_one():
    assert change_point([1.0, 2.0, 3.0] * 5, [[8.0, 9.0] * 5, [8.5, 9.5] * 5, [7.0, 8.0] * 5]) == 1
    assert change_point(["a"] * 9, [["a"] * 9, [], ["b"] * 9]) == 3
    assert change_point([], [["a"]]) is None


def test_a_look_that_called_drift_has_a_card_and_a_quiet_one_has_none(week):
    plan = ChangePlan(permutations=199)
    quiet = look([week(0, 100)], week(1), plan, CLEAN)
    assert (quiet.verdict, quiet.root_cause) == (Verdict.NO_DRIFT, None)
    past = Past((week(1),), (quiet.over_time.e_values,))
    called = look([week(0, 100)], week(2, maker="bolt", darker=30), plan, CLEAN, None, past)
    assert called.verdict is Verdict.COVARIATE_SHIFT
    assert [shift.since_window for shift in called.root_cause.shifts] == [2, 2]


def test_a_data_fault_with_a_reference_says_what_broke_in_the_images_that_passed(week):
    broken = Intake(offered=100, quarantined=60)
    report = look([week(0, 100)], week(1, darker=60), ChangePlan(), broken)
    assert report.verdict is Verdict.DATA_FAULT
    assert [shift.name for shift in report.root_cause.shifts] == ["mean"]
    assert look([], week(1), ChangePlan(), broken).root_cause is None
