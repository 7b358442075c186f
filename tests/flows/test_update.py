"""From a verdict to a version: what is learnt, what is not learnt twice, and what is not called drift."""

import random
from dataclasses import replace

import pytest

from continual.domain.adapters import AdapterState
from continual.domain.drift import Action, Verdict
from continual.domain.errors import ConflictError, LearningError, SettingsError, StreamError

SHIFTED = tuple(f"t{number}" for number in range(40))


def judged(registry):
    return [(update.site, update.version, update.outcome) for update in reversed(registry.updates.list("cells"))]


def test_a_shifted_site_is_learnt_once_and_its_version_becomes_champion(released):
    released.take_in(released.cells("second", SHIFTED, seed=2), "second", "cells")
    assert released.learn("second") == "version 2 accepted"
    assert released.learn("second") == "nothing new"
    with released.registry() as registry:
        assert registry.drift.latest("second").verdict is Verdict.COVARIATE_SHIFT
        assert [version.number for version in registry.adapters.list("cells")] == [1, 2]
        champion = registry.adapters.current("cells")
        assert (champion.number, champion.parent, champion.trained_on) == (2, 1, ("first", "second"))
        assert champion.metrics["second"] > registry.adapters.get("cells", 1).metrics["first"] - 0.3
        assert judged(registry) == [("first", 1, "accepted"), ("second", 2, "accepted")]
        assert registry.ledger.verify() > 0


def test_status_says_what_became_of_the_last_verdict(released):
    from flows.commands.overview import overview
    from flows.monitor import look
    from flows.workplace import open_workplace

    def row():
        with open_workplace(released.workspace) as workplace:
            return next(site for site in overview(workplace)["sites"] if site["site"] == "second")

    released.take_in(released.cells("second", SHIFTED, seed=2), "second", "cells")
    assert (row()["action"], row()["since"]) == ("-", None)
    look(released.workspace, "cells", "second", now=True)
    assert (row()["action"], row()["since"]) == ("update", None)
    released.learn("second")
    assert (row()["action"], row()["since"]) == ("update", "version 2 accepted")


def test_a_scheduled_update_closes_no_window_before_it_is_due_and_one_by_hand_does(released):
    from flows.update import look_and_learn
    from flows.updates.occasions import LEARN_ON

    released.take_in(released.cells("second", SHIFTED[:12], seed=2), "second", "cells")
    on_schedule = replace(LEARN_ON, now=False)
    assert look_and_learn(released.workspace, "cells", "second", None, on_schedule) == "nothing new"
    with released.registry() as registry:
        assert registry.drift.list("second") == []
    look_and_learn(released.workspace, "cells", "second", None, LEARN_ON)
    with released.registry() as registry:
        assert registry.drift.latest("second").current_subjects == 12


def test_a_rejected_candidate_is_not_trained_again_until_new_samples_arrive(desk):
    desk.take_in(desk.cells("first"), "first")
    # No candidate can gain the whole scale: the gate has to say no.
    assert desk.release(new_site_gain=1.0) == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    assert desk.learn("second") == "version 2 rejected"
    assert desk.learn("second") == "nothing new"
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 1
        assert judged(registry) == [("first", 1, "accepted"), ("second", 2, "rejected")]
        assert len(registry.drift.list("second")) == 1
    desk.take_in(desk.cells("second", ("late1", "late2"), seed=3), "second", "cells")
    assert desk.learn("second") == "version 3 rejected"


