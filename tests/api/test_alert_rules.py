"""The example alert rules: Prometheus reads them, they name what /metrics tells, and they fire when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from continual.domain.drift import Action, Verdict
from continual.domain.samples import CleanImage

RULES = Path(__file__).parents[2] / "docs" / "alerts" / "continual.rules.yml"
PROMTOOL = shutil.which("promtool")
WORDS = {"and", "or", "unless", "on", "by", "sum", "rate", "time", "absent", "delta"}
"""Of the query language, as much as the rules use."""
DURATION = re.compile(r"\d+[smhdw]")
EXPOSED = re.compile(r"^(\w+)(?:{(.*)})? \S+$", re.MULTILINE)
NEEDS_PROMTOOL = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def rules():
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def named_metrics(expression):
    """Metric to the labels that its matchers ask for."""
    bare = re.sub(r"\b(?:on|by) \([\w, ]*\)|\[\w+\]", " ", expression)
    found = {}
    for name, matchers in re.findall(r"\b([a-z_]\w*)\s*(?:{([^}]*)})?", bare):
        if name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r'(\w+)\s*=~?\s*"', matchers))
    return found


@pytest.fixture
def exposed(door, bench):
    """Metric to its labels, from a server that has seen a champion, a look and a delivery."""
    bench.champion("wbc")
    report = bench.registry.drift.get(bench.look("south", Verdict.COVARIATE_SHIFT, Action.UPDATE))
    bench.registry.drift.add(report, "test", ["https://desk.example#00000001"])
    image = CleanImage("0" * 64, "south", "0" * 16, "dark", bench.png(), 64, 64)
    bench.registry.samples.record("south", [image], [], "test")
    door.http.get("/v1/adapters")
    lines = EXPOSED.findall(door.http.get("/metrics").text)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in lines}


def test_rules_have_names_of_their_own_a_severity_a_duration_and_words():
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 8
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert DURATION.fullmatch(rule["for"]), rule["alert"]
        assert rule["labels"]["severity"] in {"info", "warning", "page"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_rules_ask_only_for_metrics_and_labels_that_the_server_tells(exposed):
    for rule in rules():
        named = named_metrics(rule["expr"])
        assert named, rule["alert"]
        for metric, labels in named.items():
            assert metric in exposed, rule["alert"]
            assert labels <= exposed[metric], (rule["alert"], metric)


def test_rules_about_a_site_are_about_one_adapter_and_name_both():
    joined = [labels for rule in rules() for labels in re.findall(r"\bon \(([\w, ]*)\)", rule["expr"])]
    assert joined == ["site, adapter", "site, adapter"]
    assert sum("$labels.site" in rule["annotations"]["summary"] for rule in rules()) == 5
    for rule in rules():
        for words in rule["annotations"].values():
            assert ("$labels.site" in words) == ("$labels.adapter" in words), rule["alert"]


def test_verdicts_and_states_in_the_rules_are_ones_that_exist():
    verdicts = {verdict.value for verdict in Verdict}
    for rule in rules():
        for label, value in re.findall(r'(verdict|state)=~?"([^"]*)"', rule["expr"]):
            known = verdicts if label == "verdict" else {"waiting", "retrying", "delivered", "given_up"}
            assert set(value.split("|")) <= known, rule["alert"]


def test_a_metric_that_is_not_told_would_be_noticed(exposed):
    assert not set(named_metrics('rate(continual_nonsense{site="x"}[5m]) > 1')) <= set(exposed)


@NEEDS_PROMTOOL
def test_promtool_reads_the_rules():
    checked = subprocess.run([PROMTOOL, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout


def judged_by_promtool(series, alert, at, expected, folder):
    """Whether exactly the expected alerts fire at that time, and what promtool says. The rules come without words."""
    bare = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in bare["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (folder / "rules.yml").write_text(json.dumps(bare))
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": at, "alertname": alert, "exp_alerts": [{"exp_labels": labels} for labels in expected]}
                ],
            }
        ],
    }
    path = folder / "rules.test.yml"
    path.write_text(json.dumps(test))
    done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


NORTH = {"site": "north", "adapter": "cells"}
FAULT = 'continual_drift_verdict{site="north",adapter="cells",verdict="data_fault"}'
OTHERS_FAULT = 'continual_drift_verdict{site="north",adapter="other",verdict="data_fault"}'
ALARM = 'continual_drift_alarm{site="north",adapter="cells"}'
OTHERS_ALARM = 'continual_drift_alarm{site="north",adapter="other"}'
EVIDENCE = 'continual_drift_evidence{site="north",adapter="cells"}'
LIMIT = 'continual_drift_evidence_limit{site="north",adapter="cells"}'
CASES = {
    "a data fault pages": (
        {FAULT: "0x9 1x20"},
        ("ContinualDataFault", "12m"),
        [NORTH | {"severity": "page", "verdict": "data_fault"}],
    ),
    "no data fault, no page": ({FAULT: "0x30"}, ("ContinualDataFault", "12m"), []),
    "a drift alarm warns after a quarter of an hour": (
        {ALARM: "1x60", FAULT: "0x60"},
        ("ContinualDriftAlarm", "20m"),
        [NORTH | {"severity": "warning"}],
    ),
    "an adapter that pages does not warn beside it": (
        {ALARM: "1x60", FAULT: "1x60"},
        ("ContinualDriftAlarm", "20m"),
        [],
    ),
    "an adapter warns where another pages": (
        {ALARM: "1x60", FAULT: "0x60", OTHERS_ALARM: "1x60", OTHERS_FAULT: "1x60"},
        ("ContinualDriftAlarm", "20m"),
        [NORTH | {"severity": "warning"}],
    ),
    "a report that names no adapter warns": (
        {'continual_drift_alarm{site="north",adapter=""}': "1x60"},
        ("ContinualDriftAlarm", "20m"),
        [{"site": "north", "severity": "warning"}],
    ),
    "evidence near the limit is told while nothing is called": (
        {EVIDENCE: "25x60", LIMIT: "40x60", ALARM: "0x60"},
        ("ContinualEvidenceNearLimit", "20m"),
        [NORTH | {"severity": "info"}],
    ),
    "evidence near the limit is told where only another calls": (
        {EVIDENCE: "25x60", LIMIT: "40x60", ALARM: "0x60", OTHERS_ALARM: "1x60"},
        ("ContinualEvidenceNearLimit", "20m"),
        [NORTH | {"severity": "info"}],
    ),
    "evidence near the limit is not told where it is called": (
        {EVIDENCE: "25x60", LIMIT: "40x60", ALARM: "1x60", OTHERS_ALARM: "0x60"},
        ("ContinualEvidenceNearLimit", "20m"),
        [],
    ),
    "a site not looked at for a month": (
        {'continual_drift_last_look_timestamp_seconds{site="north",adapter="cells"}': "-2592000x120"},
        ("ContinualNoLook", "90m"),
        [NORTH | {"severity": "warning"}],
    ),
    "deliveries that keep failing": (
        {'continual_alert_deliveries{state="retrying"}': "1x120"},
        ("ContinualDeliveriesFailing", "90m"),
        [{"state": "retrying", "severity": "warning"}],
    ),
    "a delivery given up": (
        {'continual_alert_deliveries{state="given_up"}': "3x30 4x30"},
        ("ContinualDeliveriesGivenUp", "40m"),
        [{"state": "given_up", "severity": "warning"}],
    ),
    "those given up long ago": (
        {'continual_alert_deliveries{state="given_up"}': "3x60"},
        ("ContinualDeliveriesGivenUp", "40m"),
        [],
    ),
    "no champion": ({}, ("ContinualChampionMissing", "15m"), [{"severity": "page"}]),
    "a champion": ({'continual_champion_version{adapter="wbc"}': "2x30"}, ("ContinualChampionMissing", "15m"), []),
}


@NEEDS_PROMTOOL
@pytest.mark.parametrize("case", CASES)
def test_prometheus_fires_them_when_they_should(case, tmp_path):
    series, (alert, at), expected = CASES[case]
    passed, said = judged_by_promtool(series, alert, at, expected, tmp_path)
    assert passed, said
