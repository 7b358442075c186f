"""How often a change of real cells is seen, at the same rate of false alarms, by one look and by its peers.

Windows of 50 and 200 of a site's images against 600 others of it; the window's pixels are changed before the backbone
sees them. Every detector's own score is given a threshold that 5 % of the runs without a change exceed; power is the
share of runs with a change beyond it. Ours is `look` as a user has it: embeddings and pixel statistics, faults of the
sender counted as seen. Peers are given the same embeddings, and those that take columns the same pixel statistics.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from peer_environments import Question, ask
from real_cells import CHANGES, Site, read_changed, read_site
from report import Row, arguments, publish

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Verdict
from monitoring import Intake, Window, look

SITE, OTHER_SITE = "barcelona", "bangkok_chula"
REFERENCE = 600
LEVEL = 0.05
INVERTED_SHARE = 0.1
CLEAN = Intake(offered=1, quarantined=0)
ONE_LOOK = {"alpha": 0.10, "first_look_share": 0.5}
"""A plan whose first look spends .05 on its tests."""
NOTHING, SOME_INVERTED, ELSEWHERE = "nothing", "10 % inverted", "another site"
SITUATIONS = (NOTHING, *(name for name in CHANGES if name != "inverted"), SOME_INVERTED, ELSEWHERE)
QUESTIONS = [
    Question("alibi", "mmd"),
    Question("alibi", "ks columns"),
    Question("alibi", "classifier"),
    Question("evidently", "mmd"),
    Question("frouros", "mmd"),
    Question("frouros", "ks"),
    Question("nannyml", "reconstruction columns"),
]
OURS = "look"

Scores = Float[np.ndarray, "case part"]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--cache", type=Path, default=Path("drift-activations"), help="embeddings are kept here")
    parser.add_argument("--peers", type=Path, default=Path("drift-peers"), help="the peers' environments and answers")
    parser.add_argument("--site", default=SITE, help="the site whose images are changed")
    parser.add_argument("--other", default=OTHER_SITE)
    parser.add_argument("--runs", type=int, default=100, help="runs of each situation; twice as many of nothing")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--reference", type=int, default=REFERENCE)
    parser.add_argument("--situations", default=",".join(SITUATIONS[1:]), help="changes to try, with commas")
    parser.add_argument("--windows", default="50,200", help="images in a window, with commas")
    parser.add_argument("--seconds", type=float, default=3600.0, help="CPU seconds for each peer's answers")
    parser.add_argument("--ask", default=None, help="peers to ask, with commas; empty for none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = 5 if options.quick else options.runs
    situations = SITUATIONS[:2] if options.quick else (NOTHING, *options.situations.split(","))
    pictures = Pictures(options.site, options.other, situations, options.cache)
    windows = [int(count) for count in options.windows.split(",")]
    drawn = draw(windows, situations, options.first_seed, runs)
    cases = pictures.cases(drawn, options.reference)
    answers = {OURS: _look_at(pictures, cases)}
    asked = [q for q in QUESTIONS if options.ask is None or q.peer in options.ask.split(",")]
    answers |= ask(asked, cases, options.peers, options.seconds)
    rows, power = _rows(answers, drawn, situations)
    own = {name: _own_rate(answer, drawn) for name, answer in answers.items()}
    seconds = {name: float(np.mean(answer["cpu_s"])) for name, answer in answers.items()}
    answered = {name: len(answer["cases"]) for name, answer in answers.items()}
    raw = {
        "cases answered": answered,
        "power": power,
        "own rule, nothing changed": own,
        "CPU seconds a window": seconds,
        "runs": runs,
    }
    for name in answers:
        print(f"{name:<28} false alarms by its own rule {own[name]}  CPU {1000 * seconds[name]:.0f} ms a window")
        print(f"{'':<28} {' '.join(f'{power[key][name]:.2f}' for key in power)}")
    publish(rows, raw, options.json)


def draw(windows: Sequence[int], situations: Sequence[str], first: int, runs: int) -> list[tuple[str, int, int]]:
    """Situation, images and seed of every case; in rounds, so that who stops early has answered about all alike."""
    return [
        (situation, count, seed)
        for turn in range(runs)
        for count in windows
        for situation in situations
        for seed in ([first + 2 * turn, first + 2 * turn + 1] if situation == NOTHING else [first + turn])
    ]


class Pictures:
    """Every picture of every situation in one stack: rows of embeddings and of pixel statistics."""

    def __init__(self, site: str, other: str, situations: Sequence[str], folder: Path) -> None:
        self.sites: dict[str, Site] = {NOTHING: read_site(site, folder)}
        for name in situations:
            if name == ELSEWHERE:
                self.sites[name] = read_site(other, folder)
            elif name != NOTHING:
                self.sites[name] = read_changed(site, "inverted" if name == SOME_INVERTED else name, folder)
        self.count = len(self.sites[NOTHING].subjects)
        sizes = [len(each.subjects) for each in self.sites.values()]
        self.first = dict(zip(self.sites, np.concatenate([[0], np.cumsum(sizes)[:-1]]), strict=True))
        self.embeddings = np.vstack([each.embeddings for each in self.sites.values()])
        self.statistics = [row for each in self.sites.values() for row in each.statistics]
        self.subjects = [(each.name, subject) for each in self.sites.values() for subject in each.subjects]

    def columns(self) -> Float[np.ndarray, "row statistic"]:
        names = sorted(self.statistics[0])
        return np.array([[row[name] for name in names] for row in self.statistics])

    def cases(self, drawn: Sequence[tuple[str, int, int]], reference: int) -> Mapping[str, np.ndarray]:
        names = sorted(self.statistics[0])
        rows = [self._rows(situation, count, seed, reference) for situation, count, seed in drawn]
        width = max(count for _, count, _ in drawn)
        return {
            "embeddings": self.embeddings,
            "columns": self.columns(),
            "names": np.array(names),
            "reference": np.array([known for known, _ in rows]),
            "current": np.array([np.pad(new, (0, width - len(new)), constant_values=-1) for _, new in rows]),
        }

    def _rows(
        self, situation: str, count: int, seed: int, reference: int
    ) -> tuple[Int[np.ndarray, "known"], Int[np.ndarray, "new"]]:
        generator = np.random.default_rng(seed)
        order = generator.permutation(self.count)
        known, new = order[:reference], order[reference : reference + count].copy()
        if situation == SOME_INVERTED:
            new[: round(INVERTED_SHARE * count)] += self.first[situation]
        elif situation == ELSEWHERE:
            new = self.first[situation] + generator.permutation(len(self.sites[situation].subjects))[:count]
        else:
            new += self.first[situation]
        return known, new

    def window(self, rows: Int[np.ndarray, "row"]) -> Window:
        """Rows as a window that claims to come from the site itself, as a new scanner's images do."""
        return Window(
            site=self.sites[NOTHING].name,
            subjects=tuple("/".join(self.subjects[row]) for row in rows),
            embeddings=self.embeddings[rows],
            outputs=None,
            tags=({},) * len(rows),
            pixel_statistics=tuple(self.statistics[row] for row in rows),
        )


