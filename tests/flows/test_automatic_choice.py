"""`auto` on real small streams: which candidate is kept, what the record holds, and what may follow a closed form."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load

from continual.domain.adapters import Task
from continual.domain.errors import ContinualError, StreamError
from continual.domain.samples import Split

SHIFTED = tuple(f"t{number}" for number in range(40))
LATER = tuple(f"u{number}" for number in range(40))
VIVID = {"blue": (20.0, 20.0, 235.0), "red": (235.0, 20.0, 20.0)}
"""Colours so far apart that the nearest mean of frozen features tells them, under any lamp."""


def version(desk, number):
    with desk.registry() as registry:
        return registry.adapters.get("cells", number)


def file_of(desk, number, name):
    with desk.registry() as registry:
        return registry.adapters.file("cells", number, name)


@pytest.fixture(scope="module")
def shifted(stream, libraries, tmp_path_factory):
    """Makes a desk whose released change plan allows the strategies named, with a second, shifted site taken in."""

    def make(*strategies):
        desk = stream.Desk(tmp_path_factory.mktemp("desk"))
        desk.take_in(desk.cells("first"), "first")
        assert desk.release(strategies=strategies) == "accepted"
        desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
        return desk

    return make


@pytest.fixture
def copied(stream, tmp_path):
    """Makes a desk of one's own out of another, which stays as it is."""

    def copy(desk):
        shutil.copytree(desk.folder, tmp_path / "copy")
        return stream.Desk(tmp_path / "copy")

    return copy


def paint(patch, stream):
    """Pictures are vivid from here on, and there is a third site."""
    for label, colour in VIVID.items():
        patch.setitem(stream.COLOURS, label, colour)
    patch.setitem(stream.LIGHTS, "third", (-15.0, 40.0, -40.0))


@pytest.fixture
def vivid(stream, monkeypatch):
    paint(monkeypatch, stream)


@pytest.fixture(scope="module")
def closed_wins(shifted, stream):
    """A desk whose nearest mean is as good as a LoRA update; what the automatic choice answered."""
    with pytest.MonkeyPatch.context() as patch:
        paint(patch, stream)
        desk = shifted("replay_ewc", "nearest_mean")
    return desk, desk.learn("second", strategy="auto")


def test_a_closed_form_that_is_not_worse_is_kept_because_it_is_cheaper(closed_wins):
    desk, outcome = closed_wins
    assert outcome == "version 2 accepted"
    kept = version(desk, 2)
    assert (kept.strategy, kept.parent, kept.trained_on) == ("nearest_mean", 1, ("first", "second"))
    assert kept.record["network"]["kind"] == "closed_form"
    assert "adapter_model.safetensors" not in kept.files
    # Fitted on both sites' training samples, though the champion had LoRA weights.
    assert kept.record["start"] is None
    assert kept.record["past"] > 0
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 2
        assert [each.number for each in registry.adapters.list("cells")] == [1, 2]


def test_the_losers_figures_stay_in_the_record_and_their_seconds_out_of_the_folder(closed_wins):
    desk, _ = closed_wins
    choice = version(desk, 2).record["choice"]
    rows = {row["strategy"]: row for row in choice["candidates"]}
    assert list(rows) == ["replay_ewc", "nearest_mean"]
    assert choice["chosen"] == "nearest_mean"
    assert "nearest_mean is the cheapest of the 2 that are not worse" in choice["reason"]
    assert rows["nearest_mean"]["mean"] >= rows["replay_ewc"]["mean"] - choice["tolerance"]
    assert rows["nearest_mean"]["cpu_seconds"] < rows["replay_ewc"]["cpu_seconds"]
    assert all(set(row["validation"]) == {"first", "second"} for row in rows.values())
    assert all(row["worst_site"] == "first" for row in rows.values())
    stored = json.loads(file_of(desk, 2, "record.json"))["choice"]
    assert [row["mean"] for row in stored["candidates"]] == [row["mean"] for row in choice["candidates"]]
    assert "seconds" not in " ".join(stored["candidates"][0])


