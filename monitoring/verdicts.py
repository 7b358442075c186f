"""From signals to a verdict, an action and one sentence; knows nothing of how a signal was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import (
    Action,
    CaseMix,
    EvidenceOverTime,
    PerformanceEvidence,
    RiskEvidence,
    Signal,
    SignalFamily,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its action and the sentence that explains both."""

    verdict: Verdict
    action: Action
    reason: str
    harmed: bool = False
    """Performance fell by more than is allowed, and that was called."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one look found: all signals, the subjects compared, and what labels say."""

    site: str
    reference_site: str
    current_subjects: int
    reference_subjects: int
    signals: Sequence[Signal]
    performance: PerformanceEvidence | None
    over_time: EvidenceOverTime | None = None
    case_mix: CaseMix | None = None
    harmed: bool = False
    """Harm was found before and had not cleared."""

    def allowed_fall(self, plan: ChangePlan) -> float:
        """The plan's margin; once harm was found the smaller one, so that it does not come and go by chance."""
        cleared = plan.harm_margin if plan.harm_cleared is None else plan.harm_cleared
        return cleared if self.harmed else plan.harm_margin

    def fell_by_chance(self, plan: ChangePlan) -> bool:
        """Whether labels are enough to tell a fall from chance, and do not; harm that stands is not asked again."""
        risk = None if self.performance is None else self.performance.risk
        return risk is not None and not risk.called and not (self.harmed and plan.harm_cleared is not None)

    def enough_labels(self, plan: ChangePlan) -> bool:
        """Whether a fall rests on as many labels as the plan asks for."""
        return _enough(self.performance, plan)

    @property
    def drifted(self) -> bool:
        """Drift was called by this window or an earlier one since the promotion."""
        return self.over_time is not None and self.over_time.called_at is not None


def too_many_quarantined(offered: int, quarantined: int, limit: float) -> Judgement:
    """The quality gate held back more than the plan allows."""
    reason = (
        f"the intake held back {quarantined} of {offered} images ({quarantined / offered:.0%}, limit {limit:.0%}): "
        "check the scanner, the export and the labels before sending more"
    )
    return Judgement(Verdict.DATA_FAULT, Action.QUARANTINE, reason)


def too_many_inverted(share: float, samples: int, reference_site: str, limit: float) -> Judgement:
    """Images fit the reference only when inverted."""
    reason = (
        f"{share:.0%} of {samples} images (limit {limit:.0%}) fit site {reference_site} only with black and white "
        "exchanged: check the photometric interpretation the scanner or the export writes"
    )
    return Judgement(Verdict.DATA_FAULT, Action.QUARANTINE, reason)


def too_many_cropped(share: float, samples: int, reference_site: str, limit: float) -> Judgement:
    """Images lost part of their field."""
    reason = (
        f"{share:.0%} of {samples} images (limit {limit:.0%}) are like those of site {reference_site} with a part cut "
        "off or filled with black or white: check what the export crops, masks or fails to send"
    )
    return Judgement(Verdict.DATA_FAULT, Action.QUARANTINE, reason)


def too_few_subjects(current: int, reference: int, reference_site: str | None, minimum: int) -> Judgement:
    """A window is below the plan's minimum, or there is no reference at all."""
    if reference_site is None:
        said = f"there is no reference window to compare the {current} current subjects with"
    else:
        said = f"{current} current subjects against {reference} of reference site {reference_site}"
    missing = [
        f"{minimum - count} more {name} subjects"
        for name, count in (("current", current), ("reference", reference))
        if count < minimum
    ]
    reason = f"{said}, and each window needs {minimum}: wait for {' and '.join(missing)}"
    return Judgement(Verdict.INSUFFICIENT_DATA, Action.WAIT, reason)


def judge(evidence: Evidence, plan: ChangePlan) -> Judgement:
    """Verdict on a look with enough subjects and no fault: what alarmed, and whether measured performance fell."""
    fall = _fall(evidence.performance)
    if not evidence.drifted:
        return _judge_quiet(evidence, plan, fall)
    margin = evidence.allowed_fall(plan)
    said = f"{_difference(evidence)}; {_performance(evidence.performance, plan.harm_margin)}"
    said += _standing(fall, evidence, plan)
    by_chance = evidence.fell_by_chance(plan)
    harmed = fall is not None and fall > margin and not by_chance
    # Balanced accuracy does not depend on the mix: where it fell, something else changed, too.
    if evidence.case_mix is not None and evidence.case_mix.explains and not harmed:
        said = f"{said}; {_mix(evidence.case_mix)}: recalibrate to the new mix, the images themselves look alike"
        return Judgement(Verdict.PREVALENCE_SHIFT, Action.RECALIBRATE, said)
    action, remedy = _remedy(evidence.performance, fall, plan, margin)
    if by_chance and action is Action.UPDATE:
        action, remedy = Action.LOG, "no update is needed, so few labels show such a fall by chance"
    return Judgement(Verdict.COVARIATE_SHIFT, action, f"{said}: {remedy}", harmed and evidence.enough_labels(plan))


