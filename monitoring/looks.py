"""One look at one site: quality first, statistics second, verdict last; knows nothing of clocks, files or databases.

Error rates. The plan's `alpha` is the chance that a site where nothing changes is ever called drifted between two
promotions. The first look after a promotion spends `first_look_share` of it on its tests, as a look that stands alone
would: Holm's correction inside a family over its columns, which makes the family's p-value its smallest adjusted one,
and over the families of the look, each tested at the level over the families not yet rejected. The rest is held by
evidence over time (`monitoring.evidence`), which every look adds to and which may be read as often as one likes. The
tests of later looks say what stands out; they call nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import DriftReport, EvidenceOverTime, PerformanceEvidence, Signal, SignalFamily
from monitoring.detectors import DETECTORS, Effort, Finding
from monitoring.evidence import Past, e_value, evidence_over_time
from monitoring.multiplicity import critical_levels, holm
from monitoring.polarity import inverted_share
from monitoring.references import choose_reference
from monitoring.verdicts import Evidence, Judgement, judge, too_few_subjects, too_many_inverted, too_many_quarantined
from monitoring.windows import Intake, Window, draw_subjects, pool

MOST_SUBJECTS = 1000
"""A larger window is thinned to this many subjects, drawn by the plan's seed: more power is of no use."""
NO_REFERENCE = ""
"""`DriftReport.reference_site` when there is no reference at all."""
NOTHING_BEFORE = Past()
"""The first look since a promotion."""


def look(
    references: Sequence[Window],
    current: Window,
    plan: ChangePlan,
    intake: Intake,
    performance: PerformanceEvidence | None = None,
    past: Past = NOTHING_BEFORE,
) -> DriftReport:
    """Compares a site's current window with its reference, or for a new site with the nearest known one.

    `past` holds the windows of the site that were tested since the promotion; without it this is the first look.
    Deterministic under `plan.seed`. A family in which nothing varies, or outputs that a window lacks, give no signal.
    Raises WindowError when embeddings or outputs of the two windows differ in width.
    """
    reference = choose_reference(references, current, plan.minimum_subjects, plan.seed)
    fault = _fault(reference, current, plan, intake)
    families: tuple[_Family, ...] = ()
    over_time = None
    if fault is None and reference is not None:
        families = _test_families(reference, current, plan)
        over_time = _add_up(reference, current, plan, past, families)
    signals = tuple(signal for family in families for signal in family.signals)
    known = 0 if reference is None else reference.subject_count
    site = NO_REFERENCE if reference is None else reference.site
    evidence = Evidence(
        current.site,
        site,
        current.subject_count,
        known,
        signals,
        performance,
        over_time,
        first_look=not past.e_values,
    )
    judgement = fault or judge(evidence, plan)
    return DriftReport(
        site=current.site,
        reference_site=site,
        verdict=judgement.verdict,
        action=judgement.action,
        reason=judgement.reason,
        alpha=plan.alpha,
        reference_subjects=known,
        current_subjects=current.subject_count,
        reference_samples=0 if reference is None else len(reference.subjects),
        current_samples=len(current.subjects),
        quarantined=intake.quarantined,
        signals=signals,
        smallest_detectable={family.name.value: family.smallest_detectable for family in families},
        performance=performance,
        over_time=over_time,
    )


def _add_up(
    reference: Window, current: Window, plan: ChangePlan, past: Past, families: "Sequence[_Family]"
) -> EvidenceOverTime:
    """The evidence with this window in it, tested against everything before it."""
    if past.windows:
        families = _test_families(pool([reference, *past.windows]), current, plan)
    smallest = {family.name: min(signal.adjusted_p_value for signal in family.signals) for family in families}
    return evidence_over_time(past, smallest, 1 / (plan.alpha * (1 - plan.first_look_share)))


def _fault(reference: Window | None, current: Window, plan: ChangePlan, intake: Intake) -> Judgement | None:
    """What forbids testing: a fault of the data first, then too little of it."""
    if intake.quarantined_share > plan.quarantine_limit:
        return too_many_quarantined(intake.offered, intake.quarantined, plan.quarantine_limit)
    known = 0 if reference is None else reference.subject_count
    if reference is None or min(known, current.subject_count) < plan.minimum_subjects:
        name = None if reference is None else reference.site
        return too_few_subjects(current.subject_count, known, name, plan.minimum_subjects)
    inverted = inverted_share(reference, current)
    if inverted > plan.quarantine_limit:
        return too_many_inverted(inverted, len(current.subjects), reference.site, plan.quarantine_limit)
    return None


def _thin(window: Window, plan: ChangePlan) -> Window:
    return draw_subjects(window, MOST_SUBJECTS, plan.seed)


@dataclass(frozen=True, slots=True)
class _Family:
    """A tested family with its signals and the smallest score that would have alarmed."""

    name: SignalFamily
    signals: tuple[Signal, ...]
    smallest_detectable: float


Measured = tuple[tuple[str, Finding], ...]
"""Findings, each with the name of its detector."""


def _test_families(reference: Window, current: Window, plan: ChangePlan) -> tuple[_Family, ...]:
    reference, current = _thin(reference, plan), _thin(current, plan)
    alpha = plan.alpha * plan.first_look_share
    # With fewer permutations than this no family could alarm after Holm.
    effort = Effort(max(plan.permutations, math.ceil(len(SignalFamily) / alpha) - 1), plan.seed)
    measured = {family: found for family in SignalFamily if (found := _measure(reference, current, family, effort))}
    adjusted = {family: holm([finding.p_value for _, finding in found]) for family, found in measured.items()}
    levels = critical_levels([min(values) for values in adjusted.values()], alpha)
    return tuple(
        _family(family, measured[family], adjusted[family], level)
        for family, level in zip(measured, levels, strict=True)
    )


def _measure(reference: Window, current: Window, family: SignalFamily, effort: Effort) -> Measured:
    return tuple(
        (detector.name, finding)
        for detector in DETECTORS.values()
        if family in detector.families
        for finding in detector.measure(reference, current, family, effort)
    )


def _family(name: SignalFamily, found: Measured, adjusted: Sequence[float], level: float) -> _Family:
    signals = tuple(
        Signal(
            family=name,
            name=finding.name,
            detector=detector,
            score=finding.score,
            p_value=finding.p_value,
            adjusted_p_value=corrected,
            alarm=corrected <= level,
            detail={**finding.detail, "level": level},
            e_value=e_value(corrected),
        )
        for (detector, finding), corrected in zip(found, adjusted, strict=True)
    )
    # The first column Holm rejects must reach its share of the level; later ones have it easier.
    smallest = min(finding.smallest_alarming(level / len(found)) for _, finding in found)
    return _Family(name, signals, smallest)