def test_the_choice_is_shown_as_a_table(closed_wins):
    from flows.commands.overview import show_adapter
    from flows.workplace import open_workplace

    desk, _ = closed_wins
    console = Console(width=120, record=True, file=io.StringIO())
    with open_workplace(desk.workspace) as workplace:
        show_adapter(console, workplace, "cells")
    said = console.export_text()
    assert "Choice: nearest_mean is the cheapest of the 2" in said
    assert any("replay_ewc" in line and "chosen" not in line for line in said.splitlines())
    assert any("nearest_mean" in line and "<- chosen" in line for line in said.splitlines())


def test_asking_again_learns_nothing_twice(closed_wins):
    desk, _ = closed_wins
    assert desk.learn("second", strategy="auto") == "nothing new"
    with desk.registry() as registry:
        assert len(registry.adapters.list("cells")) == len(registry.updates.list("cells")) == 2


def test_the_stream_result_reads_a_closed_form_champion(closed_wins):
    from flows.benchmarks.results import stream_result
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    desk, _ = closed_wins
    with open_workplace(desk.workspace) as workplace:
        result = stream_result(context_of(workplace, "cells"), ["first", "second"])
    assert [each["strategy"] for each in result["versions"]] == ["naive", "nearest_mean"]
    assert (result["champion"], result["trainable_share"]) == (2, 0.0)
    assert 0 < result["weights_bytes"] < 5_000_000
    assert min(result["result_matrix"][1]) > 0.8


def test_going_on_from_a_closed_form_needs_no_training_image_of_the_past(closed_wins, copied, vivid):
    desk = copied(closed_wins[0])
    activations = next(path for path in desk.folder.rglob("activations") if path.is_dir())
    with desk.registry() as registry:
        for site in ("first", "second"):
            for sample in registry.samples.list(site, Split.TRAIN):
                registry.artifacts.path(sample.artifact).unlink()
                for path in activations.rglob(f"{sample.digest}.*"):
                    path.unlink()
        before = registry.adapters.file("cells", 2, "sums.safetensors")
    desk.take_in(desk.cells("third", LATER, seed=3), "third", "cells")
    # Accepted or not: the third site may be told apart well enough before.
    assert desk.learn("third", strategy="nearest_mean").startswith("version 3 ")
    grown = version(desk, 3)
    assert (grown.record["start"], grown.record["past"]) == (2, 0)
    assert grown.trained_on == ("first", "second", "third")
    added = load(file_of(desk, 3, "sums.safetensors"))["counts"] - load(before)["counts"]
    assert added.sum() == grown.record["experience"]["samples"]
    assert np.all(added > 0)


def test_a_lora_update_over_a_closed_form_starts_from_the_last_lora_weights_and_catches_up(closed_wins, copied, vivid):
    desk = copied(closed_wins[0])
    desk.take_in(desk.cells("third", LATER, seed=3), "third", "cells")
    assert desk.learn("third", strategy="replay_ewc").startswith("version 3 ")
    third = version(desk, 3)
    with desk.registry() as registry:
        missed = registry.samples.list("second", Split.TRAIN, labelled=True)
    assert third.parent == 2
    assert (third.record["start"], third.record["past"]) == (1, len(missed))
    # Version 1 never learnt the second site: what it says of that site's memory is not taught.
    remembered = [site for site, _ in version(desk, 2).record["memory"]]
    assert set(remembered) == {"first", "second"}
    assert third.record["replayed"] == remembered.count("first")
    assert third.metrics["second"] > 0.8
    assert "adapter_model.safetensors" in third.files


