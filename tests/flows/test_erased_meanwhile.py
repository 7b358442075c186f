"""An erasure while another process has the patient's images in its hands: nothing is left behind, and it is said."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from continual.domain.errors import StreamError
from continual.domain.predictions import Prediction
from flows.erasure import Person, erase_person
from flows.workplace import open_workplace

WHY = "the patient withdrew consent"
SHIFTED = tuple(f"t{number}" for number in range(40))


@pytest.fixture
def looking(released):
    """A process that looks, one that erases, the site's samples, the first patient's before all others."""
    from flows.updates.adapter_context import context_of

    with open_workplace(released.workspace) as mine, open_workplace(released.workspace) as other:
        context = context_of(mine, "cells")
        stored = mine.registry.samples.list("first")
        samples = sorted(stored, key=lambda sample: sample.subject != stored[0].subject)
        for path in Path(released.workspace, "activations").rglob("*.npy"):
            path.unlink()
        yield context, other, samples


def _erase_when(context, workplace, samples, moment, *, after):
    """Erase the first sample's patient when the picture of sample number `moment` is read, before or after it is."""
    real = context._pixels

    def pixels(sample):
        read = real(sample) if after else None
        if sample.digest == samples[moment].digest:
            erase_person(workplace, Person(samples[0].subject), WHY)
        return read if after else real(sample)

    context._pixels = pixels


def _left(context, digest):
    return list(context.workplace.settings.activations_folder().rglob(f"{digest}*"))


def test_what_is_written_after_an_erasure_is_swept_by_whoever_wrote_it(looking):
    context, other, samples = looking
    _erase_when(context, other, samples, 20, after=True)
    context.fill(samples, 1, "a look")
    assert _left(context, samples[0].digest) == []
    assert _left(context, samples[20].digest)


def test_an_image_erased_before_it_was_read_is_said_and_the_next_run_leaves_it_out(looking):
    context, other, samples = looking
    _erase_when(context, other, samples, 0, after=False)
    with pytest.raises(StreamError, match="1 images of first were erased while they were in use; run again"):
        context.fill(samples, 1, "a look")
    assert _left(context, samples[0].digest) == []
    context.fill(context.registry.samples.list("first"), 1, "the next look")


def test_what_a_look_says_of_an_erased_image_is_not_kept(looking):
    context, other, samples = looking
    said = [Prediction("cells", 9, "first", s.digest, {"red": 1.0}, datetime.now(UTC)) for s in samples[:8]]
    erase_person(other, Person(samples[0].subject), WHY)
    gone = sum(sample.subject == samples[0].subject for sample in samples[:8])
    assert context.registry.predictions.add(said, of_samples=True) == 8 - gone
    kept = {one.digest for one in context.registry.predictions.list(site="first") if one.version == 9}
    assert gone
    assert kept == {sample.digest for sample in samples[:8] if sample.subject != samples[0].subject}


def test_half_a_file_of_a_killed_writer_goes_with_its_patient(looking):
    context, other, samples = looking
    context.fill(samples, 1, "a look")
    (whole,) = (path for path in _left(context, samples[0].digest) if path.name.endswith(".v0.npy"))
    draft = whole.with_name(f"{whole.stem}.k1ll3d.part")
    draft.write_bytes(whole.read_bytes()[:100])
    erase_person(other, Person(samples[0].subject), WHY)
    assert _left(context, samples[0].digest) == []


def test_what_one_batch_wrote_is_swept_where_the_next_one_finds_the_patient_erased(looking):
    context, other, samples = looking
    patient = [sample for sample in samples if sample.subject == samples[0].subject]
    others = [sample for sample in samples if sample.subject != samples[0].subject]
    assert len(patient) == 2
    asked = [*others[:30], patient[0], others[30], patient[1], *others[31:]]
    _erase_when(context, other, [patient[0], *others], 31, after=True)
    with pytest.raises(StreamError, match="1 images of first were erased"):
        context.fill(asked, 1, "a look")
    assert _left(context, others[0].digest)
    assert _left(context, patient[0].digest) == []


def test_where_images_were_let_go_an_erased_one_is_said_to_be_erased(looking):
    context, other, samples = looking
    context.registry.images.let_go("cells", samples[-2:], "a test")
    _erase_when(context, other, samples, 0, after=False)
    with pytest.raises(StreamError, match="1 images of first were erased"):
        context.fill(samples[:4], 1, "a look")


def test_an_erasure_while_the_gate_judges_leaves_the_patient_out_for_candidate_and_champion(released, monkeypatch):
    from flows.updates import candidates

    released.take_in(released.cells("second", SHIFTED, seed=2), "second", "cells")
    real, judged = candidates.evaluate_on, []

    def then_an_erasure(context, network, samples, split):
        tested = real(context, network, samples, split)
        judged.append({site: len(outcomes.labels) for site, (outcomes, _) in tested.items()})
        if len(judged) == 1:
            victim = samples["first"][0]
            with open_workplace(released.workspace) as other:
                erase_person(other, Person(victim.subject), WHY)
        return tested

    monkeypatch.setattr(candidates, "evaluate_on", then_an_erasure)
    assert released.learn("second") == "version 2 accepted"
    asked = judged[0]
    assert judged[1:] == [asked | {"first": asked["first"] - 2}] * 2
