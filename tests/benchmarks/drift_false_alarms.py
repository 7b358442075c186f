"""How often a look cries wolf where nothing changed: once, and over a simulated year; real cells, a real backbone.

One look: windows of 20, 50 and 200 patients drawn from one site's images, embeddings and pixel statistics, each look
spending the plan's whole alpha at once. Beside it the same with many images a patient, and with `--peers`, what peers
say of it. A year: sites whose 1,588 images come in random order, 200 as the reference and the rest day by day, looked
at as the scheduled flow does; a year counts as one false alarm however often it alarms. Beside it what the tests of
every look alone would have called.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_environments import Question, ask
from real_cells import Site, read_site
from report import Row, arguments, publish

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import DriftReport, Verdict
from monitoring import Intake, Past, look

LONE, CROWDED = "barcelona", "bangkok_chula"
"""One image a patient; 30 patients with up to 70 images each."""
REFERENCE = 200
DAYS = 365
CLEAN = Intake(offered=1, quarantined=0)
ONE_LOOK = {"alpha": 0.10, "first_look_share": 0.5}
"""A plan whose first look spends .05 on its tests."""


PEERS = [
    Question("alibi", "mmd"),
    Question("alibi", "ks columns"),
    Question("alibi", "classifier"),
    Question("evidently", "mmd"),
    Question("frouros", "ks"),
]
"""Those whose own rule alarms at .05; frouros' MMD has none."""


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--cache", type=Path, default=Path("drift-activations"), help="embeddings are kept here")
    parser.add_argument("--sites", type=int, default=400, help="simulated site-years")
    parser.add_argument(
        "--first", type=int, default=0, help="the first one's number; any but 0 leaves out single looks"
    )
    parser.add_argument(
        "--peers", type=Path, help="the peers' environments and answers, to ask those who permute images"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds for each peer's answers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs, years = (20, 2) if options.quick else (400, options.sites)
    if options.peers:
        crowded = read_site(CROWDED, options.cache)
        publish(*peers_on_crowded(crowded, runs, options.peers, options.seconds), options.json)
        return
    lone = read_site(LONE, options.cache)
    rows, raw = ([], {}) if options.first else single_looks(lone, read_site(CROWDED, options.cache), runs)
    called, alone = years_of_looks(lone, range(options.first, options.first + years))
    raw |= {"years": years, "years called": called, "years in which some look's tests alarm": alone}
    rows.append(Row(f"{years} site-years of looks", "at most .05", f"{called / years:.3f}", called / years <= 0.05))
    rows.append(Row("the same if every look's own tests called", "", f"{alone / years:.3f}", None))
    publish(rows, raw, options.json)


def single_looks(lone: Site, crowded: Site, runs: int) -> tuple[list[Row], dict[str, Any]]:
    """How often a look that stands alone alarms: by images in the window, and where patients have many."""
    raw = {f"window {count}": one_look(lone, count, runs) for count in (20, 50, 200)}
    raw["15 patients of up to 70 images"] = crowded_look(crowded, runs)
    rows = [
        Row(f"one look at .05, {runs} runs, {what}", ".03 to .07", f"{rate:.3f}", 0.03 <= rate <= 0.07)
        for what, rate in raw.items()
    ]
    return rows, dict(raw)


def one_look(site: Site, count: int, runs: int) -> float:
    """Share of looks that alarm, each at `count` patients against `REFERENCE` others."""
    alarms = 0
    for seed in range(runs):
        order = np.random.default_rng(seed).permutation(len(site.subjects))
        windows = site.window(order[:REFERENCE]), site.window(order[REFERENCE : REFERENCE + count])
        alarms += _alarms(look([windows[0]], windows[1], ChangePlan(seed=seed, **ONE_LOOK), CLEAN))
    return alarms / runs


def crowded_look(site: Site, runs: int) -> float:
    """The same between two halves of the patients of a site where each has many images."""
    alarms = 0
    for seed, halves in enumerate(_halves(site, runs)):
        first, second = (site.window(rows) for rows in halves)
        alarms += _alarms(look([first], second, ChangePlan(seed=seed, **ONE_LOOK), CLEAN))
    return alarms / runs


def peers_on_crowded(site: Site, runs: int, folder: Path, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """How often peers, which permute or compare images, alarm at .05 by their own rule between the same halves."""
    halves = list(_halves(site, runs))
    names, columns = site.columns()
    cases = {
        "embeddings": site.embeddings,
        "columns": columns,
        "names": np.array(names),
        "reference": _padded([first for first, _ in halves]),
        "current": _padded([second for _, second in halves]),
    }
    answers = ask(PEERS, cases, folder, seconds)
    rows = [
        Row(f"{name}, {len(answer['alarms'])} runs, 15 patients", "", f"{np.mean(answer['alarms']):.3f}", None)
        for name, answer in answers.items()
    ]
    return rows, {
        name: {"alarms": sum(answer["alarms"]), "of": len(answer["alarms"])} for name, answer in answers.items()
    }


def _halves(site: Site, runs: int) -> Iterator[tuple[list[int], list[int]]]:
    """A site's patients in two halves, drawn anew for each run: the rows of each half's images."""
    images: dict[str, list[int]] = defaultdict(list)
    for row, subject in enumerate(site.subjects):
        images[subject].append(row)
    names = sorted(images)
    for seed in range(runs):
        order = np.random.default_rng(seed).permutation(len(names))
        first, second = ([row for place in half for row in images[names[place]]] for half in np.array_split(order, 2))
        yield first, second


def _padded(rows: list[list[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([row + [-1] * (width - len(row)) for row in rows])


def _alarms(report: DriftReport) -> bool:
    return any(signal.alarm for signal in report.signals)


def years_of_looks(site: Site, years: range) -> tuple[int, int]:
    """Years that are called drifted, and years in which some look's tests alone alarm at the same level."""
    called = alone = 0
    for done, seed in enumerate(years, start=1):
        reports = _year(site, seed)
        called += any(report.verdict is not Verdict.NO_DRIFT for report in reports)
        alone += any(_alarms(report) for report in reports)
        print(f"year {done} of {len(years)}: {len(reports)} looks, {called} called, {alone} alone", file=sys.stderr)
    return called, alone


def _year(site: Site, seed: int) -> list[DriftReport]:
    """A look on each day on which the plan's window is full; the plan's own alpha and permutations."""
    plan = ChangePlan(seed=seed)
    order = np.random.default_rng(seed).permutation(len(site.subjects))
    reference, days = site.window(order[:REFERENCE]), np.array_split(order[REFERENCE:], DAYS)
    past, reports, waiting = Past(), [], np.array([], dtype=int)
    for arrived in days:
        waiting = np.concatenate([waiting, arrived])
        if len(waiting) < plan.window_subjects:
            continue
        current, waiting = site.window(waiting), waiting[:0]
        report: Any = look([reference], current, plan, CLEAN, None, past)
        reports.append(report)
        past = Past((*past.windows, current), (*past.e_values, report.over_time.e_values), report.over_time.called_at)
    return reports


if __name__ == "__main__":
    main()
