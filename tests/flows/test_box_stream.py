"""Box prompts from a manifest to a served mask: LiteMedSAM's own weights on small squares, two sites, every door."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from continual.domain.adapters import AdapterState, Task, asked_with_boxes
from continual.domain.errors import LearningError, SettingsError
from continual.domain.metrics import dice
from continual.domain.samples import Split

ADAPTER = "cells"
SUBJECTS = 12
SIDE_PX = 64


def _write_cells(folder: Path, site: str, light: tuple[float, float, float], random: np.random.Generator):
    """One picture of a dark cell per subject with its mask, wider than high; rows of a manifest."""
    (folder / site).mkdir(parents=True)
    rows, columns = np.mgrid[:40, :60]
    for number in range(SUBJECTS):
        top, left, radius = random.uniform(14, 26), random.uniform(16, 44), random.uniform(7, 11)
        cell = (rows - top) ** 2 + (columns - left) ** 2 < radius**2
        picture = np.where(cell[:, :, None], np.array([70.0, 60.0, 150.0]), np.array([180.0, 175.0, 180.0]))
        picture = picture + np.array(light) + random.normal(scale=8, size=(40, 60, 3))
        names = {kind: f"{site}/{number}-{kind}.png" for kind in ("path", "mask")}
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / names["path"])
        Image.fromarray(cell).save(folder / names["mask"])
        yield {**names, "site": site, "subject": f"s{number}"}


def _options(stream, **changed):
    small = stream.small_options()
    return replace(
        small,
        lora=replace(small.lora, blocks=1),
        training=replace(small.training, steps=2, batch_size=4, lora_rate=1e-4, head_rate=1e-4),
        plan=replace(small.plan, minimum_labelled=4, replay_samples=4, strategies=("replay_lwf",)),
        task=Task.SEGMENTATION,
        classes=("cell",),
        **changed,
    )


@pytest.fixture(scope="module")
def small_square(tmp_path_factory, libraries):
    """LiteMedSAM's weights as a backbone file for squares of 64 pixels."""
    from safetensors.torch import load

    from continual.learning import resolve_backbone
    from continual.learning.litemedsam import as_backbone

    path = tmp_path_factory.mktemp("litemedsam") / "backbone.safetensors"
    path.write_bytes(as_backbone(load(resolve_backbone("litemedsam").data), SIDE_PX).data)
    return path


@pytest.fixture(scope="module")
def boxed(tmp_path_factory, stream, small_square):
    """A desk whose adapter learnt two sites with boxes, and the version that the second made."""
    from flows.ingest import take_in
    from flows.requests import Incoming, Release
    from flows.update import check_before_release, learn_site, release
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    desk = stream.Desk(tmp_path_factory.mktemp("boxed"))
    random = np.random.default_rng(3)
    rows = [*_write_cells(desk.folder, "first", (0, 0, 0), random)]
    rows += _write_cells(desk.folder, "second", (70, -45, -15), random)
    incoming = Incoming(str(stream.write_table(desk.folder / "manifest.csv", rows)))
    wanted = Release(ADAPTER, str(small_square), None, _options(stream).as_record())
    assert check_before_release(desk.workspace, wanted) == []
    take_in(desk.workspace, incoming, "first", ADAPTER)
    release(desk.workspace, "first", wanted)
    take_in(desk.workspace, incoming, "second", ADAPTER)
    # Twelve subjects are too few for a verdict on drift: the update is asked for.
    with open_workplace(desk.workspace) as workplace:
        return desk, learn_site(context_of(workplace, ADAPTER), "second", "replay_lwf")


def test_an_update_with_boxes_is_judged_under_oracle_boxes_and_registered(boxed):
    desk, learnt = boxed
    assert learnt.number == 2
    with desk.registry() as registry:
        first, second = registry.adapters.list(ADAPTER)
    assert first.state is AdapterState.ACCEPTED
    assert (second.metric, second.classes) == ("dice", ("cell",))
    network = second.record["network"]
    assert (network["backbone"], network["judged_with"]) == ("litemedsam", "each mask's own box (oracle prompt)")
    assert asked_with_boxes(second.record)
    assert min(second.metrics.values()) > 0.8
    # A disc fills pi/4 of its box: that is what can be had without looking.
    assert second.record["chance"]["first"] > 0.8
    assert len(second.record["memory"]) == 4


def test_the_registered_version_answers_boxes_with_the_masks_it_was_judged_by(boxed):
    from continual.imaging import decode_image, decode_mask
    from continual.learning import load_predictor
    from continual.learning.segmentation.boxes import boxes_of

    desk, _ = boxed
    with desk.registry() as registry:
        champion = registry.adapters.current(ADAPTER)
        predictor = load_predictor(registry.artifacts.get(champion.backbone_digest), registry.adapters.files(champion))
        held = registry.samples.list("first", Split.TEST)
        masks = [decode_mask(registry.samples.read_mask(sample)) for sample in held]
        images = [decode_image(registry.samples.read(sample)).pixels for sample in held]
    answers = [
        predictor.predict_boxed(image, {"cell": boxes_of(mask, 1)[1]}).mask
        for image, mask in zip(images, masks, strict=True)
    ]
    served = [dice(mask, answer, 1) for mask, answer in zip(masks, answers, strict=True)]
    assert np.mean(served) == pytest.approx(champion.metrics["first"], abs=5e-3)


def test_a_release_that_litemedsam_cannot_be_is_refused_before_the_intake(stream, small_square):
    from flows.requests import Release
    from flows.updates.adapter_context import check_release

    def refused(options, backbone=str(small_square)):
        check_release(Release(ADAPTER, backbone, None, options.as_record()), "cpu")

    with pytest.raises(LearningError, match="images of 64 pixels, and litemedsam sees 256; choose --image-size 256"):
        refused(_options(stream), "litemedsam")
    with pytest.raises(LearningError, match="tiles of 32 pixels were asked for; leave out --tile"):
        refused(_options(stream, tile=32))
    with pytest.raises(SettingsError, match="is for segmentation, not classification; pass --task segmentation"):
        refused(stream.small_options())


def test_a_benchmark_that_would_tune_the_whole_of_litemedsam_ends_before_it_begins(stream, small_square, tmp_path):
    from flows.benchmarks.benchmark import BenchmarkPlan, run_benchmark
    from flows.requests import Incoming

    plan = BenchmarkPlan(("first", "second"), ("naive", "full"), str(small_square), None, _options(stream))
    with pytest.raises(LearningError, match="never tuned; leave out strategy 'full'"):
        run_benchmark(str(tmp_path / "workspace"), Incoming("manifest.csv"), plan, tmp_path / "found.json")