def _remedy(
    performance: PerformanceEvidence | None, fall: float | None, plan: ChangePlan, margin: float
) -> tuple[Action, str]:
    """What to do about images that changed: it depends on harm, measured or estimated, and on labels at hand."""
    if fall is None and _holds(performance, margin):
        return Action.LOG, "no update is needed as far as can be told without labels"
    if fall is None:
        return Action.REQUEST_LABELS, "send labels so that harm can be judged"
    if fall <= margin and (_enough(performance, plan) or _holds(performance, margin)):
        return Action.LOG, "no update is needed"
    if fall <= margin:
        return Action.REQUEST_LABELS, f"send labels, fewer than {plan.minimum_labelled} cannot rule harm out"
    labelled = 0 if performance is None else performance.for_training
    if labelled >= plan.minimum_labelled:
        return Action.UPDATE, f"update on {labelled} labelled training samples"
    short = plan.minimum_labelled - labelled
    here = f"{labelled} of {plan.minimum_labelled} are here"
    return Action.REQUEST_LABELS, f"send {short} more labelled training samples ({here})"


def _judge_quiet(evidence: Evidence, plan: ChangePlan, fall: float | None) -> Judgement:
    """Nothing looks different: labels that say otherwise point to a changed meaning."""
    said = _quiet(evidence, plan)
    if evidence.performance is None or fall is None:
        return Judgement(Verdict.NO_DRIFT, Action.NONE, said)
    said = f"{said}; {_performance(evidence.performance, plan.harm_margin)}"
    if fall <= evidence.allowed_fall(plan):
        return Judgement(Verdict.NO_DRIFT, Action.NONE, said)
    if evidence.harmed and plan.harm_cleared is not None:
        return _concept_shift(said + _standing(fall, evidence, plan), evidence.performance, plan)
    if not evidence.enough_labels(plan):
        return Judgement(
            Verdict.NO_DRIFT, Action.NONE, f"{said}: too few labels to call it, {plan.minimum_labelled} are needed"
        )
    risk = evidence.performance.risk
    if risk is not None and risk.called:
        return _concept_shift(f"{said} ({_risk(risk)})", evidence.performance, plan)
    why = "no labelled reference to hold it against"
    if risk is not None:
        why = f"a fall that this few labels show by chance ({_risk(risk)})"
    return Judgement(Verdict.NO_DRIFT, Action.NONE, f"{said}: {why}")


def _concept_shift(said: str, performance: PerformanceEvidence, plan: ChangePlan) -> Judgement:
    alike = f"{said}: images look alike but their labels are met less often"
    short = plan.minimum_labelled - performance.for_training
    if short > 0:
        wanted = f"{alike}; roll back, or send {short} more labelled training samples for an update"
        return Judgement(Verdict.CONCEPT_SHIFT, Action.REQUEST_LABELS, wanted, harmed=True)
    return Judgement(Verdict.CONCEPT_SHIFT, Action.URGENT_UPDATE, f"{alike}; update now or roll back", harmed=True)


def _standing(fall: float | None, evidence: Evidence, plan: ChangePlan) -> str:
    """Why a fall that the plan's margin allows is harm all the same; empty where it is none, or one by itself."""
    margin = evidence.allowed_fall(plan)
    if fall is None or not margin < fall <= plan.harm_margin:
        return ""
    return f", and harm that was found stands until the fall is at most {margin:g}"


def _risk(risk: RiskEvidence) -> str:
    """What the labels say over time, as a sentence's part."""
    return (
        f"p {risk.p_value:.2g} at milestone {risk.milestone}, limit {risk.level:.2g}; with {risk.confidence:.0%} "
        f"confidence at all times {risk.bound_low:.3f} to {risk.bound_high:.3f}"
    )


