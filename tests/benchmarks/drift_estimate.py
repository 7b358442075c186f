"""How near the estimate of balanced accuracy without labels comes to the truth that labels show; beside NannyML's.

A champion is released on one site; windows of 80 images come from patients it was never trained on. Only covariates
change: light, stain, blur or noise in three grades, or which images are frequent. Other mixes and other sites stand
beside, where what an image means may change, too. Every draw splits the patients anew.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from champion_cells import FINAL, GRADED, MIXES, OTHERS, TRIAL, Cells, Champion, Draw, read_cells, released
from report import Row, arguments, publish

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import PerformanceEvidence
from continual.domain.metrics import BALANCED_ACCURACY
from monitoring import Intake, Window, look

IMAGES = 80
FREQUENT = {
    "bright images frequent": "mean",
    "sharp images frequent": "sharpness",
    "bluish images frequent": "mean_blue",
}
"""By name: the pixel statistic that makes an image up to many times as frequent."""
TARGET = 0.05
NANNYML = ("nannyml==0.13.1", "statsmodels")
"""It imports the second without asking for it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One window: what was said without labels, and what labels show."""

    draw: int
    kind: str
    said: float | None
    low: float | None
    high: float | None
    truth: float
    verdict: str


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--cache", type=Path, default=Path("drift-cells"), help="embeddings are kept here")
    parser.add_argument("--peers", type=Path, default=None, help="environments of peers; none are asked without it")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--trial", action="store_true", help="other patients and other splits: to choose rules on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, patients = (10_000, TRIAL) if options.trial else (0, FINAL)
    cases: list[Case] = []
    arrays: dict[str, np.ndarray] = {"size": np.array(IMAGES)}
    for number in range(2 if options.quick else options.draws):
        draw = Draw(first + number, options.cache, patients)
        champion, reference = released(draw)
        windows = windows_of(draw)
        cases += [answer(champion, reference, kind, cells, draw.seed) for kind, cells in windows.items()]
        arrays[f"known_{number}"], arrays[f"labels_{number}"] = reference.outputs, reference.labels
        arrays[f"windows_{number}"] = np.vstack([champion.outputs(cells) for cells in windows.values()])
        arrays["draws"] = np.array(number + 1)
        print(f"draw {number + 1}: champion {champion.validation:.3f}", file=sys.stderr)
    peer = None if options.peers is None else ask_nannyml(arrays, options.peers)
    publish(*judged(cases, peer), options.json)


def windows_of(draw: Draw) -> dict[str, Cells]:
    """One window of every kind."""
    own, generator = draw.own(), draw.generator
    order = generator.permutation(len(own.labels))[:IMAGES]
    windows = {"as sent": own.rows(order)}
    windows |= {kind: draw.own(kind).rows(order) for kind in GRADED}
    for kind, name in FREQUENT.items():
        values = np.array([row[name] for row in own.statistics])
        weight = np.exp(np.clip((values - values.mean()) / values.std(), -2, 2))
        windows[kind] = own.rows(generator.choice(len(weight), IMAGES, replace=False, p=weight / weight.sum()))
    for site, mix in MIXES.items():
        counts = generator.multinomial(IMAGES, mix)
        rows = [generator.permutation(np.flatnonzero(own.labels == klass))[:n] for klass, n in enumerate(counts)]
        windows[f"mix of {site}"] = own.rows(_filled(np.concatenate(rows), len(own.labels), generator))
    for site in OTHERS:
        cells = read_cells(site, draw.folder)
        windows[f"site {site}"] = cells.rows(generator.permutation(len(cells.labels))[:IMAGES])
    return windows


def _filled(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """As many rows as a window has, where a class had too few."""
    rest = generator.permutation(np.setdiff1d(np.arange(count), rows))
    return np.concatenate([rows, rest])[:IMAGES]


def answer(champion: Champion, reference: Window, kind: str, cells: Cells, seed: int) -> Case:
    """What a look says of a window without labels."""
    evidence = PerformanceEvidence(BALANCED_ACCURACY, champion.validation, None, 0)
    current = champion.window(cells, labelled=False)
    report = look([reference], current, ChangePlan(seed=seed), Intake(IMAGES, 0), evidence)
    said = report.performance or evidence
    truth = champion.accuracy(cells)
    return Case(seed, kind, said.estimated, said.estimated_low, said.estimated_high, truth, report.verdict.value)


def ask_nannyml(arrays: Mapping[str, np.ndarray], folder: Path) -> list[float]:
    """NannyML's estimate for every window, in an environment of its own that is made where it is not there."""
    python = (folder / "nannyml" / "bin" / "python").absolute()
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "nannyml")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *NANNYML], check=True)
    cases, out = folder / "estimate_cases.npz", folder / "estimate_nannyml.json"
    np.savez(cases, **arrays)
    script = Path(__file__).parent / "peers" / "estimate_nannyml.py"
    one = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NML_DISABLE_USAGE_LOGGING"), "1"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | one
    subprocess.run([str(python), str(script), str(cases), str(out)], check=True, env=environment)
    return [value for draw in json.loads(out.read_text())["estimates"] for value in draw]


