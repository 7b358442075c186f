"""Cases worth a label: which are chosen, and that what is written comes back as labels."""

import csv
from dataclasses import replace

import pytest

from continual.domain.errors import NotFoundError, SettingsError
from continual.domain.samples import Sample, Split


@pytest.fixture
def choose(libraries):
    from flows.drift.label_requests import choose_cases

    return choose_cases


def sample(number, subject):
    return Sample(f"{(number * 7919) % 104729:064x}", "first", subject, None, Split.TRAIN, "", batch=2)


def test_cases_are_drawn_by_digest_and_asking_again_gives_the_same(choose):
    samples = [sample(number, f"s{number}") for number in range(100)]
    cases = choose(samples, 20)
    assert [case.digest for case in cases] == sorted(one.digest for one in samples)[:20]
    assert choose(samples[::-1], 20) == cases


def test_a_subject_has_no_second_case_before_everybody_has_one(choose):
    samples = [sample(number, f"s{number % 5}") for number in range(50)]
    subjects = {one.digest: one.subject for one in samples}
    cases = choose(samples, 10)
    assert len({subjects[case.digest] for case in cases[:5]}) == 5
    assert len({subjects[case.digest] for case in cases[5:]}) == 5


def test_what_is_written_is_labelled_and_comes_back(released, tmp_path):
    from flows.drift.label_requests import write_cases
    from flows.drift.late_labels import take_labels
    from flows.monitor import look
    from flows.workplace import open_workplace

    rows = released.cells("first", tuple(f"w{number}" for number in range(12)), seed=91)
    released.take_in([replace(row, label="") for row in rows], "first", "cells")
    folder = tmp_path / "cases"
    nothing = "of 24 unlabelled images of site 'first' version 1 has predicted 0"
    with open_workplace(released.workspace) as workplace, pytest.raises(NotFoundError, match=nothing):
        write_cases(workplace, "cells", "first", folder, 10)
    look(released.workspace, "cells", "first", now=True)
    with open_workplace(released.workspace) as workplace:
        cases = write_cases(workplace, "cells", "first", folder, 10)
        assert len(list(folder.glob("*.png"))) == len(cases) == 10
        with pytest.raises(SettingsError, match="may hold labels"):
            write_cases(workplace, "cells", "first", folder, 10)
        table = folder / "labels.csv"
        asked = list(csv.DictReader(table.read_text().splitlines()))
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, asked[0])
            writer.writeheader()
            writer.writerows(row | {"label": "red"} for row in asked)
        assert take_labels(workplace, table, "cells").new == 10
        left = workplace.registry.samples.list("first")
        assert sum(one.label is None for one in left) == 14


def test_an_image_that_is_stored_no_more_is_nobodys_case(released, tmp_path):
    from flows.drift.label_requests import write_cases
    from flows.monitor import look
    from flows.workplace import open_workplace

    rows = released.cells("first", tuple(f"w{number}" for number in range(12)), seed=91)
    released.take_in([replace(row, label="") for row in rows], "first", "cells")
    look(released.workspace, "cells", "first", now=True)
    with open_workplace(released.workspace) as workplace:
        samples = [one for one in workplace.registry.samples.list("first") if one.label is None]
        for gone in samples[:20]:
            workplace.registry.artifacts.delete(gone.artifact)
        cases = write_cases(workplace, "cells", "first", tmp_path / "cases", 10)
        assert {case.digest for case in cases} == {one.digest for one in samples[20:]}
