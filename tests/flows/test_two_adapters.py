"""Two adapters in one workspace: verdicts and updates of one are never shown as the other's."""

import io
import json

import pytest
from typer.testing import CliRunner

from continual.domain.adapters import CHAMPION, GateDecision, VersionDraft
from continual.domain.digests import sha256_bytes
from continual.domain.drift import Action, DriftReport, Verdict
from continual.domain.errors import NotFoundError
from continual.domain.samples import CleanImage


def file_look(registry, adapter, site, verdict, action):
    report = DriftReport(site, site, verdict, action, "said so", 0.05, 9, 9, 9, 9, 0, (), adapter=adapter)
    return registry.drift.add(report, "test")


def learn(registry, adapter, site, version, outcome):
    update = registry.updates.begin(adapter, site, None, {}, "test")
    registry.updates.finish(update.id, version, outcome, {})


@pytest.fixture
def workplace(tmp_path, libraries):
    """A workspace of two sites and two adapters without a network."""
    from flows.workplace import open_workplace

    with open_workplace(str(tmp_path / "workspace"), create=True) as opened:
        for site in ("first_hospital", "second_hospital"):
            image = CleanImage(sha256_bytes(site.encode()), site, "0" * 16, "blue", b"picture", 4, 4)
            opened.registry.samples.record(site, [image], [], "test")
        for adapter in ("cells", "other"):
            draft = VersionDraft(adapter, None, "head", "b" * 64, (), ("blue", "red"), "balanced_accuracy", {}, {})
            opened.registry.adapters.register(draft, {"record.json": b"{}"}, "test")
        yield opened


def rows(workplace, site):
    from flows.commands.overview import overview

    found = [row for row in overview(workplace)["sites"] if row["site"] == site]
    return [(row["adapter"], row["verdict"], row["action"], row["since"]) for row in found]