def test_lora_is_kept_where_the_closed_form_is_worse_and_is_the_one_that_its_name_would_have_made(shifted, copied):
    desk = shifted("nearest_mean", "replay_ewc")
    named = copied(desk)
    assert desk.learn("second", strategy="auto") == "version 2 accepted"
    kept = version(desk, 2)
    assert (kept.strategy, kept.record["start"]) == ("replay_ewc", 1)
    means = {row["strategy"]: row["mean"] for row in kept.record["choice"]["candidates"]}
    assert means["nearest_mean"] < means["replay_ewc"] - kept.record["choice"]["tolerance"]
    assert named.learn("second", strategy="replay_ewc") == "version 2 accepted"
    other = version(named, 2)
    assert "choice" not in other.record
    for name in ("adapter_model.safetensors", "head.safetensors", "importance.safetensors"):
        assert kept.files[name] == other.files[name]


def test_a_plan_without_weight_consolidation_measures_no_importance(shifted):
    desk = shifted("replay_mix", "nearest_mean")
    assert desk.learn("second", strategy="replay_mix") == "version 2 accepted"
    for number in (1, 2):
        assert load(file_of(desk, number, "head.safetensors"))
        assert load(file_of(desk, number, "importance.safetensors")) == {}


def test_mixtures_with_weight_consolidation_make_versions_that_the_next_update_finds_importance_in(shifted):
    desk = shifted("replay_mix_ewc")
    assert desk.learn("second", strategy="replay_mix_ewc") == "version 2 accepted"
    assert version(desk, 2).record["steps"] < version(desk, 1).record["steps"]
    for number in (1, 2):
        assert any(value.any() for value in load(file_of(desk, number, "importance.safetensors")).values())


def test_what_is_no_strategy_is_refused_before_anything_is_taken_in_or_learnt(desk, released, stream):
    from flows.requests import Release
    from flows.update import check_before_release

    options = stream.small_options().as_record()
    backbone = str(stream.write_backbone(desk.folder / "backbone.safetensors"))
    wish = Release("cells", backbone, None, options)
    with pytest.raises(StreamError, match=r"no strategy 'telepathy'; choose one of naive, .*, auto"):
        check_before_release(desk.workspace, wish, "telepathy")
    options["plan"]["strategies"] = ["replay", "auto"]
    with pytest.raises(StreamError, match=r"the change plan allows 'auto', which is no strategy; choose of naive"):
        check_before_release(desk.workspace, wish)
    assert not (desk.folder / "workspace").exists()
    released.take_in(released.cells("second", SHIFTED, seed=2), "second", "cells")
    with pytest.raises(StreamError, match="no strategy 'telepathy'"):
        released.learn("second", strategy="telepathy")
    with released.registry() as registry:
        assert registry.drift.latest("second") is None


def test_an_update_that_is_not_on_the_change_plan_is_refused_and_nothing_is_learnt(released, stream):
    released.take_in(released.cells("second", SHIFTED, seed=2), "second", "cells")
    with pytest.raises(StreamError, match="'lwf' is not on the change plan, which allows replay_ewc; choose one of"):
        released.learn("second", strategy="lwf")
    with released.registry() as registry:
        assert [update.outcome for update in registry.updates.list("cells")] == ["accepted"]


@pytest.mark.parametrize(
    ("plan", "strategy", "remedy"),
    [
        ({"replay_samples": 0}, None, r"'replay_ewc' measures the importance .* keeps 0 samples; give --replay"),
        ({"keep_images": False, "strategies": ["joint"]}, "joint", r"'joint' learns from all past images"),
    ],
)
def test_a_strategy_that_asks_for_what_the_plan_does_not_keep_is_refused_before_the_intake(
    desk, stream, plan, strategy, remedy
):
    from flows.requests import Release
    from flows.update import check_before_release

    options = stream.small_options().as_record()
    options["plan"] |= plan
    backbone = str(stream.write_backbone(desk.folder / "backbone.safetensors"))
    with pytest.raises(ContinualError, match=remedy):
        check_before_release(desk.workspace, Release("cells", backbone, None, options), strategy)
    assert not (desk.folder / "workspace").exists()


