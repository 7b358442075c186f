"""An adapter whose answers are means over views: the same from its release to a look, with and without images."""

from dataclasses import replace

import pytest

from continual.domain.adapters import Task
from continual.domain.errors import SettingsError
from continual.domain.samples import Split

SHIFTED = tuple(f"t{number}" for number in range(40))


def test_a_stream_without_images_answers_from_two_views_and_keeps_both_of_held_out_images(desk, stream):
    from flows.requests import Release
    from flows.update import check_before_release, release
    from flows.workplace import open_workplace

    desk.take_in(desk.cells("first"), "first")
    options = stream.small_options()
    options = replace(options, test_time_views=2, plan=replace(options.plan, keep_images=False))
    backbone = str(stream.write_backbone(desk.folder / "backbone.safetensors"))
    wish = Release("cells", backbone, None, options.as_record())
    assert release(desk.workspace, "first", wish).state.value == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    assert desk.learn("second") == "version 2 accepted"
    with open_workplace(desk.workspace) as workplace:
        version = workplace.registry.adapters.get("cells", 2)
        held = workplace.registry.samples.list("second", Split.TEST)
        kept = {path.name for path in workplace.settings.kept_activations_folder().rglob("*.npy")}
        assert workplace.registry.artifacts.sizes(sample.artifact for sample in held) == {}
    assert version.record["network"]["test_time_views"] == version.record["options"]["test_time_views"] == 2
    assert held
    for sample in held:
        assert {f"{sample.digest}.v0.npy", f"{sample.digest}.v1.npy"} <= kept
    asked = replace(wish, options=wish.options | {"test_time_views": 4})
    assert check_before_release(desk.workspace, asked) == ["test_time_views 2 (not 4)"]


def test_masks_have_no_views_to_answer_from_and_there_are_no_more_than_eight(stream, libraries):
    with pytest.raises(SettingsError, match=r"9 test-time views; give 1 to 8"):
        replace(stream.small_options(), test_time_views=9)
    with pytest.raises(SettingsError, match=r"2 test-time views, .* masks and volumes have not"):
        replace(stream.small_options(), task=Task.SEGMENTATION, classes=("cell",), test_time_views=2)


def test_an_image_that_is_not_learnt_keeps_as_many_views_as_a_look_asks_for():
    from types import SimpleNamespace

    from flows.updates.letting_go import Needs

    record = {"options": {"test_time_views": 6, "training": {"views": 4}}, "learnt_batches": {}}
    needs = Needs(SimpleNamespace(record=record), frozenset({1}), frozenset())
    sample = {"site": "first", "digest": "d", "batch": 1, "label": None}
    assert needs.views(SimpleNamespace(**sample, split=Split.TRAIN)) == 6
    assert needs.views(SimpleNamespace(**sample, split=Split.TEST)) == 6
    record["options"] = {"training": {"views": 4}}
    assert needs.views(SimpleNamespace(**sample, split=Split.TRAIN)) == 4
    assert needs.views(SimpleNamespace(**sample, split=Split.TEST)) == 1


def test_the_command_lines_words_for_views_are_the_options():
    from flows.commands.command_options import Views, are_upright

    assert [are_upright(said) for said in (None, Views.UPRIGHT, Views.TURNED)] == [None, True, False]
