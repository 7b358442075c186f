"""What an update is judged by: a test split at every site learnt, the champion's classes, and one split in a column."""

from dataclasses import replace

import pytest

from continual.domain.adapters import SiteOutcomes
from continual.domain.errors import StreamError
from continual.domain.samples import Split

OTHERS = tuple(f"t{number}" for number in range(40))


def take_in_as(desk, stream, rows, site, split):
    """Images whose manifest names their split."""
    from flows.ingest import take_in
    from flows.requests import Incoming

    told = [{"path": r.path, "site": r.site, "label": r.label, "subject": r.subject, "split": split} for r in rows]
    manifest = stream.write_table(desk.folder / "told.csv", told)
    return take_in(desk.workspace, Incoming(str(manifest)), site, "cells")


def test_a_site_without_a_labelled_test_image_is_not_learnt_until_it_has_some(released, stream):
    take_in_as(released, stream, released.cells("second", OTHERS, seed=2), "second", "train")
    said = released.learn("second")
    assert said.startswith("not learnt: site second has 0 labelled test images, and no update is put in service")
    assert "send labels of test images" in said
    tested = released.cells("second", tuple(f"u{number}" for number in range(12)), seed=3)
    take_in_as(released, stream, tested, "second", "test")
    assert released.learn("second").startswith("version 2 ")


def test_a_past_site_that_lost_its_test_images_is_named_before_anything_is_trained(released, monkeypatch):
    from flows.update import learn_site
    from flows.updates import candidates
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    released.take_in(released.cells("second", OTHERS, seed=2), "second", "cells")
    told = candidates.labelled_samples
    monkeypatch.setattr(
        candidates,
        "labelled_samples",
        lambda context, site, split: [] if (site, split) == ("first", Split.TEST) else told(context, site, split),
    )
    monkeypatch.setattr(candidates, "learn", lambda *_arguments: pytest.fail("trained in vain"))
    assert released.learn("second").startswith("not learnt: site first has 0 labelled test images")
    with (
        open_workplace(released.workspace) as workplace,
        pytest.raises(StreamError, match="site first has 0 labelled test images"),
    ):
        learn_site(context_of(workplace, "cells"), "second", "replay_ewc")


def test_what_a_new_class_gains_at_a_past_site_does_not_pay_for_a_loss(released):
    from flows.updates.candidates import _outcomes
    from registry import run_gate

    with released.registry() as registry:
        champion = registry.adapters.current("cells")
    labels = ("blue", "red", "green") * 20
    subjects = tuple(f"p{number}" for number in range(60))
    before = SiteOutcomes("first", subjects, labels, ("blue", "red", "red") * 20)
    # Two fifths of the old classes are lost, the new one is learnt.
    answers = tuple("green" if number < 24 else label for number, label in enumerate(labels))
    after = SiteOutcomes("first", subjects, labels, answers)
    plan = replace(champion_plan(champion), past_site_margin=-0.1, past_site_drop=0.1)
    assert run_gate([after], [before], ["first"], plan).accepted
    asked, rivals = (_outcomes({"first": (each, None)}, champion) for each in (after, before))
    (finding,) = run_gate(asked, rivals, ["first"], plan).findings
    assert (finding.passed, finding.champion, finding.candidate) == (False, 1.0, pytest.approx(0.6))


def champion_plan(champion):
    from flows.updates.adapter_context import options_from_record

    return options_from_record(champion.record["options"]).plan


def test_a_column_of_the_result_matrix_is_of_one_split_however_it_has_grown(released, stream, monkeypatch):
    from flows.benchmarks.results import matrix_row, stream_result, version_row
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        (version,) = workplace.registry.adapters.list("cells")
        assert set(version.record["tested"]) == {"first"}
        # Nothing has changed: what was judged is told, and nothing is asked again.
        monkeypatch.setattr("flows.benchmarks.results.evaluate", lambda *_arguments: pytest.fail("asked again"))
        assert version_row(context, version, ["first"]) == version.metrics
    monkeypatch.undo()
    # New patients of the same site under another lamp, whom the version mistakes.
    monkeypatch.setitem(stream.LIGHTS, "first", stream.LIGHTS["second"])
    released.take_in(released.cells("first", OTHERS, seed=7), "first", "cells")
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        now = matrix_row(context, context.network_of(version), ["first"])
        assert now["first"] < version.metrics["first"] - 0.1
        assert version_row(context, version, ["first"]) == now
        assert stream_result(context, ["first"])["result_matrix"] == [[now["first"]]]


def test_an_older_record_is_asked_again_only_where_its_split_has_another_size(released):
    from flows.benchmarks.results import version_row
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        (version,) = workplace.registry.adapters.list("cells")
        older = replace(
            version,
            metrics={"first": 0.25},
            record={name: value for name, value in version.record.items() if name != "tested"},
        )
        assert version_row(context, older, ["first"]) == {"first": 0.25}
        older.record["scores"]["first"]["samples"] += 1
        assert version_row(context, older, ["first"]) == dict(version.metrics)


def test_candidates_are_chosen_between_on_what_was_listed_once_without_those_erased_since(released, monkeypatch):
    from flows.updates import choice
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    released.take_in(released.cells("second", OTHERS, seed=2), "second", "cells")
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        champion = workplace.registry.adapters.current("cells")
        listed = choice._judged_by(context, champion, ["first", "second"])
        # An intake brings more, an erasure takes one patient of the first site.
        released.take_in(released.cells("first", OTHERS, seed=8), "first", "cells")
        gone = listed["first"][0]
        told = choice.validation_samples
        monkeypatch.setattr(
            choice,
            "validation_samples",
            lambda *asked: {
                site: [one for one in group if one.digest != gone.digest] for site, group in told(*asked).items()
            },
        )
        still = choice._still_there(context, listed)
    assert still["first"] == [one for one in listed["first"] if one.digest != gone.digest]
    assert still["second"] == listed["second"]


def test_a_champions_own_classes_are_what_candidates_are_chosen_by_at_its_sites(released, stream, monkeypatch):
    from flows.updates import choice
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    monkeypatch.setitem(stream.COLOURS, "green", (60.0, 150.0, 70.0))
    released.take_in(released.cells("first", OTHERS, seed=8), "first", "cells", new_classes=True)
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        champion = workplace.registry.adapters.current("cells")
        assert {one.label for one in choice.validation_samples(context, ["first"])["first"]} > set(champion.classes)
        judged = choice._judged_by(context, champion, ["first"])
    assert {one.label for one in judged["first"]} == set(champion.classes)


def test_a_run_over_a_site_without_labels_ends_with_its_verdict_and_no_scores(released):
    from rich.console import Console

    from flows.benchmarks.results import stream_result
    from flows.commands.terminal import show_result
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    rows = [replace(row, label="") for row in released.cells("second", OTHERS, seed=2)]
    released.take_in(rows, "second", "cells")
    assert released.learn("second").startswith("not learnt: ")
    with open_workplace(released.workspace) as workplace:
        result = stream_result(context_of(workplace, "cells"), ["second"])
    assert (result["sites"], result["sites_without_labelled_test"], result["acc"]) == ([], ["second"], None)
    console = Console(record=True, width=100)
    show_result(console, result)
    said = console.export_text()
    assert result["drift"]["second"] in said
    assert "no labelled test image" in said
