"""The past under another plan: the plan in force says what was said, another one says what it would have."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, Verdict
from continual.domain.errors import NotFoundError, SettingsError

ROOT = Path(__file__).parents[2]
SITES = ("first", "second")


def arrive(desk, first, last, *, site="first", labelled=False):
    """Two pictures each of subjects u<first> to u<last - 1>, in one intake."""
    rows = desk.cells(site, tuple(f"u{number}" for number in range(first, last)), seed=50 + first)
    if not labelled:
        rows = [replace(row, label="") for row in rows]
    desk.take_in(rows, site, "cells")


def watch(desk, site):
    from flows.monitor import look

    return look(desk.workspace, "cells", site, now=False)


def sayings(course):
    """A course's looks without their times."""
    return [(look.version, look.subjects, look.verdict, look.action) for look in course.looks]


def replayed(desk, site=None, **policy):
    """What a replay found, by site and plan."""
    from flows.drift.replay import replay
    from flows.workplace import open_workplace

    with open_workplace(desk.workspace) as workplace:
        found = replay(workplace, None, site, policy)
    return found, {(course.site, course.plan): course for course in found.courses}


@pytest.fixture(scope="module")
def watched_folder(released_folder, tmp_path_factory, stream):
    """A desk with five intakes of ten patients at each site, looked at after each as a schedule would."""
    folder = tmp_path_factory.mktemp("watched") / "desk"
    shutil.copytree(released_folder, folder)
    desk = stream.Desk(folder)
    for first in range(0, 50, 10):
        for site in SITES:
            arrive(desk, first, first + 10, site=site, labelled=site == "second")
            watch(desk, site)
    return folder


@pytest.fixture
def watched(watched_folder, stream):
    """That desk, to be read only."""
    return stream.Desk(watched_folder)


def test_the_plan_in_force_says_again_what_was_filed_and_files_nothing(watched):
    with watched.registry() as registry:
        filed = {site: registry.drift.list(site) for site in SITES}
        ledger = registry.ledger.verify()
    assert [report.verdict for report in filed["second"]][-1] is Verdict.COVARIATE_SHIFT
    _, courses = replayed(watched)
    for site in SITES:
        recorded, again = courses[site, "recorded"], courses[site, "in force"]
        assert sayings(again) == sayings(recorded)
        assert len(recorded.looks) == len(filed[site]) > 1
        assert courses[site, "policy"].looks == again.looks
    with watched.registry() as registry:
        assert registry.ledger.verify() == ledger
        assert {site: registry.drift.list(site) for site in SITES} == filed


def test_larger_windows_give_fewer_looks_and_a_later_first_alarm(watched):
    _, courses = replayed(watched, "second", window_subjects=40)
    assert {site for site, _ in courses} == {"second"}
    now, then = courses["second", "in force"], courses["second", "policy"]
    assert len(then.looks) < len(now.looks)
    assert then.alarms[0].at > now.alarms[0].at


def test_a_level_that_no_look_can_reach_gives_no_alarm_and_no_update(watched):
    _, courses = replayed(watched, "second", alpha=0.002, permutations=1999)
    now, then = courses["second", "in force"], courses["second", "policy"]
    assert len(then.alarms) <= len(now.alarms)
    assert len(then.updates) <= len(now.updates)


def test_a_cooldown_and_a_budget_hold_back_all_updates_but_the_first(watched):
    found, courses = replayed(watched, "second", minimum_labelled=1)
    free = courses["second", "policy"]
    assert len(free.updates) > 1
    assert {update.action for update in free.updates} == {Action.UPDATE}
    assert found.seconds_per_update is None
    assert free.training_seconds is None
    for rule, said in (("cooldown_days", "cooldown of 1 days at second"), ("updates_per_month", "budget of 1 updates")):
        _, courses = replayed(watched, "second", minimum_labelled=1, **{rule: 1})
        held = courses["second", "policy"]
        assert held.updates == free.updates[:1]
        assert [each.waits[: len(said)] for each in held.waiting] == [said]
        assert held.alarms == free.alarms


@pytest.fixture
def spread(watched_folder, tmp_path, stream):
    """A copy of that desk whose intakes of the second site came ten days apart."""
    shutil.copytree(watched_folder, tmp_path / "desk")
    desk = stream.Desk(tmp_path / "desk")
    with closing(sqlite3.connect(f"{desk.workspace}/registry.db")) as database, database:
        rows = database.execute("SELECT number, created_at FROM batches WHERE site = 'second' ORDER BY number")
        for place, (number, at) in enumerate(rows.fetchall()):
            later = datetime.fromisoformat(at) + timedelta(days=10 * place)
            database.execute("UPDATE batches SET created_at = ? WHERE number = ?", (str(later), number))
    return desk


def test_a_window_closes_at_its_age_by_the_clock_of_then(spread):
    _, courses = replayed(spread, "second", window_subjects=1000, window_days=4.0)
    with spread.registry() as registry:
        came = [batch.created_at for batch in registry.samples.batches("second")]
    # The window of the last intake comes of age after the end of history; between, labels judge the last one again.
    looked = [look.at for look in courses["second", "policy"].looks]
    assert looked[0] == came[0] + timedelta(days=4)
    assert set(looked) == {at + timedelta(days=4) for at in came[:-1]} | set(came[1:])


def test_an_update_that_was_held_begins_when_the_hold_is_over(spread):
    rules = {"window_subjects": 10, "minimum_labelled": 1}
    _, courses = replayed(spread, "second", **rules)
    free = courses["second", "policy"].updates
    assert len(free) > 2
    _, courses = replayed(spread, "second", **rules, cooldown_days=14.0)
    held = courses["second", "policy"]
    gaps = [later.at - earlier.at for earlier, later in pairwise(held.updates)]
    assert gaps
    assert set(gaps) == {timedelta(days=14)}
    assert len(held.updates) < len(free)


