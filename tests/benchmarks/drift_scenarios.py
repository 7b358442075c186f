"""Is the verdict right? Scenarios made from real cells, each drawn anew many times, each with the answer it asks for.

A champion is released on one site's training images; windows of 80 patients come after it, drawn from patients it was
never trained on: as they are, broken by a sender, changed without harm, of another case mix, labelled otherwise, or
from another site. Every draw splits the patients anew. The plan's defaults; the first look after a promotion.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from champion_cells import CLASSES, FINAL, MIXES, OTHERS, TRIAL, Cells, Champion, Draw, read_cells, released, splits
from jaxtyping import Int
from report import Row, arguments, publish

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, DriftReport, PerformanceEvidence, Verdict
from continual.domain.metrics import BALANCED_ACCURACY
from monitoring import Intake, Outcomes, Window, look, risk_evidence
from monitoring.windows import select

PATIENTS = 80
CROWDED_PATIENTS = 15
"""Of bangkok_chula, where 30 patients have up to 70 images each."""
RIGHT = 0.90
TRAIN, TEST = 0, 2
SCANNERS = ("stain 1", "blur 1", "gain 1")
"""Changes that the champion hardly notices; what they cost it stands in the raw numbers."""
TRAINING = frozenset({Action.UPDATE, Action.URGENT_UPDATE})


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """A window's images with the labels that came with them, if any came."""

    cells: Cells
    labels: Int[np.ndarray, "sample"] | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """What comes, and the only answer that is right."""

    name: str
    draw: Callable[[Draw], Arrived]
    verdict: Verdict
    action: Action
    asked: bool = True
    """Whether the target is about it; otherwise it stands beside."""


def nothing(draw: Draw) -> Arrived:
    return _labelled(_some(draw))


def polarity(draw: Draw) -> Arrived:
    """All images inverted, or every other one."""
    sent, inverted = _some(draw), _some(draw, "inverted")
    return _labelled(inverted if draw.seed % 2 else _every_other(sent, inverted))


def cropped(draw: Draw) -> Arrived:
    """Rows that never arrived, a black frame, a smaller cut, in turn."""
    return _labelled(_some(draw, ("truncated", "shuttered", "cut out")[draw.seed % 3]))


def half_cropped(draw: Draw) -> Arrived:
    change = ("truncated", "shuttered", "cut out")[draw.seed % 3]
    return _labelled(_every_other(_some(draw), _some(draw, change)))


def stretched(draw: Draw) -> Arrived:
    """A smaller cut at the usual size: nothing tells it from another magnification."""
    return _labelled(_some(draw, "cut and stretched"))


def scanner(draw: Draw) -> Arrived:
    return _labelled(_some(draw, SCANNERS[draw.seed % len(SCANNERS)]))


def scanner_unlabelled(draw: Draw) -> Arrived:
    return replace(scanner(draw), labels=None)


def new_site(draw: Draw) -> Arrived:
    """Another hospital, in turn."""
    cells = read_cells(OTHERS[draw.seed % len(OTHERS)], draw.folder)
    names = sorted(set(cells.subjects))
    count = CROWDED_PATIENTS if len(names) < PATIENTS else PATIENTS
    chosen = set(draw.generator.permutation(names)[:count])
    return _labelled(cells.rows([row for row, subject in enumerate(cells.subjects) if subject in chosen]))


def new_site_unlabelled(draw: Draw) -> Arrived:
    return replace(new_site(draw), labels=None)


def case_mix(draw: Draw) -> Arrived:
    """The release site's own patients in the mix of another site."""
    cells, generator = draw.own(), draw.generator
    mix = list(MIXES.values())[draw.seed % len(MIXES)]
    wanted = generator.multinomial(PATIENTS, mix)
    rows = [generator.permutation(np.flatnonzero(cells.labels == klass))[:count] for klass, count in enumerate(wanted)]
    return _labelled(cells.rows(np.concatenate(rows)))


def case_mix_unlabelled(draw: Draw) -> Arrived:
    return replace(case_mix(draw), labels=None)


def relabelled(draw: Draw) -> Arrived:
    """From the middle of the window on every class is called by the next one's name."""
    arrived = nothing(draw)
    late = np.arange(PATIENTS) >= PATIENTS // 2
    return replace(arrived, labels=np.where(late, (arrived.cells.labels + 1) % len(CLASSES), arrived.cells.labels))