def test_a_first_version_that_only_guesses_is_refused_and_asking_again_keeps_one_record_of_it(desk):
    rows = desk.cells("first")
    # Labels that have nothing to do with the pictures: subject by subject, two and two.
    drawn = [
        row.__class__(row.path, row.site, ("blue", "red")[at // 4 % 2], row.subject) for at, row in enumerate(rows)
    ]
    desk.take_in(drawn, "first")
    for _ in range(2):
        with pytest.raises(StreamError, match=r"gate refused the first version.*not above chance.*raise --steps"):
            desk.release(confidence=0.999)
    with desk.registry() as registry:
        assert [(v.number, v.state.value) for v in registry.adapters.list("cells")] == [(1, "rejected")]
        assert registry.adapters.aliases("cells") == {}


def test_a_site_with_too_few_patients_waits(released):
    released.take_in(released.cells("second", SHIFTED[:4], seed=2), "second", "cells")
    assert released.learn("second") == "not learnt: insufficient_data, action wait"
    with released.registry() as registry:
        assert len(registry.adapters.list("cells")) == 1


def test_a_shifted_site_without_labels_is_asked_for_labels_and_not_learnt(released):
    rows = released.cells("second", SHIFTED, seed=2)
    bare = [row.__class__(row.path, row.site, "", row.subject) for row in rows]
    released.take_in(bare, "second", "cells")
    assert released.learn("second") == "not learnt: covariate_shift, action request_labels"


@pytest.mark.parametrize("seed", range(5))
def test_two_halves_of_one_site_are_not_called_drift(released, seed):
    """Each half by itself alarms with the plan's alpha, one in twenty; these five seeds are fixed and none does."""
    later = [f"u{number}" for number in range(40)]
    random.Random(seed).shuffle(later)
    released.take_in(released.cells("first", tuple(later), seed=100 + seed), "first", "cells")
    from flows.monitor import look

    report = look(released.workspace, "cells", "first", now=True)
    assert report is not None
    assert report.verdict is Verdict.NO_DRIFT, report.reason


def paced(desk, site):
    """A look that leads to an update where the plan's cooldown and budget let it, as on a schedule."""
    from flows.update import look_and_learn
    from flows.updates.occasions import Occasion

    return look_and_learn(desk.workspace, "cells", site, None, Occasion(tuple(Action)))


def test_a_cooldown_holds_a_site_back_after_its_update_and_a_whole_stream_by_hand_is_not_held(desk):
    desk.take_in(desk.cells("first"), "first")
    assert desk.release(cooldown_days=3.0, new_site_gain=1.0) == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    # The release was no update of its site, so nothing holds the first one of any site back.
    assert paced(desk, "second") == "version 2 rejected"
    desk.take_in(desk.cells("second", ("late1", "late2"), seed=3), "second", "cells")
    assert paced(desk, "second").startswith("not learnt: cooldown of 3 days at second until 20")
    with desk.registry() as registry:
        assert len(registry.updates.list("cells")) == 2
    assert desk.learn("second") == "version 3 rejected"


def test_a_budget_that_is_spent_holds_every_site_back(desk):
    desk.take_in(desk.cells("first"), "first")
    assert desk.release(updates_per_month=1) == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    assert paced(desk, "second") == "version 2 accepted"
    desk.take_in(desk.cells("first", tuple(f"v{number}" for number in range(20)), seed=4), "first", "cells")
    assert paced(desk, "first").startswith("not learnt: budget of 1 updates in 30 days is spent until 20")


def test_an_intake_between_the_gates_two_evaluations_does_not_part_what_both_are_asked(released, monkeypatch):
    from flows.updates import candidates

    released.take_in(released.cells("second", SHIFTED, seed=2), "second", "cells")
    real, brought = candidates.evaluate_on, []

    def then_an_intake(context, network, samples, split):
        tested = real(context, network, samples, split)
        if not brought:
            rows = released.cells("first", tuple(f"n{number}" for number in range(40)), seed=5)
            brought.append(released.take_in(rows, "first", "cells").new)
        return tested

    monkeypatch.setattr(candidates, "evaluate_on", then_an_intake)
    assert released.learn("second") == "version 2 accepted"
    assert brought == [80]


def test_a_memory_that_holds_no_image_is_said_before_anything_is_learnt(desk, monkeypatch):
    from flows.updates import candidates

    monkeypatch.setattr(candidates, "learn", lambda *_: pytest.fail("it was learnt"))
    desk.take_in(desk.cells("first"), "first")
    with pytest.raises(StreamError, match=r"memory of 1000 bytes holds 0 of \d+ samples, the smallest of which takes"):
        desk.release(replay_bytes=1000)


def test_an_adapter_in_service_whose_memory_holds_nothing_goes_on_with_what_measures_nothing(desk, monkeypatch):
    from flows.updates import candidates

    desk.take_in(desk.cells("first"), "first")
    with monkeypatch.context() as before_it_was_said:
        before_it_was_said.setattr(candidates, "check_memory", lambda *_: None)
        assert desk.release(replay_bytes=1000, strategies=("replay_ewc", "naive")) == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    with pytest.raises(StreamError, match="memory of 1000 bytes holds 0"):
        desk.learn("second")
    assert desk.learn("second", strategy="naive").startswith("version 2")


def asked_for(stream, desk, **changed):
    """A release as `continual run` asks for it."""
    from flows.requests import Release

    options = stream.small_options().as_record()
    changed["plan"] = options["plan"] | changed.get("plan", {})
    options |= changed
    return Release("cells", str(stream.write_backbone(desk.folder / "backbone.safetensors")), None, options)


def check(desk, wish):
    """The function of the flows; imported late, as Prefect reads its settings at import."""
    from flows.update import check_before_release

    return check_before_release(desk.workspace, wish)


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"image_size": 60}, "images of 60 pixels do not divide into patches of 16; choose 64"),
        ({"lora": {"rank": 4, "alpha": 8, "blocks": 9}}, "last 9 blocks of a backbone with 4; choose 1 to 4"),
        (
            {"lora": {"rank": 4, "alpha": 8, "blocks": 4}, "plan": {"keep_images": False}},
            "LoRA in all 4 blocks .* an image can be computed back; give fewer --lora-blocks or leave out --no-images",
        ),
    ],
)
def test_a_wish_that_the_release_would_refuse_is_refused_before_the_intake(desk, stream, changed, remedy):
    with pytest.raises((LearningError, SettingsError), match=remedy):
        check(desk, asked_for(stream, desk, **changed))
    with desk.registry() as registry:
        assert registry.samples.sites() == ()