def test_too_few_labels_leave_a_site_unlearnt_and_end_nothing(released):
    from continual.domain.drift import Action
    from flows.update import look_and_learn
    from flows.updates.occasions import Occasion

    released.take_in(released.cells("second", SHIFTED[:14], seed=2), "second", "cells")
    with released.registry() as registry:
        few = len(registry.samples.list("second", Split.TRAIN))
    said = look_and_learn(released.workspace, "cells", "second", None, Occasion(tuple(Action)))
    assert said == f"not learnt: {few} new labelled training samples, the change plan needs 20"
    with released.registry() as registry:
        assert [update.outcome for update in registry.updates.list("cells")] == ["accepted"]


def test_a_joint_update_learns_what_the_champion_learnt_and_the_new_samples_once(released):
    from flows.updates.adapter_context import context_of
    from flows.updates.candidates import labelled_experience, train_candidate
    from flows.updates.lineage import learnt_samples
    from flows.workplace import open_workplace

    released.take_in(released.cells("first", LATER, seed=4), "first", "cells")
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        champion = context.champion()
        experience, past = labelled_experience(context, champion, "first"), learnt_samples(context, champion)
        assert {sample.digest for sample in experience}.isdisjoint(sample.digest for sample in past)
        trained = train_candidate(context, champion, "first", "joint")
        assert (trained.past, len(trained.experience)) == (len(past), len(experience))


def test_a_choice_without_candidates_leaves_no_training_state_behind(released):
    from continual.domain.strategy_choice import Choice
    from flows.updates.adapter_context import context_of
    from flows.updates.candidates import register_candidate, train_candidate
    from flows.workplace import open_workplace

    released.take_in(released.cells("second", SHIFTED, seed=2), "second", "cells")
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        trained = train_candidate(context, context.champion(), "second", "replay")
        states = workplace.settings.training_folder()
        assert len(list(states.glob("*.safetensors"))) == 1
        register_candidate(context, trained, Choice("replay", "no validation labels", 0.01, 0.3, ()))
        assert not list(states.glob("*.safetensors"))


def test_auto_tries_what_the_plan_allows_and_nothing_else(shifted):
    desk = shifted("replay")
    assert desk.learn("second", strategy="auto").startswith("version 2")
    kept = version(desk, 2)
    assert [row["strategy"] for row in kept.record["choice"]["candidates"]] == [kept.strategy] == ["replay"]


def test_a_plan_made_by_asking_for_a_strategy_allows_it():
    from flows.updates.choice import plan_for

    assert plan_for(None, Task.CLASSIFICATION, volumes=False) == ("replay_ewc",)
    assert plan_for("lwf", Task.CLASSIFICATION, volumes=False) == ("lwf",)
    assert plan_for("auto", Task.CLASSIFICATION, volumes=False) == ("replay_ewc", "replay_mix", "random_projection")
    assert plan_for("auto", Task.SEGMENTATION, volumes=False) == ("replay_ewc", "replay_lwf")
    assert plan_for("auto", Task.CLASSIFICATION, volumes=True) == ("replay_ewc", "replay_lwf")
    # A closed form answers from one view.
    assert plan_for("auto", Task.CLASSIFICATION, volumes=False, test_time_views=4) == ("replay_ewc", "replay_mix")


def test_what_an_adapters_answers_do_not_allow_is_refused_before_anything_is_learnt(stream):
    from flows.updates.choice import check_mixing, check_strategies

    options = stream.small_options()
    several = replace(options, test_time_views=4, plan=replace(options.plan, strategies=("replay", "nearest_mean")))
    with pytest.raises(StreamError, match="'nearest_mean' answers from 1 view of an image, .* means over 4; leave out"):
        check_strategies(several, None)
    masks = replace(options, task=Task.SEGMENTATION, classes=("cell",))
    with pytest.raises(StreamError, match="'replay_mix' mixes whole images, which masks do not allow; choose replay_l"):
        check_mixing(masks, ("replay", "replay_mix"))
    check_mixing(options, ("replay_mix",))