def test_what_came_later_changes_nothing_of_what_was_said_before(released):
    for first in (0, 20):
        arrive(released, first, first + 20, site="second", labelled=True)
    _, before = replayed(released, "second", window_subjects=15)
    arrive(released, 40, 60, site="second", labelled=True)
    _, after = replayed(released, "second", window_subjects=15)
    for plan in ("in force", "policy"):
        said = before["second", plan].looks
        assert said
        assert after["second", plan].looks[: len(said)] == said


def test_what_shapes_training_alone_is_named_and_changes_no_look(watched):
    found, courses = replayed(watched, "second", past_site_drop=0.5, strategies=("naive",))
    assert found.not_replayed == ("past_site_drop", "strategies")
    assert courses["second", "policy"].alarms == courses["second", "in force"].alarms


def test_a_replay_says_the_same_again_and_fits_a_terminal(watched):
    from rich.console import Console

    from flows.commands.replay_table import replay_record, show_replay

    first, _ = replayed(watched, window_subjects=40, updates_per_month=1)
    assert replayed(watched, window_subjects=40, updates_per_month=1)[0] == first
    console = Console(width=80, record=True)
    show_replay(console, first)
    said = console.export_text()
    assert "covariate_shift" in said
    assert "no promotion is assumed" in said
    assert max(len(line) for line in said.splitlines()) <= 80
    assert replay_record(first)["courses"][0]["plan"] == "recorded"


def test_a_site_that_sent_nothing_since_its_release_has_an_empty_history(released):
    _, courses = replayed(released)
    assert {(course.looks, course.alarms, course.updates) for course in courses.values()} == {((), (), ())}
    with pytest.raises(NotFoundError, match=r"no site 'third'; known sites: first"):
        replayed(released, "third")


def test_an_update_that_history_promoted_ends_what_was_said_of_the_champion_before(released):
    arrive(released, 0, 40, site="second", labelled=True)
    watch(released, "second")
    assert released.learn("second") == "version 2 accepted"
    arrive(released, 40, 60, site="second")
    watch(released, "second")
    found, courses = replayed(released, "second", minimum_labelled=1)
    recorded, again = courses["second", "recorded"], courses["second", "in force"]
    assert {look.version for look in recorded.looks} == {1, 2}
    assert sayings(again) == sayings(recorded)
    assert len(recorded.updates) == 1
    assert found.seconds_per_update == recorded.training_seconds
    would_be = courses["second", "policy"]
    assert would_be.training_seconds == len(would_be.updates) * recorded.training_seconds


@pytest.fixture
def command(command_environment):
    """Runs `continual` with these arguments; the ended process."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "flows.commands.command_line", *map(str, arguments)],
            cwd=ROOT,
            env=command_environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


def test_the_command_answers_in_json_alone(watched, command, tmp_path):
    policy = write(tmp_path, "[plan]\nwindow_subjects = 40\n")
    at = ["--site", "second", "--workspace", watched.workspace]
    said = command("drift", "replay", "--policy", policy, *at, "--json")
    found = json.loads(said.stdout)
    assert [course["plan"] for course in found["courses"]] == ["recorded", "in force", "policy"]
    assert found["policy"] == {"window_subjects": 40}
    assert any("no promotion is assumed" in line for line in found["assumed"])


def test_a_release_under_a_policy_that_no_plan_can_have_makes_nothing(command, tmp_path):
    policy = write(tmp_path, "[plan]\ncooldown = 14\n")
    given = ["--manifest", tmp_path, "--sites", "first", "--backbone", "none", "--workspace", tmp_path / "made"]
    said = command("run", "--adapter", "cells", "--policy", policy, *given)
    assert said.returncode == 2
    assert "a change plan has no 'cooldown'; the nearest are cooldown_days" in said.stderr
    assert not (tmp_path / "made").exists()


def test_the_policy_in_the_readme_is_one_that_a_plan_can_have(tmp_path):
    from flows.commands.policy import read_policy

    shown = re.search(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    changes = read_policy(write(tmp_path, shown.group(1)))
    assert ChangePlan().changed(changes).cooldown_days == 14


def write(folder, text):
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_policy_is_read_as_the_plan_holds_it(tmp_path):
    from flows.commands.policy import read_policy

    path = write(tmp_path, '[plan]\ncooldown_days = 14\nstrategies = ["naive"]\nharm_cleared = 0.02\n')
    assert read_policy(path) == {"cooldown_days": 14.0, "strategies": ("naive",), "harm_cleared": 0.02}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[plan]\ncooldown = 3\n", r"has no 'cooldown'; the nearest are cooldown_days"),
        ("[plan]\nwindow_subjects = 2.5\n", r"window_subjects is 2.5, must be of the kind of 20"),
        ("[plan]\nalpha = true\n", r"alpha is True, must be of the kind of 0.05"),
        ("alpha = 0.1\n", r"has 'alpha' beside the table \[plan\]"),
        ("plan = 3\n", r"gives one value for the table \[plan\]"),
        ("[plan\n", "no TOML"),
    ],
)
def test_a_policy_that_no_plan_can_have_is_refused_and_says_why(tmp_path, text, said):
    from flows.commands.policy import read_policy

    with pytest.raises(SettingsError, match=said):
        read_policy(write(tmp_path, text))


def test_a_policy_that_is_not_there_is_refused(tmp_path):
    from flows.commands.policy import read_policy

    with pytest.raises(SettingsError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")


def test_values_that_no_plan_may_have_are_refused_before_any_look(released):
    with pytest.raises(SettingsError, match="alpha is 2"):
        replayed(released, alpha=2.0)