def test_status_tells_each_adapters_verdict_with_its_own_update(workplace):
    file_look(workplace.registry, "cells", "second_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    learn(workplace.registry, "cells", "second_hospital", 2, "accepted")
    file_look(workplace.registry, "other", "second_hospital", Verdict.CONCEPT_SHIFT, Action.REQUEST_LABELS)
    learn(workplace.registry, "cells", "second_hospital", 3, "rejected")
    assert rows(workplace, "second_hospital") == [
        ("cells", "covariate_shift", "update", "version 3 rejected"),
        ("other", "concept_shift", "request_labels", None),
    ]
    assert rows(workplace, "first_hospital") == [(None, "-", "-", None)]


def test_status_says_of_an_update_that_it_was_rolled_back(workplace):
    adapters = workplace.registry.adapters
    first = adapters.get("cells", 1)
    draft = VersionDraft("cells", 1, "head", "b" * 64, (), first.classes, first.metric, {}, {})
    number = adapters.register(draft, {"record.json": b"{}"}, "test").number
    gate = GateDecision(True, (), -0.05, 0.9)
    file_look(workplace.registry, "cells", "second_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    for version in (1, number):
        adapters.promote("cells", version, gate, CHAMPION, "test", "the gate passed")
    learn(workplace.registry, "cells", "second_hospital", number, "accepted")
    assert rows(workplace, "second_hospital")[0][3] == f"version {number} accepted"
    adapters.rollback("cells", "test", "worse than it was")
    assert rows(workplace, "second_hospital")[0][3] == f"version {number} rolled back"


def test_status_has_one_row_for_a_site_that_one_adapter_looked_at(workplace):
    file_look(workplace.registry, "cells", "second_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    learn(workplace.registry, "other", "second_hospital", 2, "accepted")
    assert rows(workplace, "second_hospital") == [("cells", "covariate_shift", "update", None)]


def test_status_shows_a_report_that_names_no_adapter_until_one_does(workplace):
    file_look(workplace.registry, "", "second_hospital", Verdict.DATA_FAULT, Action.QUARANTINE)
    learn(workplace.registry, "other", "second_hospital", 2, "accepted")
    assert rows(workplace, "second_hospital") == [(None, "data_fault", "quarantine", None)]
    file_look(workplace.registry, "other", "second_hospital", Verdict.NO_DRIFT, Action.NONE)
    assert rows(workplace, "second_hospital") == [("other", "no_drift", "none", None)]


def test_status_says_all_of_two_adapters_in_80_columns_and_names_a_single_one_nowhere(workplace):
    from rich.console import Console

    from flows.commands.overview import overview, show_overview

    def said():
        paper = io.StringIO()
        show_overview(Console(file=paper, width=80), overview(workplace))
        return paper.getvalue().partition("Adapters")[0]

    def cells(line):
        return [cell.strip() for cell in line.split("│")[1:-1]]

    file_look(workplace.registry, "cells", "second_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    learn(workplace.registry, "cells", "second_hospital", 2, "accepted")
    assert "cells" not in said()
    file_look(workplace.registry, "other", "second_hospital", Verdict.NO_DRIFT, Action.NONE)
    shown = [cells(line) for line in said().splitlines() if line.startswith("│")]
    assert shown == [
        ["first_hospital", "1", "1", "0"],
        ["second_hospital", "1", "1", "0"],
        ["first_hospital", "-", "-", "-"],
        ["second_hospital", "cells", "covariate_shift", "update: version 2 accepted"],
        ["second_hospital", "other", "no_drift", "none"],
    ]


def test_a_report_is_the_latest_of_its_own_adapter(workplace):
    drift = workplace.registry.drift
    ours = file_look(workplace.registry, "cells", "second_hospital", Verdict.NO_DRIFT, Action.NONE)
    theirs = file_look(workplace.registry, "other", "second_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    assert drift.latest("second_hospital") == theirs
    assert drift.latest("second_hospital", "cells") == ours
    assert drift.latest("second_hospital", "other") == theirs
    assert drift.latest("second_hospital", "third") is None


def test_the_newest_report_and_the_counts_are_each_adapters_own(workplace):
    drift = workplace.registry.drift
    unnamed = file_look(workplace.registry, "", "first_hospital", Verdict.DATA_FAULT, Action.QUARANTINE)
    file_look(workplace.registry, "cells", "first_hospital", Verdict.NO_DRIFT, Action.NONE)
    theirs = file_look(workplace.registry, "other", "first_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    ours = file_look(workplace.registry, "cells", "first_hospital", Verdict.NO_DRIFT, Action.NONE)
    assert drift.latest_of_each() == {
        ("first_hospital", ""): unnamed,
        ("first_hospital", "cells"): ours,
        ("first_hospital", "other"): theirs,
    }
    assert drift.counts() == {
        ("first_hospital", "", Verdict.DATA_FAULT): 1,
        ("first_hospital", "cells", Verdict.NO_DRIFT): 2,
        ("first_hospital", "other", Verdict.COVARIATE_SHIFT): 1,
    }


@pytest.fixture
def drift_command(workplace):
    """Runs a verb of `continual drift` on the workspace, in this process; what came of it."""
    from flows.commands.command_line import app

    return lambda *arguments: CliRunner().invoke(
        app, ["drift", *arguments, "--workspace", str(workplace.settings.workspace), "--json"]
    )


def test_a_verb_about_drift_shows_all_adapters_looks_unless_one_is_named(workplace, drift_command):
    ours = file_look(workplace.registry, "cells", "second_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    theirs = file_look(workplace.registry, "other", "second_hospital", Verdict.NO_DRIFT, Action.NONE)

    def said(*arguments):
        found = json.loads(drift_command(*arguments).stdout)
        return [each["id"] for each in (found if isinstance(found, list) else [found])]

    assert said("show", "second_hospital") == [theirs.id]
    assert said("show", "second_hospital", "--adapter", "cells") == [ours.id]
    assert said("list", "second_hospital") == [theirs.id, ours.id]
    assert said("list", "second_hospital", "-a", "cells") == [ours.id]
    assert said("list", "--adapter", "other") == [theirs.id]
    assert said("list", "first_hospital", "-a", "cells") == []


def test_a_verb_about_drift_names_the_adapters_there_are_and_the_one_that_never_looked(workplace, drift_command):
    file_look(workplace.registry, "cells", "second_hospital", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    for arguments in (("show", "second_hospital"), ("list", "second_hospital"), ("list",)):
        ended = drift_command(*arguments, "--adapter", "celz")
        assert isinstance(ended.exception, NotFoundError)
        assert "no adapter 'celz'; known: cells, other" in str(ended.exception)
    ended = drift_command("show", "second_hospital", "-a", "other")
    assert isinstance(ended.exception, NotFoundError)
    assert "no drift report of adapter 'other' for site 'second_hospital'" in str(ended.exception)


def test_a_streams_result_has_the_verdicts_of_its_own_adapter(released):
    from flows.benchmarks.results import stream_result
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        file_look(workplace.registry, "other", "first", Verdict.COVARIATE_SHIFT, Action.UPDATE)
        assert stream_result(context, ["first"])["drift"] == {}
        file_look(workplace.registry, "cells", "first", Verdict.NO_DRIFT, Action.NONE)
        file_look(workplace.registry, "other", "first", Verdict.DATA_FAULT, Action.QUARANTINE)
        assert stream_result(context, ["first"])["drift"] == {"first": "no_drift"}
