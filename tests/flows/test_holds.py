"""Data faults on real pictures: which batches are held, what that keeps them out of, and what a release brings back."""

import numpy as np
import pytest
from PIL import Image

from continual.domain.drift import Action, Verdict
from continual.domain.samples import Split


def arrive(desk, first, last, *, inverted=False, seed=70):
    """Two pictures each of subjects u<first> to u<last - 1>, in one intake of the first site."""
    rows = desk.cells("first", tuple(f"u{number}" for number in range(first, last)), seed=seed + first)
    if inverted:
        for row in rows:
            path = desk.folder / row.path
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    return desk.take_in(rows, "first", "cells").batch


def arrive_empty(desk, first, last):
    """Pictures without anything on them, which the quality gate refuses."""
    rows = desk.cells("first", tuple(f"u{number}" for number in range(first, last)), seed=7 + first)
    for row in rows:
        Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(desk.folder / row.path)
    return desk.take_in(rows, "first", "cells").batch


def look(desk, *, now=True):
    from flows.monitor import look as look_at

    return look_at(desk.workspace, "cells", "first", now=now)


def test_of_a_window_with_a_fault_the_broken_batch_is_held_and_the_sound_ones_are_looked_at_next(released):
    sound, broken = arrive(released, 0, 12), arrive(released, 12, 24, inverted=True)
    report = look(released)
    assert (report.verdict, report.action, report.batches) == (
        Verdict.DATA_FAULT,
        Action.QUARANTINE,
        (sound, broken),
    )
    with released.registry() as registry:
        assert registry.holds.held("first") == {broken}
    after = look(released)
    assert (after.verdict, after.current_subjects, after.batches) == (Verdict.NO_DRIFT, 12, (sound,))


def test_nothing_learns_or_judges_a_held_batch_until_it_is_released_and_then_the_next_update_learns_it(released):
    broken, sound = arrive(released, 0, 24, inverted=True), None
    assert look(released).verdict is Verdict.DATA_FAULT
    sound = arrive(released, 24, 48)
    version = _update(released)
    assert version.record["held_batches"] == {"first": [broken]}
    assert version.record["learnt_batches"]["first"] == sound
    with released.registry() as registry:
        held = {sample.digest for sample in registry.samples.list("first", with_held=True) if sample.batch == broken}
        assert {digest for _, digest in version.record["memory"]}.isdisjoint(held)
        assert {sample.digest for sample in registry.samples.list("first", Split.TEST)}.isdisjoint(held)
        registry.holds.release(broken, "the scanner's service has looked at them", "it")
    report = look(released)
    assert (report.batches, report.current_subjects) == ((broken,), 24)
    assert report.verdict is not Verdict.DATA_FAULT
    again = _update(released)
    assert again.record.get("held_batches") == {}
    assert again.record["learnt_batches"]["first"] == sound
    with released.registry() as registry:
        experience = [s for s in registry.samples.list("first", Split.TRAIN) if s.batch == broken]
    assert again.record["experience"]["samples"] == len(experience) > 0


def test_a_scanner_whose_every_picture_is_refused_is_reported_before_any_window_is_full(released):
    empty = arrive_empty(released, 0, 6)
    report = look(released, now=False)
    assert (report.verdict, report.current_subjects, report.batches) == (Verdict.DATA_FAULT, 0, (empty,))
    assert "held back 12 of 12 images" in report.reason
    assert look(released, now=False) is None
    arrive(released, 6, 30)
    assert look(released, now=False).verdict is Verdict.NO_DRIFT


def test_a_look_killed_before_it_held_the_batch_holds_it_the_next_time_and_files_no_second_report(
    released, monkeypatch
):
    from registry.holds import HoldStore

    broken = arrive(released, 0, 12, inverted=True)
    with monkeypatch.context() as patch:
        patch.setattr(HoldStore, "hold", _killed)
        with pytest.raises(KeyboardInterrupt):
            look(released)
    first = look(released)
    with released.registry() as registry:
        assert registry.holds.held() == {broken}
        assert [report.id for report in registry.drift.list("first")] == [first.id]


def test_a_fault_stays_the_newest_word_while_nothing_newer_came(released):
    arrive(released, 0, 24)
    assert look(released).verdict is Verdict.NO_DRIFT
    arrive(released, 24, 36, inverted=True)
    fault = look(released)
    assert fault.verdict is Verdict.DATA_FAULT
    assert look(released).verdict is Verdict.NO_DRIFT
    with released.registry() as registry:
        assert registry.drift.latest("first") == fault
        assert [report.verdict for report in registry.drift.list("first")] == [Verdict.DATA_FAULT, Verdict.NO_DRIFT]


