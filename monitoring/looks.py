"""One look at one site: quality first, statistics second, verdict last; knows nothing of clocks, files or databases.

Error rates. The plan's `alpha` is the chance that a site where nothing changes is ever called drifted between two
promotions. The first look after a promotion spends `first_look_share` of it on its tests, as a look that stands alone
would (`monitoring.families`). The rest is held by evidence over time (`monitoring.evidence`), which every look adds to
and which may be read as often as one likes. The tests of later looks say what stands out; they call nothing. What was
called stands until the next promotion: later windows are held against a pool that has the shift in it already.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import binom

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import (
    CaseMix,
    DriftReport,
    EvidenceOverTime,
    PerformanceEvidence,
    RootCause,
    SignalFamily,
    Verdict,
)
from continual.domain.errors import WindowError
from monitoring.evidence import Past, evidence_over_time
from monitoring.families import FamilyTest, compare_families
from monitoring.framing import cropped_share
from monitoring.label_shift import match_reference
from monitoring.performance_estimate import estimate_performance
from monitoring.polarity import inverted_share
from monitoring.references import choose_reference
from monitoring.rolling import compare_with_last, rolling_words
from monitoring.root_cause import Stretch, root_cause
from monitoring.verdicts import (
    Evidence,
    Judgement,
    judge,
    too_few_subjects,
    too_many_cropped,
    too_many_inverted,
    too_many_quarantined,
)
from monitoring.windows import Intake, Window, pool, select

NO_REFERENCE = ""
"""`DriftReport.reference_site` when there is no reference at all."""
NOTHING_BEFORE = Past()
"""The first look since a promotion."""
_ODD_SHARE = 0.05
"""Sound images that look broken by themselves: at most so many, where the share of black varies much (simulated)."""
_BY_CHANCE = 0.01
"""Sound images seem as broken less often than this; of 20 or more the usual limit of 20 % alone decides."""


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
    counts = current.subject_count, known
    evidence = Evidence(current.site, site, *counts, signals, performance, over_time, harmed=past.harmed)
    rolling = None
    if reference is not None and over_time is not None and evidence.drifted:
        drifted = pool([*past.since(over_time.since), current])
        evidence = replace(evidence, case_mix=_case_mix(reference, drifted, plan))
        rolling = compare_with_last(current, plan, past)
    judgement = fault or judge(evidence, plan)
    odd = judgement.verdict is Verdict.DATA_FAULT or evidence.drifted
    return DriftReport(
        site=current.site,
        reference_site=site,
        verdict=judgement.verdict,
        action=judgement.action,
        reason=judgement.reason + rolling_words(rolling),
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
        rolling=rolling,
        harmed=judgement.harmed,
        root_cause=_root_cause(reference, current, plan, past, over_time) if reference is not None and odd else None,
    )


def look_at_intake(site: str, plan: ChangePlan, intake: Intake) -> DriftReport | None:
    """The report on a site of whose images too many were held back; None where the plan's limit holds.

    It needs no image that passed and no whole window, only as many offered images as a window needs subjects: whose
    scanner is broken should not wait for the next look.
    """
    held_back = _too_many_held_back(plan, intake)
    if held_back is None:
        return None
    return DriftReport(
        site=site,
        reference_site=NO_REFERENCE,
        verdict=held_back.verdict,
        action=held_back.action,
        reason=held_back.reason,
        alpha=plan.alpha,
        reference_subjects=0,
        current_subjects=0,
        reference_samples=0,
        current_samples=0,
        quarantined=intake.quarantined,
        signals=(),
    )


def is_faulty(references: Sequence[Window], images: Window | None, plan: ChangePlan, intake: Intake) -> bool:
    """Whether one batch of a site, however small, is by itself a data fault; `images` are those that passed the gate.

    A look says that a window holds a fault; this says which of its batches do. What was held back counts where as many
    images were offered as a window needs subjects.
    """
    if _too_many_held_back(plan, intake) is not None:
        return True
    own = [window for window in references if images is not None and window.site == images.site]
    able = bool(own) and own[0].subject_count >= plan.minimum_subjects
    return able and images is not None and _broken(own[0], images, plan, intake) is not None


def _root_cause(
    reference: Window, current: Window, plan: ChangePlan, past: Past, over_time: EvidenceOverTime | None
) -> RootCause:
    """The card on what drifted, from where its evidence begins, or on the current window alone when it is broken."""
    windows = (*past.windows, current)
    if over_time is None:
        return root_cause(reference, Stretch(windows, len(windows)), plan)
    strongest = SignalFamily(max(over_time.families, key=lambda name: over_time.families[name]))
    return root_cause(reference, Stretch(windows, over_time.since, strongest), plan)


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
    held_back = _too_many_held_back(plan, intake)
    if held_back is not None:
        return held_back
    known = 0 if reference is None else reference.subject_count
    # How many images came is no excuse for what is wrong with them.
    broken = _broken(reference, current, plan, intake) if reference and known >= plan.minimum_subjects else None
    if broken is None and min(known, current.subject_count) < plan.minimum_subjects:
        name = None if reference is None else reference.site
        return too_few_subjects(current.subject_count, known, name, plan.minimum_subjects)
    return broken


def _too_many_held_back(plan: ChangePlan, intake: Intake) -> Judgement | None:
    """Of fewer offered images than a window needs subjects nothing is told: one bad file of three is no scanner."""
    if intake.offered < plan.minimum_subjects or intake.quarantined_share <= plan.quarantine_limit:
        return None
    return too_many_quarantined(intake.offered, intake.quarantined, plan.quarantine_limit)


def _broken(reference: Window, current: Window, plan: ChangePlan, intake: Intake) -> Judgement | None:
    """A fault that shows in the images of a window; in those that nobody has looked at."""
    if intake.trusted:
        if len(intake.trusted) != len(current.subjects):
            raise WindowError(
                f"intake of site {current.site}: {len(intake.trusted)} samples are told trusted or not, the window has "
                f"{len(current.subjects)}; pass one per sample, or none"
            )
        suspect = ~np.asarray(intake.trusted)
        if not suspect.any():
            return None
        current = select(current, suspect)
    images = len(current.subjects)
    inverted = inverted_share(reference, current)
    if _too_many(inverted, images, plan):
        return too_many_inverted(inverted, images, reference.site, plan.quarantine_limit)
    cropped = cropped_share(reference, current)
    if _too_many(cropped, images, plan):
        return too_many_cropped(cropped, images, reference.site, plan.quarantine_limit)
    return None


def _too_many(share: float, images: int, plan: ChangePlan) -> bool:
    """Whether a share of the images looks broken that is above the plan's limit, and that odd sound ones do not make.

    Of few images one is a large share: a single odd one is not yet a fault, two of two are.
    """
    odd = round(share * images)
    return share > plan.quarantine_limit and float(binom.sf(odd - 1, images, _ODD_SHARE)) < _BY_CHANCE
