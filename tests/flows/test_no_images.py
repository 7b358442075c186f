"""A stream whose images are let go: the same versions as with images, no picture left, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from continual.domain.errors import ImageLetGoError, SettingsError
from continual.domain.samples import Split
from flows.erasure import Person, erase_person
from flows.updates.memory_content import MemoryView, memory_view, remembered_by
from flows.workplace import open_workplace

SHIFTED = tuple(f"t{number}" for number in range(40))
LATER = tuple(f"u{number}" for number in range(24))
WEIGHTS = ("adapter_model.safetensors", "head.safetensors", "importance.safetensors")
VIEWS = 2


def two_sites(stream, desk, **plan):
    """Two sites learnt, from more than one view of each image."""
    from flows.requests import Release
    from flows.update import release

    desk.folder.mkdir(exist_ok=True)
    desk.take_in(desk.cells("first"), "first")
    options = stream.small_options()
    options = replace(
        options, training=replace(options.training, views=VIEWS), plan=replace(options.plan, **plan)
    ).as_record()
    backbone = str(stream.write_backbone(desk.folder / "backbone.safetensors"))
    assert release(desk.workspace, "first", Release("cells", backbone, None, options)).state.value == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    assert desk.learn("second") == "version 2 accepted"
    return desk


@pytest.fixture(scope="module")
def gone_folder(stream, libraries, tmp_path_factory):
    """A desk with two sites learnt and no image left; to be copied, never changed."""
    return two_sites(stream, stream.Desk(tmp_path_factory.mktemp("gone") / "desk"), keep_images=False).folder


@pytest.fixture
def gone(gone_folder, tmp_path, stream):
    shutil.copytree(gone_folder, tmp_path / "desk")
    return stream.Desk(tmp_path / "desk")


@pytest.fixture(scope="module")
def with_images(stream, libraries, tmp_path_factory):
    """The same stream with images; read only."""
    return two_sites(stream, stream.Desk(tmp_path_factory.mktemp("images") / "desk"))


def weights(desk) -> dict[tuple[int, str], str]:
    """Digest of each version's weight files."""
    with desk.registry() as registry:
        return {(v.number, name): v.files[name][0] for v in registry.adapters.list("cells") for name in WEIGHTS}


def images(desk, site: str | None = None) -> int:
    """How many of the samples' pictures are stored."""
    with desk.registry() as registry:
        return sum(registry.artifacts.has(sample.artifact) for sample in registry.samples.list(site))


def kept_files(desk) -> dict[str, set[str]]:
    """Digest to the kinds of activations that are kept of it."""
    kept: dict[str, set[str]] = {}
    for path in (Path(desk.workspace) / "kept_activations").glob("*/*/*.npy"):
        digest, kind, _ = path.name.split(".")
        kept.setdefault(digest, set()).add(kind)
    return kept


def view(desk) -> MemoryView:
    with open_workplace(desk.workspace) as workplace:
        return memory_view(workplace, "cells")


