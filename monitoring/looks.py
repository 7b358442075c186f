"""One look at one site: quality first, statistics second, verdict last; knows nothing of clocks, files or databases.

Error rates. The plan's `alpha` is the chance that a site where nothing changes is ever called drifted between two
promotions. The first look after a promotion spends `first_look_share` of it on its tests, as a look that stands alone
would (`monitoring.families`). The rest is held by evidence over time (`monitoring.evidence`), which every look adds to
and which may be read as often as one likes. The tests of later looks say what stands out; they call nothing. What was
called stands until the next promotion: later windows are held against a pool that has the shift in it already.
"""

from collections.abc import Sequence
from dataclasses import replace

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, CaseMix, DriftReport, EvidenceOverTime, PerformanceEvidence, Verdict
from monitoring.evidence import Past, evidence_over_time
from monitoring.families import FamilyTest, compare_families
from monitoring.framing import cropped_share
from monitoring.label_shift import match_reference
from monitoring.performance_estimate import estimate_performance
from monitoring.polarity import inverted_share
from monitoring.references import choose_reference
from monitoring.verdicts import Evidence, Judgement, judge, too_few_subjects, too_many_inverted, too_many_quarantined
from monitoring.windows import Intake, Window, pool

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
    families: tuple[FamilyTest, ...] = ()
    over_time = None
    if fault is None and reference is not None:
        families = compare_families(reference, current, plan)
        over_time = _add_up(reference, current, plan, past, families)
        performance = _with_estimate(performance, reference, current, plan)
    signals = tuple(signal for family in families for signal in family.signals)
    known = 0 if reference is None else reference.subject_count
    site = NO_REFERENCE if reference is None else reference.site
    evidence = Evidence(current.site, site, current.subject_count, known, signals, performance, over_time)
    if reference is not None and over_time is not None and evidence.drifted:
        drifted = pool([*past.since(over_time.since), current])
        evidence = replace(evidence, case_mix=_case_mix(reference, drifted, plan))
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
        case_mix=evidence.case_mix,
    )


def _with_estimate(
    performance: PerformanceEvidence | None, reference: Window, current: Window, plan: ChangePlan
) -> PerformanceEvidence | None:
    found = None if performance is None else estimate_performance(reference, current, plan.seed)
    if performance is None or found is None:
        return performance
    return replace(performance, estimated=found.value, estimated_low=found.low, estimated_high=found.high)


def _case_mix(reference: Window, current: Window, plan: ChangePlan) -> CaseMix | None:
    """Whether the difference is gone once the reference has the current mix, and not for want of samples."""
    found = match_reference(reference, current, plan.seed)
    if found is None:
        return None
    able = min(found.matched.subject_count, found.unmatched.subject_count) >= plan.minimum_subjects
    return CaseMix(
        classes=reference.classes,
        reference=tuple(map(float, found.known_mix)),
        current=tuple(map(float, found.mix)),
        explains=able and _differ(found.unmatched, current, plan) and not _differ(found.matched, current, plan),
    )


def _differ(reference: Window, current: Window, plan: ChangePlan) -> bool:
    return _alarms(compare_families(reference, current, plan))


def _alarms(families: Sequence[FamilyTest]) -> bool:
    return any(signal.alarm for family in families for signal in family.signals)


def _add_up(
    reference: Window, current: Window, plan: ChangePlan, past: Past, families: Sequence[FamilyTest]
) -> EvidenceOverTime:
    """The evidence with this window in it, tested against everything before it."""
    stands_out = _alarms(families)
    if past.windows:
        families = compare_families(pool([reference, *past.since(1)]), current, plan)
    smallest = {family.name: min(signal.adjusted_p_value for signal in family.signals) for family in families}
    return evidence_over_time(past, smallest, 1 / (plan.alpha * (1 - plan.first_look_share)), stands_out=stands_out)


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
    cropped = cropped_share(reference, current)
    if cropped > plan.quarantine_limit:
        return _too_many_cropped(cropped, len(current.subjects), reference.site, plan.quarantine_limit)
    return None


def _too_many_cropped(share: float, samples: int, reference_site: str, limit: float) -> Judgement:
    """Images lost part of their field."""
    reason = (
        f"{share:.0%} of {samples} images (limit {limit:.0%}) are like those of site {reference_site} with a part cut "
        "off or filled with black or white: check what the export crops, masks or fails to send"
    )
    return Judgement(Verdict.DATA_FAULT, Action.QUARANTINE, reason)
