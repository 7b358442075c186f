"""The replay memory of a real workspace, and a subject erased from all of it, by functions and the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from continual.domain.errors import LearningError, NotFoundError, SettingsError
from continual.domain.samples import Split, pseudonym
from flows.erasure import ErasureReport, Person, erase_person
from flows.updates.memory_content import MemoryView, memory_view, remembered_by
from flows.workplace import open_workplace

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from flows.commands.command_line import main; sys.argv[0] = 'continual'; main()"
KILLED = """
import os, signal, sys
from flows import erasure
from flows.workplace import open_workplace
erasure.forget_activations = lambda folder, digests: os.kill(os.getpid(), signal.SIGKILL)
with open_workplace(sys.argv[1]) as workplace:
    erasure.erase_person(workplace, erasure.Person(subject=sys.argv[2]), "withdrawn")
"""
WHY = "the patient withdrew consent"
BYTES = 150_000
SHIFTED = tuple(f"t{number}" for number in range(40))


@pytest.fixture(scope="module")
def learnt_folder(stream, libraries, tmp_path_factory):
    """A desk with two sites learnt, its memory herded and bounded in bytes; to be copied, never changed."""
    desk = stream.Desk(tmp_path_factory.mktemp("learnt") / "desk")
    desk.folder.mkdir()
    desk.take_in(desk.cells("first"), "first")
    assert desk.release(replay_policy="herding", replay_bytes=BYTES) == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    assert desk.learn("second") == "version 2 accepted"
    return desk.folder


@pytest.fixture
def learnt(learnt_folder, tmp_path, stream):
    shutil.copytree(learnt_folder, tmp_path / "desk")
    return stream.Desk(tmp_path / "desk")


@pytest.fixture
def command(command_environment):
    """Runs `continual` with arguments on a narrow terminal; the ended process."""

    def run(*arguments: object, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", MAIN, *map(str, arguments)],
            env=command_environment(PYTHONPATH=str(ROOT), COLUMNS="80", CONTINUAL_ACTOR="officer"),
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def erase(desk, reason: str = WHY, **person: str) -> ErasureReport:
    with open_workplace(desk.workspace) as workplace:
        return erase_person(workplace, Person(**person), reason)


def view(desk) -> MemoryView:
    with open_workplace(desk.workspace) as workplace:
        return memory_view(workplace, "cells")


def remembered_subject(desk, site: str) -> str:
    return next(row["subject"] for row in view(desk).listed if row["site"] == site)


def held(desk, subject: str):
    with desk.registry() as registry:
        return [sample for sample in registry.samples.list() if sample.subject == subject]


def traces(desk, samples) -> list[str]:
    """Names of the files that hold an image or an activation of the samples."""
    names = {sample.digest for sample in samples} | {sample.artifact for sample in samples}
    files = (path.name for path in Path(desk.workspace).rglob("*") if path.is_file())
    return [name for name in files if name.partition(".")[0] in names]


def test_policy_and_capacity_are_in_each_record_and_the_memory_keeps_within_them(learnt):
    with learnt.registry() as registry:
        for version in registry.adapters.list("cells"):
            plan = version.record["options"]["plan"]
            assert (plan["replay_policy"], plan["replay_bytes"], plan["replay_samples"]) == ("herding", BYTES, 30)
            samples = remembered_by(registry, version)
            sizes = [len(registry.samples.read(sample)) for sample in samples]
            assert 0 < sum(sizes) <= BYTES
            assert BYTES - sum(sizes) < 20_000
            assert {sample.split for sample in samples} == {Split.TRAIN}
    shown = view(learnt)
    assert (shown.policy, shown.capacity_bytes, shown.samples) == ("herding", BYTES, len(samples))
    assert shown.size_bytes == sum(sizes) == sum(cell["bytes"] for cell in shown.cells)
    assert {(cell["site"], cell["label"]) for cell in shown.cells} == {
        (site, label) for site in ("first", "second") for label in ("blue", "red")
    }
    assert {row["since_version"] for row in shown.listed if row["site"] == "first"} == {1}
    assert {row["since_version"] for row in shown.listed if row["site"] == "second"} == {2}


def test_an_erased_subject_leaves_every_place_and_the_versions_that_learnt_it_are_named(learnt):
    subject = remembered_subject(learnt, "first")
    samples, before = held(learnt, subject), view(learnt)
    assert len(traces(learnt, samples)) == 2 * 3
    report = erase(learnt, subject=subject)
    assert (report.erased.samples, report.erased.artifacts, report.activation_files) == (2, 2, 4)
    assert [(one.version, one.how) for one in report.versions] == [(1, "learnt"), (2, "replayed")]
    assert traces(learnt, samples) == []
    assert held(learnt, subject) == []
    after = view(learnt)
    assert (after.samples + after.erased, before.erased) == (before.samples, 0)
    assert after.erased > 0
    with learnt.registry() as registry:
        entry = registry.ledger.list(after=registry.ledger.verify() - 1)[0]
        assert (entry.payload["subject"], entry.payload["reason"]) == (subject, WHY)
        assert len(registry.adapters.current("cells").record["memory"]) == before.samples


def test_after_an_erasure_updates_references_and_looks_go_on_without_the_subject(learnt):
    from flows.benchmarks.results import reference_result, stream_result
    from flows.monitor import look
    from flows.update import learn_site
    from flows.updates.adapter_context import context_of

    subject = remembered_subject(learnt, "first")
    samples = held(learnt, subject)
    erase(learnt, subject=subject)
    with learnt.registry() as registry:
        # Every held-out subject of the first site as well: the site is left without a reference window.
        others = {s.subject for s in registry.samples.list("first", Split.VALIDATION)}
    for other in others:
        erase(learnt, subject=other)
    learnt.take_in(learnt.cells("second", tuple(f"late{n}" for n in range(24)), seed=5), "second", "cells")
    assert look(learnt.workspace, "cells", "second", now=True) is not None
    with open_workplace(learnt.workspace) as workplace:
        context = context_of(workplace, "cells")
        version = learn_site(context, "second", "replay_ewc")
        remembered = {digest for _, digest in version.record["memory"]}
        assert remembered
        assert not remembered & {sample.digest for sample in samples}
        assert version.record["replayed"] > 0
        assert stream_result(context, ["first", "second"])["sites"] == ["first", "second"]
        assert len(reference_result(context, "replay_ewc", ["first", "second"])["result_matrix"]) == 2
    assert traces(learnt, samples) == []


def test_a_site_whose_held_out_subjects_are_all_erased_has_no_reference_and_is_no_error(released):
    from flows.monitor import look

    with released.registry() as registry:
        held_out = {s.subject for s in registry.samples.list("first") if s.split is not Split.TRAIN}
    for subject in held_out:
        erase(released, subject=subject)
    released.take_in(released.cells("second", SHIFTED[:4], seed=2), "second", "cells")
    report = look(released.workspace, "cells", "second", now=True)
    assert (report.verdict.value, report.reference_subjects) == ("insufficient_data", 0)


def test_a_patient_who_returns_keeps_the_side_and_a_second_erasure_finds_the_new_samples(learnt):
    rows = learnt.cells("first", ("s3",), seed=9)
    with open_workplace(learnt.workspace) as workplace:
        name = pseudonym(workplace.key, "first", "s3")
    side = held(learnt, name)[0].split
    first = erase(learnt, patient_id=" s3 ", site="first")
    assert (first.subject, first.erased.samples) == (name, 2)
    assert learnt.take_in(rows, "first", "cells").new == 2
    assert {sample.split for sample in held(learnt, name)} == {side}
    again = erase(learnt, subject=name)
    assert (again.erased.samples, again.before) == (2, first.erased)
    assert set(first.versions) <= set(again.versions)


def test_an_erasure_killed_before_the_activations_are_gone_is_finished_by_running_it_again(learnt, command_environment):
    subject = remembered_subject(learnt, "second")
    samples = held(learnt, subject)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, learnt.workspace, subject],
        cwd=ROOT,
        env=command_environment(PYTHONPATH=str(ROOT)),
        check=False,
    )
    assert ended.returncode == -9
    assert held(learnt, subject) == []
    assert len(traces(learnt, samples)) == 4
    report = erase(learnt, subject=subject)
    assert (report.erased, report.activation_files) == (None, 4)
    assert [(one.version, one.how) for one in report.versions] == [(2, "learnt")]
    assert traces(learnt, samples) == []


def test_an_update_that_runs_meanwhile_is_named_and_its_version_afterwards(released):
    subject = remembered_subject(released, "first")
    with released.registry() as registry:
        begun = registry.updates.begin("cells", "second", 1, {}, "test")
    assert erase(released, subject=subject).running_updates == (begun.id,)
    with released.registry() as registry:
        registry.updates.finish(begun.id, None, "failed", {})
    assert erase(released, subject=subject).running_updates == ()


def test_an_erasure_takes_the_states_of_unfinished_updates_with_it(released):
    subject = remembered_subject(released, "first")
    folder = Path(released.workspace) / "training"
    folder.mkdir(exist_ok=True)
    for name in ("one.safetensors", "one.abc.part"):
        (folder / name).touch()
    report = erase(released, subject=subject)
    assert (report.training_states, report.as_record()["training_states"]) == (2, 2)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("person", "reason", "remedy"),
    [
        ({}, WHY, "--patient-id and --site; one of the two is needed"),
        ({"subject": "0" * 16, "patient_id": "ANNA-4711", "site": "first"}, WHY, "one of the two is needed"),
        ({"subject": "ANNA-4711"}, WHY, "a patient's own identifier goes into --patient-id"),
        ({"patient_id": "ANNA-4711"}, WHY, "--patient-id needs --site"),
        ({"patient_id": "s3", "site": "first"}, "letter of S3, article 17", "leave identifiers out of it"),
    ],
)
def test_a_person_not_clearly_named_is_refused_without_repeating_the_name(released, person, reason, remedy):
    with pytest.raises(SettingsError, match=remedy) as refused:
        erase(released, reason, **person)
    assert "ANNA" not in str(refused.value)
    with released.registry() as registry:
        assert registry.erasures.list() == []


def test_an_unknown_patient_is_not_found_with_the_remedy_and_without_the_name(released):
    with pytest.raises(NotFoundError, match=r"at site 'frist'; sites with subjects: first; check name and") as refused:
        erase(released, patient_id="ANNA-4711", site="frist")
    assert "ANNA" not in str(refused.value)


def test_an_unknown_policy_is_refused_before_the_intake(desk, stream):
    from flows.requests import Release
    from flows.update import check_before_release

    record = stream.small_options().as_record()
    record["plan"]["replay_policy"] = "luck"
    wish = Release("cells", str(stream.write_backbone(desk.folder / "backbone.safetensors")), None, record)
    with pytest.raises(LearningError, match="no replay policy 'luck'; choose one of class_and_site_balanced"):
        check_before_release(desk.workspace, wish)


def test_the_command_line_shows_the_memory_and_erases_a_patient_named_on_standard_input(learnt, command):
    place = ("--workspace", learnt.workspace)
    shown = command("memory", "show", "--adapter", "cells", "--samples", *place)
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "policy herding" in " ".join(shown.stdout.split())
    record = json.loads(command("memory", "show", "--adapter", "cells", "--json", *place).stdout)
    assert record["samples"] == sum(cell["samples"] for cell in record["cells"])
    assert "listed" not in record

    order = ("memory", "erase", "--patient-id", "-", "--site", "first", "--reason", WHY, *place)
    erased = command(*order, given="s3\n")
    assert erased.returncode == 0, erased.stderr
    said = " ".join(erased.stdout.split())
    assert ": 2 samples, 2 images, 0 quarantine entries" in said
    again = json.loads(command(*order, "--json", given="s3\n").stdout)
    assert (again["samples"], again["artifacts"], again["activation_files"]) == (0, 0, 0)
    assert again["erased_before"] is not None
    assert f"nothing is held of subject {again['subject']} of first; erased on" in command(*order, given="s3\n").stdout
    with learnt.registry() as registry:
        (entry,) = registry.erasures.list()
        assert (entry.actor, entry.reason, entry.subject) == ("officer", WHY, again["subject"])
    unknown = command("memory", "erase", "--subject", "0" * 16, "--reason", WHY, *place)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("continual: no subject 0000000000000000 was ever taken in at any site")


def test_a_window_whose_patients_were_all_erased_keeps_its_report(released):
    from flows.monitor import look

    released.take_in(released.cells("second", SHIFTED[:12], seed=2), "second", "cells")
    report = look(released.workspace, "cells", "second", now=True)
    with released.registry() as registry:
        arrived = {sample.subject for sample in registry.samples.list("second")}
    for subject in arrived:
        erase(released, subject=subject)
    assert look(released.workspace, "cells", "second", now=True) == report
    released.take_in(released.cells("second", SHIFTED[20:32], seed=3), "second", "cells")
    after = look(released.workspace, "cells", "second", now=True)
    assert (after.current_subjects, after.over_time.windows) == (12, 2)


def test_what_the_memory_holds_is_read_without_the_learning_libraries():
    asked = "import sys, flows.updates.memory_content; print([n for n in ('torch', 'avalanche') if n in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