def test_weights_are_the_same_bit_for_bit_as_with_images_and_no_picture_is_left(gone, with_images):
    assert weights(gone) == weights(with_images)
    assert images(with_images) == 160
    assert images(gone) == 0
    pngs = [path for path in Path(gone.workspace).rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x89PNG"]
    assert pngs == []
    with gone.registry() as registry:
        assert len(registry.samples.list()) == 160
        assert [(e.site, e.batches, e.samples, e.images) for e in registry.images.list()] == [
            ("first", (1,), 80, 80),
            ("second", (2,), 80, 80),
        ]
        assert registry.ledger.verify() > 0


def test_what_is_kept_is_what_learning_goes_on_from_and_nothing_else(gone):
    kept = kept_files(gone)
    with gone.registry() as registry:
        champion = registry.adapters.current("cells")
        memory = {digest for _, digest in champion.record["memory"]}
        for sample in registry.samples.list():
            views = VIEWS if sample.digest in memory else int(sample.split is not Split.TRAIN)
            assert kept.pop(sample.digest) == {"features", *(f"v{number}" for number in range(views))}
    assert kept == {}
    assert list((Path(gone.workspace) / "activations").glob("*/*/*.npy")) == []


def test_looking_evaluating_and_learning_go_on_without_images(gone):
    from flows.benchmarks.results import stream_result
    from flows.monitor import look
    from flows.updates.adapter_context import context_of

    with open_workplace(gone.workspace) as workplace:
        assert stream_result(context_of(workplace, "cells"), ["first", "second"])["acc"] > 0.5
    gone.take_in(gone.cells("second", LATER, seed=5), "second", "cells")
    assert look(gone.workspace, "cells", "second", now=True) is not None
    with open_workplace(gone.workspace) as workplace:
        from flows.update import learn_site

        version = learn_site(context_of(workplace, "cells"), "second", "replay_ewc")
        assert version.record["replayed"] == 30
    assert images(gone) == 48
    assert gone.learn("first") == "nothing new"
    assert images(gone) == 0


def test_a_closed_form_is_fitted_on_kept_features_and_lora_goes_on_over_it(desk, stream):
    from flows.update import learn_site
    from flows.updates.adapter_context import context_of

    lenient = {"past_site_margin": -1.0, "past_site_drop": 1.0, "new_site_gain": -1.0}
    two_sites(stream, desk, keep_images=False, **lenient)
    for site, seed, strategy in (("second", 7, "nearest_mean"), ("first", 8, "replay_ewc")):
        desk.take_in(desk.cells(site, tuple(f"{site}{n}" for n in range(24)), seed=seed), site, "cells")
        with open_workplace(desk.workspace) as workplace:
            assert learn_site(context_of(workplace, "cells"), site, strategy).state.value == "accepted"
        desk.learn("first")
        assert images(desk) == 0
    with desk.registry() as registry:
        closed, trained = registry.adapters.list("cells")[2:]
        learnt = [s for s in registry.samples.list(split=Split.TRAIN) if s.batch <= 2]
        remembered = {digest for _, digest in closed.record["memory"]}
        missed = [s for s in registry.samples.list("second", Split.TRAIN) if s.batch == 3 and s.digest in remembered]
    assert closed.record["past"] == len(learnt)
    assert trained.record["start"] == 2
    assert trained.record["past"] == len(missed) > 0


def test_images_of_a_site_that_is_not_learnt_stay(gone):
    gone.take_in(gone.cells("first", LATER[:4], seed=7), "first", "cells")
    assert gone.learn("first").startswith("not learnt: insufficient_data")
    assert images(gone, "first") == 8


def test_a_rejected_update_lets_images_go_and_the_next_one_learns_from_what_is_kept(desk):
    desk.take_in(desk.cells("first"), "first")
    assert desk.release(new_site_gain=1.0, keep_images=False) == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    assert desk.learn("second") == "version 2 rejected"
    assert images(desk) == 0
    desk.take_in(desk.cells("second", ("late1", "late2"), seed=3), "second", "cells")
    assert desk.learn("second") == "version 3 rejected"
    with desk.registry() as registry:
        learnt = registry.adapters.get("cells", 3).record["experience"]["samples"]
        assert learnt == len(registry.samples.list("second", Split.TRAIN))
    assert images(desk) == 0


def test_a_refused_release_lets_nothing_go(desk):
    from continual.domain.errors import StreamError

    rows = desk.cells("first")
    drawn = [type(row)(row.path, row.site, ("blue", "red")[at // 4 % 2], row.subject) for at, row in enumerate(rows)]
    desk.take_in(drawn, "first")
    with pytest.raises(StreamError, match="gate refused the first version"):
        desk.release(confidence=0.999, keep_images=False)
    assert images(desk) == 80


def test_training_samples_without_a_label_keep_all_views_and_are_learnt_when_it_comes(gone):
    from flows.update import learn_site
    from flows.updates.adapter_context import context_of
    from flows.updates.experiences import new_samples

    late = gone.cells("second", LATER, seed=5)
    bare = [type(row)(row.path, row.site, "", row.subject) for row in late]
    gone.take_in(gone.cells("second", LATER, seed=6), "second", "cells")
    gone.take_in(bare, "second", "cells")
    with open_workplace(gone.workspace) as workplace:
        assert learn_site(context_of(workplace, "cells"), "second", "replay_ewc").state.value == "accepted"
    gone.learn("first")
    assert images(gone) == 0
    gone.take_in(late, "second", "cells")
    assert images(gone) == 0
    with open_workplace(gone.workspace) as workplace:
        context = context_of(workplace, "cells")
        unlearnt = [s for s in new_samples(context, context.champion(), "second") if s.split is Split.TRAIN]
        assert len(unlearnt) >= 20
        assert all(sample.label for sample in unlearnt)
        version = learn_site(context, "second", "replay_ewc")
        assert version.record["experience"]["samples"] == len(unlearnt)


def test_what_needs_images_that_are_gone_is_refused_with_the_remedy(gone, stream):
    from flows.benchmarks.results import reference_result
    from flows.update import check_references, learn_site
    from flows.updates.adapter_context import AdapterContext, context_of

    with open_workplace(gone.workspace) as workplace:
        context = context_of(workplace, "cells")
        held_out = context.registry.samples.list("first", Split.TEST)
        with pytest.raises(ImageLetGoError, match=r"'joint' learns from all past images.*keeps 0.*new workspace"):
            learn_site(context, "second", "joint")
        with pytest.raises(ImageLetGoError, match=r"\d+ images of .* were let go .* only frozen features are kept"):
            reference_result(context, "naive", ["first", "second"])
        lora = replace(context.options.lora, blocks=1)
        for options in (replace(context.options, image_size=96), replace(context.options, lora=lora)):
            other = AdapterContext(workplace, "cells", context.weights, options)
            with pytest.raises(
                ImageLetGoError, match=rf"{len(held_out)} images .* not for .*-b\d-s\d+: ask for the same"
            ):
                other.fill(held_out, 1, "other")
        for path in (Path(gone.workspace) / "kept_activations").glob(f"*/*/{held_out[0].digest}.*"):
            path.unlink()
        with pytest.raises(ImageLetGoError, match=r"1 images .* restore the workspace's folder kept_activations"):
            context.fill(held_out, 1, "deleted by hand")
    # What the adapter in service keeps counts, not what is asked for now; of a new one the wish.
    for adapter, kept in (("cells", True), ("others", False)):
        with pytest.raises(SettingsError, match=f"--compare naive .* of adapter {adapter} .* leave --compare out"):
            check_references(gone.workspace, adapter, ["naive"], keep_images=kept)
    check_references(gone.workspace, "cells", [], keep_images=False)
    check_references(gone.workspace, "others", ["naive"], keep_images=True)


def test_after_a_rollback_looks_and_updates_go_on_with_what_is_left(gone):
    from flows.update import learn_site
    from flows.updates.adapter_context import context_of
    from flows.updates.closed_form_candidates import fit_candidate
    from flows.updates.letting_go import learnable

    with gone.registry() as registry:
        registry.adapters.rollback("cells", "test", "wrong calibration")
        before = len(remembered_by(registry, registry.adapters.current("cells")))
    assert gone.learn("second") == "nothing new"
    gone.take_in(gone.cells("second", LATER, seed=5), "second", "cells")
    with open_workplace(gone.workspace) as workplace:
        context = context_of(workplace, "cells")
        left = learnable(context, remembered_by(context.registry, context.champion()))
        assert 0 < len(left) < before
        closed = fit_candidate(context, context.champion(), "second", "nearest_mean")
        assert {sample.digest for sample in closed.memory if sample.site == "first"} <= {one.digest for one in left}
        version = learn_site(context, "second", "replay_ewc")
        assert (version.parent, version.record["replayed"]) == (1, len(left))


def test_another_adapter_that_keeps_images_keeps_them_for_all(desk, stream):
    from flows.requests import Release
    from flows.update import release

    desk.take_in(desk.cells("first"), "first")
    options = stream.small_options().as_record()
    backbone = str(stream.write_backbone(desk.folder / "backbone.safetensors"))
    release(desk.workspace, "first", Release("careful", backbone, None, options))
    assert desk.release(keep_images=False) == "accepted"
    assert images(desk) == 80


def test_an_erased_subject_leaves_the_kept_activations_too(gone):
    subject = next(row["subject"] for row in view(gone).listed if row["site"] == "first")
    with gone.registry() as registry:
        digests = {sample.digest for sample in registry.samples.list() if sample.subject == subject}
    assert digests & set(kept_files(gone))
    with open_workplace(gone.workspace) as workplace:
        report = erase_person(workplace, Person(subject=subject), "withdrawn")
    assert report.activation_files >= 3
    assert not digests & set(kept_files(gone))
    assert view(gone).erased > 0


def test_the_memory_says_what_is_held_of_each_sample_and_counts_it(gone, with_images):
    without, beside = view(gone), view(with_images)
    assert {row["kept"] for row in without.listed} == {"activations"}
    assert {row["kept"] for row in beside.listed} == {"image"}
    kept = Path(gone.workspace) / "kept_activations"
    for row in without.listed:
        measured = sum(path.stat().st_size for path in kept.glob(f"*/*/{row['digest']}.*"))
        assert (row["bytes"], row["image_bytes"], row["activation_bytes"]) == (measured, 0, measured)
    assert without.size_bytes == sum(row["activation_bytes"] for row in without.listed)
    assert beside.size_bytes == sum(row["image_bytes"] for row in beside.listed)
    shown = {row["site"]: row for row in without.sites}
    assert [shown[site]["samples"] for site in ("first", "second")] == [80, 80]
    assert all((row["images"], row["image_bytes"], row["activations"]) == (0, 0, 80) for row in shown.values())
    assert sum(row["activation_bytes"] for row in shown.values()) == sum(
        path.stat().st_size for path in kept.rglob("*.npy")
    )


def test_a_bound_in_bytes_counts_activations_where_no_image_is_kept(desk):
    most = 20_000
    desk.take_in(desk.cells("first"), "first")
    assert desk.release(keep_images=False, replay_bytes=most) == "accepted"
    shown = view(desk)
    each = shown.listed[0]["bytes"]
    assert shown.samples == most // each
    assert shown.samples < 30
    assert shown.size_bytes == shown.samples * each