def test_a_faulty_batch_too_small_for_a_look_is_reported_and_held_before_an_update_would_learn_it(released):
    from flows.drift.looks import look_at_unseen
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    arrive(released, 0, 24)
    look(released)
    broken, sound = arrive(released, 24, 27, inverted=True), arrive(released, 27, 30)
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        champion = workplace.registry.adapters.current("cells")
        fault = look_at_unseen(context, champion, "first")
        assert (fault.verdict, fault.batches) == (Verdict.DATA_FAULT, (broken,))
        assert workplace.registry.holds.held("first") == {broken}
        assert workplace.registry.drift.latest("first") == fault
        assert look_at_unseen(context, champion, "first") is None
        assert {sample.batch for sample in workplace.registry.samples.list("first")} >= {sound}


@pytest.fixture
def before_an_update(released):
    """Looks at the first site as an update does before it learns what came."""
    from flows.drift.looks import look_at_unseen
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    def unseen():
        with open_workplace(released.workspace) as workplace:
            context = context_of(workplace, "cells")
            return look_at_unseen(context, workplace.registry.adapters.current("cells"), "first")

    return unseen


def test_new_images_of_patients_seen_before_are_checked_though_their_batch_has_had_its_look(released, before_an_update):
    arrive(released, 0, 12)
    look(released)
    follow_up = released.cells("first", tuple(f"u{number}" for number in range(10)), seed=500)
    for row in follow_up:
        path = released.folder / row.path
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    new = released.cells("first", tuple(f"u{number}" for number in range(12, 24)), seed=501)
    batch = released.take_in([*follow_up, *new], "first", "cells").batch
    window = look(released)
    assert (window.verdict, window.batches, window.current_subjects) == (Verdict.NO_DRIFT, (batch,), 12)
    fault = before_an_update()
    assert (fault.verdict, fault.batches, fault.current_samples) == (Verdict.DATA_FAULT, (batch,), len(follow_up))
    with released.registry() as registry:
        assert registry.holds.held("first") == {batch}
        registry.holds.release(batch, "the scanner's service has looked at them", "it")
    assert before_an_update() is None


def test_single_pictures_that_came_one_by_one_are_judged_together(released, before_an_update):
    arrive(released, 0, 24)
    look(released)

    def one_by_one(first, last, *, inverted):
        rows = released.cells("first", tuple(f"u{number}" for number in range(first, last)), seed=70 + first)
        for row in rows if inverted else ():
            path = released.folder / row.path
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        return tuple(released.take_in([row], "first", "cells").batch for row in rows)

    one_by_one(24, 25, inverted=False)
    assert before_an_update() is None
    broken = one_by_one(25, 28, inverted=True)
    fault = before_an_update()
    assert fault.verdict is Verdict.DATA_FAULT
    assert set(broken) <= set(fault.batches)


def test_of_two_looks_at_the_same_moment_one_is_filed(released, monkeypatch):
    from flows.drift import looks

    arrive(released, 0, 24)
    taken, others = looks.take_look, []

    def overtaken(*arguments):
        found = taken(*arguments)
        if not others:
            others.append(None)
            others.append(look(released))
        return found

    monkeypatch.setattr(looks, "take_look", overtaken)
    assert look(released) == others[1]
    with released.registry() as registry:
        assert [report.id for report in registry.drift.list("first")] == [others[1].id]


def test_what_a_parent_has_learnt_stays_learnt_though_it_is_held_since():
    from types import SimpleNamespace

    from flows.updates.learnt import has_learnt_batch, learnt_record

    def version(record):
        return SimpleNamespace(record=record)

    parent = version(learnt_record(None, "first", 5, held=()))
    child = version(learnt_record(parent, "first", 8, held=(3, 7, 9)))
    assert child.record["held_batches"] == {"first": [7]}
    assert [has_learnt_batch(child, "first", batch) for batch in (3, 7, 8, 9)] == [True, False, True, False]


def test_an_update_of_a_site_with_a_fault_learns_nothing(released):
    arrive(released, 0, 24, inverted=True)
    assert released.learn("first") == "not learnt: data_fault, action quarantine"
    with released.registry() as registry:
        assert [version.number for version in registry.adapters.list("cells")] == [1]


def _killed(*_):
    raise KeyboardInterrupt


def _update(desk):
    """Learn what is new whatever the look says, and take the result into service."""
    from flows.update import learn_site
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    with open_workplace(desk.workspace) as workplace:
        return learn_site(context_of(workplace, "cells"), "first", "replay")
