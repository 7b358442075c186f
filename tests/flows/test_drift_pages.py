"""The card and the page of a real look at a real small site, by the command line; what is erased is gone from it."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from continual.domain.drift import Verdict
from continual.domain.samples import pseudonym

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from flows.commands.command_line import main; sys.argv[0] = 'continual'; main()"


@pytest.fixture
def command(command_environment):
    def run(*arguments: object) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", MAIN, *map(str, arguments)],
            env=command_environment(PYTHONPATH=str(ROOT), COLUMNS="80"),
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return ended.stdout

    return run


@pytest.fixture(scope="module")
def looked(released_folder, stream, tmp_path_factory):
    """Unlabelled pictures of the second site arrive at the first one and are looked at; to be copied, never changed."""
    from flows.monitor import look

    desk = stream.Desk(tmp_path_factory.mktemp("looked") / "desk")
    shutil.copytree(released_folder, desk.folder)
    rows = [replace(row, site="first", label="") for row in desk.cells("second", seed=60)]
    desk.take_in(rows, "first", "cells")
    assert look(desk.workspace, "cells", "first", now=True).verdict is Verdict.COVARIATE_SHIFT
    return desk


@pytest.fixture
def drifted(looked):
    with looked.registry() as registry:
        return registry.drift.latest("first")


def read_page(path: Path) -> str:
    page = path.read_text()
    assert not re.search(r"<(?:script|link|img|iframe|a)[^>]+(?:src|href)=.?https?:", page)
    return page


def test_the_card_names_the_shifted_colour_and_stored_images(looked, drifted):
    cause = drifted.root_cause
    assert "mean_red" in {shift.name for shift in cause.shifts}
    assert {shift.since_window for shift in cause.shifts} == {1}
    assert all(shift.since_date is not None for shift in cause.shifts)
    with looked.registry() as registry:
        assert registry.drift.latest("first") == drifted
        samples = registry.samples.get([*cause.nearest, *cause.farthest], "first")
        assert len({sample.subject for sample in samples}) == len(samples) == 8
        assert registry.artifacts.has(drifted.projection)


def test_a_projection_names_no_image_and_no_subject(looked, drifted):
    with looked.registry() as registry:
        text = registry.artifacts.get(drifted.projection).decode()
        samples = registry.samples.list("first")
    assert not any(name in text for sample in samples for name in (sample.digest, sample.subject))


def test_the_command_shows_the_card_and_writes_the_page_with_thumbnails_and_tables(looked, drifted, command, tmp_path):
    out = tmp_path / "first.html"
    said = command("drift", "show", "first", "-w", looked.workspace, "--html", out)
    assert "Root cause:" in said
    assert max(len(line) for line in said.splitlines()) <= 80
    page = read_page(out)
    assert page.count("data:image/png;base64,") == 12
    assert "Send labels" in page
    assert "pixel mean_red" in page  # a column of Evidently's tables


def test_images_of_an_erased_subject_are_gone_from_the_page_and_the_report_stands(looked, drifted, tmp_path):
    from flows.drift.drift_pages import write_drift_page
    from flows.erasure import Person, erase_person
    from flows.workplace import open_workplace

    shutil.copytree(looked.workspace, tmp_path / "workspace")
    with open_workplace(tmp_path / "workspace") as workplace:
        owner = workplace.registry.samples.get([drifted.root_cause.farthest[0]], "first")[0].subject
        known = {pseudonym(workplace.key, "first", f"s{number}") for number in range(40)}
        assert owner in known
        erase_person(workplace, Person(subject=owner), "withdrawn")
        write_drift_page(workplace, workplace.registry.drift.latest("first"), tmp_path / "page.html")
        assert workplace.registry.drift.latest("first") == drifted
    page = read_page(tmp_path / "page.html")
    assert page.count("data:image/png;base64,") == 11
    assert page.count('<div class="missing">erased</div>') == 1
    assert owner not in page