def test_an_adapter_in_service_keeps_its_options_and_says_which_wishes_are_void(released, stream):
    assert check(released, asked_for(stream, released)) == []
    wish = asked_for(stream, released, image_size=96, lora={"rank": 16, "alpha": 8, "blocks": 99})
    kept = check(released, wish)
    assert kept == ["image_size 64 (not 96)", "rank 4 (not 16)", "blocks 2 (not 99)"]


def test_an_adapter_in_service_refuses_another_backbone(released, stream, tmp_path):
    other = stream.write_backbone(tmp_path / "other.safetensors", seed=4)
    wish = replace(asked_for(stream, released), backbone=str(other))
    with pytest.raises(ConflictError, match=r"adapter 'cells' stands on backbone .* a name of its own"):
        check(released, wish)


def test_labels_that_come_late_are_reason_enough_for_the_same_samples_to_be_learnt_again(released):
    from flows.drift.late_labels import take_labels
    from flows.update import already_judged, learn_site
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    rows = released.cells("second")
    half = [replace(row, label="") if number % 4 == 0 else row for number, row in enumerate(rows)]
    released.take_in(half, "second", "cells")
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        context.options = replace(context.options, plan=replace(context.options.plan, new_site_gain=0.99))
        assert learn_site(context, "second", "replay").state is AdapterState.REJECTED
        assert already_judged(context, "second", "replay")
        table = released.folder / "late.csv"
        table.write_text("path,label\n" + "".join(f"{row.path},{row.label}\n" for row in rows))
        assert take_labels(workplace, table, "cells").new > 0
        assert not already_judged(context, "second", "replay")