def _mix(case_mix: CaseMix) -> str:
    """The class whose share changed most."""
    pairs = list(zip(case_mix.reference, case_mix.current, strict=True))
    place = max(range(len(pairs)), key=lambda klass: abs(pairs[klass][1] - pairs[klass][0]))
    name = case_mix.classes[place] if case_mix.classes else f"class {place}"
    known, now = pairs[place]
    return (
        f"the difference is gone once the reference has the estimated case mix ({name} from {known:.0%} to {now:.0%})"
    )


def _quiet(evidence: Evidence, plan: ChangePlan) -> str:
    compared = f"{evidence.current_subjects} current subjects and {evidence.reference_subjects} of site "
    over_time = evidence.over_time
    if over_time is None or over_time.windows == 1:
        level = plan.alpha * plan.first_look_share
        return f"no family of signals alarms between {compared}{evidence.reference_site} at level {level:g}"
    return f"no drift is called between {compared}{evidence.reference_site}; {_evidence(over_time)}"


def _evidence(over_time: EvidenceOverTime) -> str:
    """The evidence as a sentence's part."""
    relation = "reaches" if over_time.value >= over_time.threshold else "is below"
    windows = "window" if over_time.windows == 1 else "windows"
    return (
        f"evidence of {over_time.windows} {windows} since the promotion is {over_time.value:.3g}, which {relation} the "
        f"limit {over_time.threshold:g}"
    )


def _fall(performance: PerformanceEvidence | None) -> float | None:
    """Reference minus current metric, positive when it got worse; None when one of them was not measured."""
    if performance is None or performance.reference is None or performance.current is None:
        return None
    return performance.reference - performance.current


def _enough(performance: PerformanceEvidence | None, plan: ChangePlan) -> bool:
    return performance is not None and performance.labelled >= plan.minimum_labelled


def _holds(performance: PerformanceEvidence | None, margin: float) -> bool:
    """Whether the whole interval of the estimate without labels lies above the allowed fall."""
    if performance is None or performance.reference is None or performance.estimated_low is None:
        return False
    return performance.estimated_low >= performance.reference - margin


def _difference(evidence: Evidence) -> str:
    alarming = [signal for signal in evidence.signals if signal.alarm]
    families = [family for family in SignalFamily if any(signal.family is family for signal in alarming)]
    parts = [_strongest([signal for signal in alarming if signal.family is family]) for family in families]
    known = f"site {evidence.reference_site}"
    if evidence.site != evidence.reference_site:
        known = f"{known}, the nearest known site,"
    compared = f"{evidence.current_subjects} subjects"
    said = f"{compared} differ from {evidence.reference_subjects} of {known} in {' and '.join(parts)}"
    if not parts:
        said = f"{compared} alone do not stand out against {evidence.reference_subjects} of {known}"
    over_time = evidence.over_time
    if over_time is None or over_time.windows == 1:
        return said
    dated = f"most of it from window {over_time.since} on; drift was called at window {over_time.called_at}"
    return f"{said}; {_evidence(over_time)}, {dated}"


def _strongest(signals: Sequence[Signal]) -> str:
    """The family's alarming signal with the smallest p-value, and among equals the highest score."""
    top = min(signals, key=lambda signal: (signal.adjusted_p_value, -signal.score))
    family = top.family.value.replace("_", " ")
    numbers = f"score {top.score:.3g}, adjusted p {top.adjusted_p_value:.2g}"
    if top.name == top.family.value:
        return f"{family} ({numbers})"
    more = f", and {len(signals) - 1} more" if len(signals) > 1 else ""
    return f"{family} (most in {top.name}: {numbers}{more})"


def _performance(performance: PerformanceEvidence | None, margin: float) -> str:
    if performance is None or performance.current is None:
        return _without_labels(performance)
    metric = performance.metric.replace("_", " ")
    if performance.reference is None:
        return f"{metric} is {performance.current:.3f}, with no reference value to hold it against"
    return (
        f"{metric} is {performance.current:.3f} on {performance.labelled} labelled samples, "
        f"{performance.reference:.3f} on the reference (allowed fall {margin:g})"
    )


def _without_labels(performance: PerformanceEvidence | None) -> str:
    if performance is None or performance.estimated is None:
        return "performance is unknown, the window has no labels and lies outside what could be estimated"
    against = "" if performance.reference is None else f", {performance.reference:.3f} on the reference"
    return (
        f"{performance.metric.replace('_', ' ')} is estimated without labels at {performance.estimated:.3f} "
        f"({performance.estimated_low:.3f} to {performance.estimated_high:.3f}){against}"
    )
