"""The command line as its user meets it: quick help, commands that the documents name, errors of one line."""

import json
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from flows.commands.command_line import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HELP_CPU_SECONDS = 0.5
MAIN = "import sys; from flows.commands.command_line import main; sys.argv[0] = 'continual'; main()"
SEVERAL = """
import json, sys
from flows.commands.command_line import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["continual", *arguments]
    try:
        main()
    except SystemExit as ended:
        print("exit code", ended.code, file=sys.stderr)
"""
HEAVY = ("torch", "prefect", "sqlalchemy", "pydicom", "fastapi", "evidently", "pandas", "scipy", "numpy", "httpx")


def spent_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def command(command_environment, tmp_path):
    """Runs `continual` with arguments in a folder of its own; the ended process."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", MAIN, *map(str, arguments)],
            cwd=tmp_path,
            env=command_environment(PYTHONPATH=str(ROOT), **environment),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    return run


def documented_commands() -> list[tuple[str, str]]:
    """Document and every command line after `continual` in its code blocks and between backticks."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`(continual [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        commands = (re.search(r"(?:^|[\s/])continual ([a-z].*)", line.split(" #")[0]) for line in lines)
        found += [(document.name, match.group(1).strip()) for match in commands if match]
    return found


def parse(arguments: list[str]) -> list[str]:
    """The verbs a command line names; typer's own error when a verb, option or value is unknown."""
    command, path = typer.main.get_command(app), []
    context = command.make_context("continual", arguments)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
        context = command.make_context(name, list(rest), parent=context)
    return path


def test_help_costs_under_half_a_second_and_loads_nothing_heavy(command):
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, flows.commands.command_line; print([n for n in {HEAVY!r} if n in sys.modules])",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "[]"
    costs = []
    for _ in range(3):
        before = spent_by_children()
        assert command("--help").returncode == 0
        costs.append(spent_by_children() - before)
    # The least of three: what else runs on the machine makes a process dearer, never cheaper.
    assert min(costs) < HELP_CPU_SECONDS


def test_help_teaches_the_order_of_use(command):
    said = " ".join(command("--help").stdout.split())
    order = said.split("In this order:")[1]
    verbs = ["demo", "run", "status", "adapters list", "serve", "deploy"]
    places = [order.index(verb) for verb in verbs]
    assert places == sorted(places)


def test_every_verb_and_every_option_without_a_meaning_of_its_own_is_explained():
    def walk(command, path):
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                walk(inner, [*path, name])
        else:
            assert command.help, path

    walk(typer.main.get_command(app), [])


def test_the_documents_name_the_verbs_that_matter():
    named = {tuple(parse(shlex.split(line))) for document, line in documented_commands() if document == "README.md"}
    assert {
        ("demo",),
        ("run",),
        ("status",),
        ("serve",),
        ("deploy",),
        ("adapters", "rollback"),
        ("memory", "erase"),
    } <= named


@pytest.mark.parametrize(("document", "line"), documented_commands())
def test_every_command_in_the_documents_is_one_the_command_line_takes(document, line):
    assert parse(shlex.split(line))


def test_a_command_that_does_not_exist_would_be_noticed():
    with pytest.raises(Exception, match="No such option"):
        parse(["status", "--workplace", "wbc"])
    with pytest.raises(Exception, match="No such command"):
        parse(["statsu"])


def one_line(ended: subprocess.CompletedProcess[str]) -> str:
    """The only line on standard error of a command that refused."""
    assert ended.returncode == 2, ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr + ended.stdout
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("continual: ")
    return lines[0]