def judged(cases: Sequence[Case], peer: Sequence[float] | None) -> tuple[list[Row], dict[str, Any]]:
    """Errors over the windows where only covariates change, and over each kind."""
    theirs = [None] * len(cases) if peer is None else list(peer)
    pairs = list(zip(cases, theirs, strict=True))
    covariate = [pair for pair in pairs if not pair[0].kind.startswith(("mix of", "site"))]
    rows = [_row("only covariates change", covariate, asked=True)]
    rows += [_nannyml_row("the same windows, NannyML", [p for p in covariate if p[0].said is not None])] if peer else []
    rows += [_nannyml_row("also where ours cannot tell, NannyML", covariate)] if peer else []
    told = [case for case, _ in covariate if case.said is not None]
    inside = float(np.mean([case.low <= case.truth <= case.high for case in told]))
    rows.append(Row("truth inside the 95 % interval", "", f"{inside:.3f}", None))
    rows.append(Row("cannot tell", "", f"{len(covariate) - len(told)} of {len(covariate)}", None))
    for kind in dict.fromkeys(case.kind for case in cases):
        mine = [pair for pair in pairs if pair[0].kind == kind]
        rows.append(_row(kind, mine, asked=False))
    raw = [
        {
            "kind": c.kind,
            "draw": c.draw,
            "ours": [c.said, c.low, c.high],
            "truth": c.truth,
            "nannyml": t,
            "verdict": c.verdict,
        }
        for c, t in pairs
    ]
    return rows, {"windows": raw}


def _row(what: str, pairs: Sequence[tuple[Case, float | None]], *, asked: bool) -> Row:
    told = [case for case, _ in pairs if case.said is not None]
    if not told:
        return Row(what, "", f"cannot tell, {len(pairs)} of {len(pairs)}; {_peer_said(pairs)}", None)
    wrong = np.array([case.said - case.truth for case in told])
    error = float(np.abs(wrong).mean())
    if asked:
        return Row(what, f"at most {TARGET:.2f}", f"{error:.3f} over {len(told)} windows", error <= TARGET)
    truth = float(np.mean([case.truth for case, _ in pairs]))
    measured = f"{error:.3f}, bias {wrong.mean():+.3f}, truth {truth:.3f}, {len(told)} of {len(pairs)} told"
    return Row(what, "", f"{measured}; {_peer_said(pairs)}", None)


def _nannyml_row(what: str, pairs: Sequence[tuple[Case, float | None]]) -> Row:
    error = float(np.mean([abs(said - case.truth) for case, said in pairs if said is not None]))
    return Row(what, "", f"{error:.3f} over {len(pairs)} windows", None)


def _peer_said(pairs: Sequence[tuple[Case, float | None]]) -> str:
    wrong = [said - case.truth for case, said in pairs if said is not None]
    return f"NannyML {np.abs(wrong).mean():.3f}, bias {np.mean(wrong):+.3f}" if wrong else ""


if __name__ == "__main__":
    main()