def _look_at(pictures: Pictures, cases: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Our answers in the peers' form. The score is Holm's over families; a fault of the sender comes before any."""
    answers: dict[str, list[Any]] = {"scores": [], "alarms": [], "cpu_s": [], "cases": []}
    for case, (known, new) in enumerate(zip(cases["reference"], cases["current"], strict=True)):
        windows = pictures.window(known), pictures.window(new[new >= 0])
        began = time.process_time()
        report = look([windows[0]], windows[1], ChangePlan(seed=case, **ONE_LOOK), CLEAN)
        answers["cpu_s"].append(time.process_time() - began)
        best = min((signal.adjusted_p_value for signal in report.signals), default=0.0)
        answers["scores"].append([-best, max((signal.score for signal in report.signals), default=1.0)])
        answers["alarms"].append(report.verdict is Verdict.DATA_FAULT or any(signal.alarm for signal in report.signals))
        answers["cases"].append(case)
        if case % 200 == 0:
            print(f"look: {case} of {len(cases['reference'])}", file=sys.stderr)
    return answers


def _rows(
    answers: Mapping[str, Any], drawn: Sequence[tuple[str, int, int]], situations: Sequence[str]
) -> tuple[list[Row], dict[str, dict[str, float]]]:
    rows, power = [], {}
    for count in sorted({count for _, count, _ in drawn}):
        for situation in situations[1:]:
            seen = {name: _power(answer, drawn, situation, count) for name, answer in answers.items()}
            power[f"{situation}, window {count}"] = seen
            best = max((name for name in seen if name != OURS), key=lambda name: seen[name], default=OURS)
            measured = f"{seen[OURS]:.2f} beside {seen[best]:.2f} ({best})"
            rows.append(Row(f"{situation}, window {count}", "best peer", measured, seen[OURS] >= seen[best]))
    return rows, power


def _power(answer: Any, drawn: Sequence[tuple[str, int, int]], situation: str, count: int) -> float:
    """Share of windows beyond the score that `LEVEL` of those without a change exceed."""
    usual = sorted(_of(answer, drawn, NOTHING, count), reverse=True)
    threshold = usual[int(LEVEL * len(usual))]
    return float(np.mean([score > threshold for score in _of(answer, drawn, situation, count)]))


def _of(answer: Any, drawn: Sequence[tuple[str, int, int]], situation: str, count: int) -> list[tuple[float, ...]]:
    return [
        tuple(score)
        for case, score in zip(answer["cases"], answer["scores"], strict=True)
        if drawn[case][:2] == (situation, count)
    ]


def _own_rate(answer: Any, drawn: Sequence[tuple[str, int, int]]) -> dict[int, float]:
    pairs = list(zip(answer["cases"], answer["alarms"], strict=True))
    return {
        count: float(np.mean([alarm for case, alarm in pairs if drawn[case][:2] == (NOTHING, count)]))
        for count in sorted({count for _, count, _ in drawn})
    }


if __name__ == "__main__":
    main()