def run_options(**changed: object) -> list[object]:
    wanted = {
        "manifest": "manifest.csv",
        "sites": "first",
        "adapter": "cells",
        "backbone": "backbone.safetensors",
        "workspace": "workspace",
        "image-size": 64,
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    return ["run", *(part for name, value in wanted.items() for part in (f"--{name}", value))]


def test_a_missing_manifest_ends_at_once_and_makes_nothing(command, tmp_path):
    said = one_line(command(*run_options()))
    assert "'manifest.csv' cannot be read (No such file or directory); give the path of a CSV file" in said
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_is_named_with_those_that_are_there(command, tmp_path):
    (tmp_path / "manifest.csv").write_text("path,site,label\na.png,first,red\n")
    said = one_line(command("ingest", "--manifest", "manifest.csv", "--workspace", "workspace"))
    assert "column 'subject' is missing; the header has: path, site, label" in said
    assert not (tmp_path / "workspace").exists()


def test_an_unknown_site_ends_before_the_sites_before_it_are_learnt(command, tmp_path, stream):
    stream.write_manifest(tmp_path / "manifest.csv", stream.write_cells(tmp_path, "first", ["anna"], 1))
    said = one_line(command(*run_options(sites="first,atlantis")))
    assert "no image of site 'atlantis'; sites there: first" in said
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("adapters", "list"),
        ("adapters", "show", "cells"),
        ("drift", "show", "first"),
        ("drift", "list"),
        ("alerts", "list"),
        ("alerts", "send"),
        ("memory", "show", "--adapter", "cells"),
        ("memory", "erase", "--subject", "0" * 16, "--reason", "withdrawn"),
        ("monitor", "--adapter", "cells"),
        ("update", "--adapter", "cells"),
    ],
)
def test_a_missing_workspace_names_the_remedy_and_is_not_made(command, tmp_path, arguments):
    said = one_line(command(*arguments, "--workspace", "nowhere"))
    assert "no workspace at nowhere; make one with `continual run` or `continual demo`" in said
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_or_site_that_does_not_exist_is_answered_with_those_that_do(command, released):
    workspace = ("--workspace", released.workspace)
    assert "no adapter 'nobody'; known: cells" in one_line(command("adapters", "show", "nobody", *workspace))
    assert "no adapter 'nobody'; known: cells" in one_line(command("memory", "show", "-a", "nobody", *workspace))
    said = one_line(command("drift", "show", "mars", *workspace))
    assert "no drift report for site 'mars'; known sites: first" in said
    assert "nobody" in one_line(command("adapters", "rollback", "nobody", "--reason", "test", *workspace))


def test_a_deployment_without_a_server_says_how_to_start_one(command, tmp_path):
    said = one_line(command("deploy", "--adapter", "cells", "--workspace", "workspace"))
    assert "start one with `prefect server start`" in said


@pytest.mark.parametrize(
    ("cron", "address", "remedy"),
    [
        ("every day", "http://127.0.0.1:9/api", "write minute hour day month weekday"),
        ("0 2 * * *", "http://127.0.0.1:9/api", "the Prefect server at http://127.0.0.1:9/api does not answer"),
    ],
)
def test_a_deployment_that_cannot_be_made_says_why(command, cron, address, remedy):
    said = one_line(command("deploy", "--adapter", "cells", "--cron", cron, PREFECT_API_URL=address))
    assert remedy in said


def test_errors_inside_a_prefect_run_are_one_line_each(command_environment, released, tmp_path, stream):
    stream.write_manifest(tmp_path / "manifest.csv", stream.write_cells(tmp_path, "first", ["anna", "bert"], 1))
    stream.write_backbone(tmp_path / "backbone.safetensors")
    stream.write_backbone(tmp_path / "deeper.safetensors", depth=5)
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04\x95 not a safetensors file")
    expected = {
        "no adapter 'nobody'; known: cells; make one with": [
            "monitor",
            "--adapter",
            "nobody",
            "-w",
            released.workspace,
        ],
        "file 'missing.safetensors' does not exist": run_options(backbone="missing.safetensors"),
        "weights do not fit small_vision_transformer": run_options(backbone="deeper.safetensors"),
        "only that format is loaded, never pickle": run_options(backbone="pickle.safetensors"),
        "no strategy 'telepathy'; choose one of naive, ": run_options(strategy="telepathy"),
        "'full' makes no version: a version is an adapter on a frozen": run_options(compare="naive,full"),
        "'warp' is no device; use auto, cpu, cuda or cuda:N": run_options(device="warp"),
    }
    # A device that is asked for stays asked for in its process, so those come last.
    # One process for all of them: each `continual` of its own would start a Prefect server of its own.
    ended = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps([list(map(str, command)) for command in expected.values()])],
        cwd=tmp_path,
        env=command_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    said = ended.stderr.splitlines()
    assert said[1::2] == ["exit code 2"] * len(expected), ended.stderr
    for line, (reason, command) in zip(said[::2], expected.items(), strict=True):
        assert line.startswith("continual: ")
        assert reason in line, command
    assert "Traceback" not in ended.stdout
