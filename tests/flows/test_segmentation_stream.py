"""Masks from a manifest to a version that segments: released, drifted, learnt, judged by Dice, remembered, compared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from continual.domain.adapters import AdapterState, Task
from continual.domain.errors import LearningError, SettingsError, StreamError
from continual.domain.metrics import dice
from continual.domain.samples import IGNORED, Split

ADAPTER = "cells"
SUBJECTS = 24
STRATEGY = "replay_lwf"


def _write_cells(folder: Path, site: str, light: tuple[float, float, float], random: np.random.Generator):
    """One picture of a dark cell per subject with its mask and a field of view; rows of a manifest."""
    (folder / site).mkdir(parents=True)
    rows, columns = np.mgrid[:64, :64]
    seen = (rows - 31.5) ** 2 + (columns - 31.5) ** 2 < 31**2
    for number in range(SUBJECTS):
        radius = random.uniform(10, 16)
        top, left = random.uniform(22, 42, size=2)
        cell = (rows - top) ** 2 + (columns - left) ** 2 < radius**2
        picture = np.where(cell[:, :, None], np.array([70.0, 60.0, 150.0]), np.array([180.0, 175.0, 180.0]))
        picture = picture + np.array(light) + random.normal(scale=10, size=(64, 64, 3))
        names = {kind: f"{site}/{number}-{kind}.png" for kind in ("path", "mask", "field_of_view")}
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / names["path"])
        Image.fromarray(cell).save(folder / names["mask"])
        Image.fromarray(seen).save(folder / names["field_of_view"])
        yield {**names, "site": site, "subject": f"s{number}"}


def _options(stream, **changed):
    small = stream.small_options()
    return replace(
        small,
        training=replace(small.training, batch_size=8),
        plan=replace(small.plan, minimum_labelled=10, replay_samples=6, strategies=(STRATEGY,)),
        task=Task.SEGMENTATION,
        classes=("cell",),
        tile=32,
        **changed,
    )


@pytest.fixture(scope="module")
def segmented(tmp_path_factory, stream, libraries):
    """A desk whose adapter learnt the masks of two sites, and what happened at the second."""
    from flows.ingest import take_in
    from flows.requests import Incoming, Release
    from flows.update import release

    desk = stream.Desk(tmp_path_factory.mktemp("segmented"))
    random = np.random.default_rng(3)
    rows = [*_write_cells(desk.folder, "first", (0, 0, 0), random)]
    rows += _write_cells(desk.folder, "second", (70, -45, -15), random)
    incoming = Incoming(str(stream.write_table(desk.folder / "manifest.csv", rows)))
    backbone = stream.write_backbone(desk.folder / "backbone.safetensors")
    take_in(desk.workspace, incoming, "first", ADAPTER)
    release(desk.workspace, "first", Release(ADAPTER, str(backbone), None, _options(stream).as_record()))
    take_in(desk.workspace, incoming, "second", ADAPTER)
    return desk, desk.learn("second")


def test_an_update_of_masks_is_learnt_judged_by_dice_and_registered(segmented):
    desk, outcome = segmented
    assert outcome == "version 2 accepted"
    with desk.registry() as registry:
        first, second = registry.adapters.list(ADAPTER)
    assert (first.metric, second.metric, second.classes) == ("dice", "dice", ("cell",))
    assert second.state is AdapterState.ACCEPTED
    assert min(second.metrics.values()) > 0.8
    assert second.record["network"]["task"] == "segmentation"
    assert len(second.record["memory"]) == 6
    assert {site for site, _ in second.record["memory"]} == {"first", "second"}
    assert 0 < second.record["chance"]["second"] < 0.5
    assert [finding.site for finding in second.gate.findings] == ["first", "second"]
    # How far to go was chosen by what is served: with the foreground's bias of that very share.
    stay = second.record["stay"]
    reached = float(np.mean(list(second.record["validation"].values())))
    assert stay["validation"][f"{stay['share']:g}"] == pytest.approx(reached, abs=1e-6)


def test_the_registered_version_serves_the_mask_that_it_was_judged_by(segmented):
    from continual.imaging import decode_image, decode_mask
    from continual.learning import load_predictor

    desk, _ = segmented
    with desk.registry() as registry:
        champion = registry.adapters.current(ADAPTER)
        backbone = registry.artifacts.get(champion.backbone_digest)
        predictor = load_predictor(backbone, registry.adapters.files(champion))
        held = registry.samples.list("second", Split.TEST)
        masks = [decode_mask(registry.samples.read_mask(sample)) for sample in held]
        answers = [predictor.predict_mask(decode_image(registry.samples.read(sample)).pixels) for sample in held]
    assert all(IGNORED in mask for mask in masks)
    served = [dice(mask, answer.mask, 1) for mask, answer in zip(masks, answers, strict=True)]
    assert np.mean(served) == pytest.approx(champion.metrics["second"], abs=5e-3)


def test_results_and_references_are_in_dice(segmented):
    from flows.benchmarks.results import reference_result, stream_result
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    desk, _ = segmented
    with open_workplace(desk.workspace) as workplace:
        context = context_of(workplace, ADAPTER)
        result = stream_result(context, ["first", "second"])
        twin = reference_result(context, "replay_ewc", ["first", "second"])
    assert result["metric"] == "dice"
    assert np.shape(result["result_matrix"]) == np.shape(twin["result_matrix"]) == (2, 2)
    assert result["result_matrix"][1][1] > result["result_matrix"][0][1]
    assert twin["result_matrix"][1][1] > 0.8


def test_a_second_look_learns_nothing_twice(segmented):
    assert segmented[0].learn("second") == "nothing new"


def test_options_of_masks_survive_their_record_and_faulty_ones_are_refused(stream, libraries):
    from continual.domain.change_plan import ChangePlan
    from flows.updates.adapter_context import AdapterOptions, options_from_record

    wanted = _options(stream)
    assert options_from_record(wanted.as_record()) == wanted
    older = {key: value for key, value in wanted.as_record().items() if key not in {"task", "classes", "tile"}}
    assert options_from_record(older).task is Task.CLASSIFICATION
    with pytest.raises(SettingsError, match="name each of the masks' numbers from 1 once with --classes"):
        replace(wanted, classes=())
    with pytest.raises(SettingsError, match="learns from images and masks; leave out --no-images"):
        replace(wanted, plan=replace(wanted.plan, keep_images=False))
    with pytest.raises(SettingsError, match="belong to masks"):
        AdapterOptions(64, plan=ChangePlan(), classes=("cell",))


def test_a_release_with_a_tile_that_does_not_fit_is_refused_before_the_intake(stream, tmp_path, libraries):
    from flows.requests import Release
    from flows.updates.adapter_context import check_release

    backbone = str(stream.write_backbone(tmp_path / "backbone.safetensors"))
    with pytest.raises(LearningError, match="choose --tile 32"):
        check_release(
            Release(ADAPTER, backbone, None, replace(_options(stream), image_size=96, tile=24).as_record()), "cpu"
        )


@pytest.mark.parametrize(("allowed", "asked"), [((STRATEGY,), "random_projection"), (("nearest_mean",), None)])
def test_closed_forms_are_refused_for_masks_before_anything_is_made(stream, tmp_path, libraries, allowed, asked):
    from flows.requests import Release
    from flows.update import check_before_release

    options = _options(stream)
    wanted = replace(options, plan=replace(options.plan, strategies=allowed)).as_record()
    with pytest.raises(StreamError, match="classifies whole images and gives no masks; choose one of naive"):
        check_before_release(str(tmp_path / "workspace"), Release(ADAPTER, "backbone", None, wanted), asked)
    assert not (tmp_path / "workspace").exists()


def test_an_adapter_of_masks_in_service_refuses_a_closed_form(segmented):
    desk, _ = segmented
    with pytest.raises(StreamError, match="'random_projection' classifies whole images and gives no masks"):
        desk.learn("second", strategy="random_projection")


def test_a_benchmark_of_masks_refuses_closed_forms(stream, libraries):
    from flows.benchmarks.benchmark import BenchmarkPlan

    with pytest.raises(StreamError, match="nearest_mean classify whole images and give no masks"):
        BenchmarkPlan(("a", "b"), ("naive", "nearest_mean"), "backbone", None, _options(stream))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_held_out_mask_with_a_number_that_is_no_class_ends_the_release_before_it_learns(
    tmp_path, stream, libraries, monkeypatch, split
):
    from flows.ingest import take_in
    from flows.requests import Incoming, Release
    from flows.update import release
    from flows.updates import candidates

    desk = stream.Desk(tmp_path)
    rows = list(_write_cells(desk.folder, "first", (0, 0, 0), np.random.default_rng(3)))
    mask = np.asarray(Image.open(desk.folder / rows[0]["mask"])).astype(np.uint8)
    mask[30:34, 30:34] = 2
    Image.fromarray(mask).save(desk.folder / rows[0]["mask"])
    table = [{**row, "split": split if row is rows[0] else ""} for row in rows]
    take_in(desk.workspace, Incoming(str(stream.write_table(desk.folder / "manifest.csv", table))), "first", ADAPTER)
    backbone = stream.write_backbone(desk.folder / "backbone.safetensors")
    monkeypatch.setattr(candidates, "learn", lambda *_: pytest.fail("it was learnt"))
    with pytest.raises(StreamError, match="masks hold class number 2, the adapter has 1 besides the background: cell"):
        release(desk.workspace, "first", Release(ADAPTER, str(backbone), None, _options(stream).as_record()))