def swapped(draw: Draw) -> Arrived:
    """Two of the five classes change names throughout."""
    arrived = nothing(draw)
    first, second = CLASSES.index("lymphocyte"), CLASSES.index("monocyte")
    names = np.arange(len(CLASSES))
    names[[first, second]] = second, first
    return replace(arrived, labels=names[arrived.cells.labels])


def merged(draw: Draw) -> Arrived:
    """Nobody tells two of the five classes apart any more: both are called by one name throughout."""
    arrived = nothing(draw)
    first, second = CLASSES.index("lymphocyte"), CLASSES.index("monocyte")
    return replace(arrived, labels=np.where(arrived.cells.labels == second, first, arrived.cells.labels))


def _some(draw: Draw, change: str = "") -> Cells:
    """As many of the release site's patients as a window has, as they are or changed."""
    cells = draw.own(change)
    return cells.rows(draw.generator.permutation(len(cells.labels))[:PATIENTS])


def _labelled(cells: Cells) -> Arrived:
    return Arrived(cells, cells.labels)


def _every_other(first: Cells, second: Cells) -> Cells:
    odd = np.arange(len(first.labels)) % 2 == 1
    return Cells(
        first.site,
        first.subjects,
        first.labels,
        np.where(odd[:, None], second.embeddings, first.embeddings),
        tuple((second if each else first).tags[row] for row, each in enumerate(odd)),
        tuple((second if each else first).statistics[row] for row, each in enumerate(odd)),
        np.where(odd, second.held_back, first.held_back),
    )


