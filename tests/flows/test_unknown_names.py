"""A misspelt adapter or site is an error that names those there are, never an empty answer or a check left out."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from continual.domain.adapters import VersionDraft
from continual.domain.errors import NotFoundError
from continual.domain.predictions import Prediction
from registry import OfferedLabel


@pytest.fixture
def continual(released):
    """Runs a command on the workspace, in this process; what came of it."""
    from flows.commands.command_line import app

    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--workspace", released.workspace])


@pytest.fixture
def ingest(libraries, stream):
    """The flow's own function, without a Prefect server, on a manifest of one site."""
    from flows.ingest import ingest as ingest_flow

    def run(at, adapter, *, new_classes=False):
        manifest = stream.write_manifest(at.folder / "late.csv", at.cells("second", ("anna", "bert"), seed=2))
        return ingest_flow.fn(at.workspace, str(manifest), adapter=adapter, new_classes=new_classes)

    return run


@pytest.mark.parametrize("new_classes", [False, True])
def test_an_intake_for_a_misspelt_adapter_takes_nothing_in(released, ingest, new_classes):
    with pytest.raises(NotFoundError, match="no adapter 'celz'; known: cells"):
        ingest(released, "celz", new_classes=new_classes)
    with released.registry() as registry:
        assert registry.samples.sites() == ("first",)
        assert len(registry.samples.batches()) == 1


def test_an_intake_for_an_adapter_before_any_is_released_takes_nothing_in(desk, ingest):
    with pytest.raises(NotFoundError, match="no adapter 'cells'; known: none yet"):
        ingest(desk, "cells")
    with desk.registry() as registry:
        assert registry.samples.sites() == ()


def test_an_intake_for_an_adapter_whose_release_was_cut_off_takes_nothing_in(released, ingest):
    draft = VersionDraft("begun", None, "replay", "b" * 64, ("first",), ("blue", "red"), "balanced_accuracy", {}, {})
    with released.registry() as registry:
        registry.adapters.register(draft, {"record.json": b"{}"}, "test")
    with pytest.raises(NotFoundError, match="'champion' of adapter 'begun' points at no version"):
        ingest(released, "begun")
    with released.registry() as registry:
        assert registry.samples.sites() == ("first",)


def test_an_intake_may_name_an_adapter_in_service_or_none(released, desk):
    from flows.ingest import check_in_service

    check_in_service(released.workspace, "cells")
    check_in_service(desk.workspace, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("holds", "list", "secnd"),
        ("drift", "list", "secnd"),
        ("performance", "--adapter", "cells", "--site", "secnd"),
        ("performance", "--adapter", "cells", "--site", "secnd", "--as-of", "2026-03-01", "--json"),
    ],
)
def test_a_misspelt_site_is_answered_with_those_there_are(continual, arguments):
    ended = continual(*arguments)
    assert isinstance(ended.exception, NotFoundError)
    assert "no site 'secnd'; known sites: first" in str(ended.exception)
    assert ended.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("holds", "list", "first"),
        ("holds", "list"),
        ("drift", "list", "first"),
        ("drift", "list"),
        ("performance", "--adapter", "cells", "--site", "first"),
        ("performance", "--adapter", "cells"),
    ],
)
def test_a_site_with_nothing_to_tell_has_an_empty_answer(continual, arguments):
    ended = continual(*arguments, "--json")
    assert (ended.exit_code, json.loads(ended.stdout)) == (0, [])


def test_performance_knows_a_site_that_only_a_prediction_or_its_label_names(released, continual):
    said = Prediction("cells", 1, "east", "a" * 64, {"blue": 0.9, "red": 0.1}, datetime.now(UTC))
    with released.registry() as registry:
        registry.predictions.add([said, replace(said, site="", digest="b" * 64)])
        registry.late_labels.add([OfferedLabel("b" * 64, "blue", "west")], "lab")
    for site in ("east", "west"):
        place = ("performance", "--adapter", "cells", "--site", site, "--json")
        ended = continual(*place, "--as-of", "2026-03-01")
        assert (ended.exit_code, json.loads(ended.stdout)) == (0, [])
    assert json.loads(continual(*place).stdout)[0]["labelled"] == 1