SCENARIOS = (
    Scenario("nothing", nothing, Verdict.NO_DRIFT, Action.NONE),
    Scenario("broken polarity", polarity, Verdict.DATA_FAULT, Action.QUARANTINE),
    Scenario("cropped", cropped, Verdict.DATA_FAULT, Action.QUARANTINE),
    Scenario("new scanner, harmless", scanner, Verdict.COVARIATE_SHIFT, Action.LOG),
    Scenario("new site, harmful, labels", new_site, Verdict.COVARIATE_SHIFT, Action.UPDATE),
    Scenario("new site, harmful, no labels", new_site_unlabelled, Verdict.COVARIATE_SHIFT, Action.REQUEST_LABELS),
    Scenario("changed case mix", case_mix, Verdict.PREVALENCE_SHIFT, Action.RECALIBRATE),
    Scenario("relabelled: half the window, all classes", relabelled, Verdict.CONCEPT_SHIFT, Action.URGENT_UPDATE),
    Scenario("relabelled: two classes swapped", swapped, Verdict.CONCEPT_SHIFT, Action.URGENT_UPDATE),
    Scenario("relabelled: two classes merged", merged, Verdict.CONCEPT_SHIFT, Action.URGENT_UPDATE, asked=False),
    Scenario("cropped, every other image", half_cropped, Verdict.DATA_FAULT, Action.QUARANTINE, asked=False),
    Scenario("cropped and stretched", stretched, Verdict.DATA_FAULT, Action.QUARANTINE, asked=False),
    Scenario("new scanner, no labels", scanner_unlabelled, Verdict.COVARIATE_SHIFT, Action.LOG, asked=False),
    Scenario("changed case mix, no labels", case_mix_unlabelled, Verdict.PREVALENCE_SHIFT, Action.RECALIBRATE, False),
)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--cache", type=Path, default=Path("drift-cells"), help="embeddings are kept here")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw: another one, other draws")
    parser.add_argument("--trial", action="store_true", help="other patients and other splits: to choose rules on")
    parser.add_argument("--only", default="", help="scenarios whose names hold this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draws = 2 if options.quick else options.draws
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    first, patients = (10_000, TRIAL) if options.trial else (options.first, FINAL)
    found: dict[str, list[DriftReport]] = {scenario.name: [] for scenario in chosen}
    for seed in range(first, first + draws):
        draw = Draw(seed, options.cache, patients)
        champion, reference = released(draw)
        for scenario in chosen:
            found[scenario.name].append(answer(champion, reference, scenario.draw(draw), seed))
        print(f"draw {seed - first + 1} of {draws}: champion {champion.validation:.3f}", file=sys.stderr)
    rows, raw = _judged(chosen, found)
    publish(rows, raw, options.json)


def answer(champion: Champion, reference: Window, arrived: Arrived, seed: int) -> DriftReport:
    """One look as the scheduled flow takes it: the gate's counts, and labels measured outside the test split."""
    kept = np.flatnonzero(~arrived.cells.held_back)
    intake = Intake(len(arrived.cells.labels), len(arrived.cells.labels) - len(kept))
    cells = arrived.cells.rows(kept)
    window = champion.window(cells, labelled=False)
    plan = ChangePlan(seed=seed)
    evidence = PerformanceEvidence(BALANCED_ACCURACY, champion.validation, None, 0)
    if arrived.labels is not None:
        labels = arrived.labels[kept]
        split = _window_splits(cells, seed)
        window = replace(window, labels=labels)
        evidence = _labels_say(champion, reference, select(window, split != TEST), plan)
        evidence = replace(evidence, for_training=int((split == TRAIN).sum()))
    return look([reference], window, plan, intake, evidence)


def _labels_say(champion: Champion, reference: Window, labelled: Window, plan: ChangePlan) -> PerformanceEvidence:
    """What labels say, as `flows.drift.outcomes` has it: held against the site's own reference where it is one."""
    before, said = _outcomes(reference), _outcomes(labelled)
    known = champion.validation
    shared = sorted(set(before.classes) & set(said.classes))
    if reference.site == labelled.site and shared:
        known, said = before.of(shared).balanced, said.of(shared)
    risk = risk_evidence(before, said, plan.minimum_labelled, plan.alpha, plan.seed)
    return PerformanceEvidence(BALANCED_ACCURACY, known, said.balanced, len(said.met), risk=risk)


def _outcomes(window: Window) -> Outcomes:
    assert window.outputs is not None
    assert window.labels is not None
    rows = np.flatnonzero(window.labelled)
    met = (window.outputs.argmax(axis=1) == window.labels)[rows].astype(float)
    subjects = tuple(f"{window.site}/{window.subjects[row]}" for row in rows)
    return Outcomes(subjects, tuple(window.classes[window.labels[row]] for row in rows), met)


def _window_splits(cells: Cells, seed: int) -> Int[np.ndarray, "sample"]:
    """Each image's split: its patient's."""
    names = sorted(set(cells.subjects))
    of = dict(zip(names, splits(len(names), np.random.default_rng(seed)), strict=True))
    return np.array([of[subject] for subject in cells.subjects])


def _judged(chosen: Sequence[Scenario], found: dict[str, list[DriftReport]]) -> tuple[list[Row], dict[str, Any]]:
    rows, raw = [], {}
    trained_on_faults = 0
    for scenario in chosen:
        reports = found[scenario.name]
        right = sum((r.verdict, r.action) == (scenario.verdict, scenario.action) for r in reports)
        said = Counter(f"{r.verdict.value} + {r.action.value}" for r in reports)
        share = right / len(reports)
        rows.append(
            Row(
                f"{scenario.name}: {scenario.verdict.value} + {scenario.action.value}",
                f"at least {RIGHT:.2f}" if scenario.asked else "",
                f"{right} of {len(reports)} ({share:.2f})",
                share >= RIGHT if scenario.asked else None,
            )
        )
        raw[scenario.name] = {"said": said, "wrong": _wrong(scenario, reports), "measured": _measured(reports)}
        if scenario.verdict is Verdict.DATA_FAULT and scenario.asked:
            trained_on_faults += sum(report.action in TRAINING for report in reports)
    asked = [(s, r) for s in chosen if s.asked for r in found[s.name]]
    right = sum((r.verdict, r.action) == (s.verdict, s.action) for s, r in asked)
    if asked:
        overall = right / len(asked)
        rows.append(Row("all scenarios asked for", f"at least {RIGHT:.2f}", f"{overall:.3f}", overall >= RIGHT))
    rows.append(Row("updates on a data fault", "0", str(trained_on_faults), trained_on_faults == 0))
    clean = [r for s in chosen if s.verdict is not Verdict.DATA_FAULT for r in found[s.name]]
    false = sum(report.verdict is Verdict.DATA_FAULT for report in clean)
    rows.append(Row("data faults called where there is none", "", f"{false} of {len(clean)}", None))
    for name, said in raw.items():
        print(f"  {name}: {dict(said['said'])}", file=sys.stderr)
    return rows, raw


def _measured(reports: Sequence[DriftReport]) -> list[list[float | int | None]]:
    """Of each window, the metric on the reference and on its labels, and how many they are."""
    found = [report.performance for report in reports]
    return [[each.reference, each.current, each.labelled] for each in found if each is not None]


def _wrong(scenario: Scenario, reports: Sequence[DriftReport]) -> list[str]:
    return [r.reason for r in reports if (r.verdict, r.action) != (scenario.verdict, scenario.action)]


if __name__ == "__main__":
    main()
