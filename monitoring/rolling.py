"""The lagged rolling reference: whether a site that drifted still changes; it dates a change and calls nothing."""

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import RollingComparison
from monitoring.evidence import Past
from monitoring.families import compare_families
from monitoring.windows import Window, pool


def compare_with_last(current: Window, plan: ChangePlan, past: Past) -> RollingComparison | None:
    """The current window against the plan's last `rolling_windows` tested ones, without the very last.

    None before the third window, and where too few of their subjects are left to test.
    """
    last = len(past.windows) - 1
    first = max(1, last - plan.rolling_windows + 1)
    kept = [window for window in past.windows[first - 1 : last] if window is not None] if last >= first else []
    if not kept:
        return None
    reference = pool(kept)
    if reference.subject_count < plan.minimum_subjects:
        return None
    families = compare_families(reference, current, plan)
    return RollingComparison(
        first=first,
        last=last,
        subjects=reference.subject_count,
        p_values={family.name.value: min(s.adjusted_p_value for s in family.signals) for family in families},
        level=plan.alpha * plan.first_look_share,
        differs=any(signal.alarm for family in families for signal in family.signals),
    )


def rolling_words(rolling: RollingComparison | None) -> str:
    """The comparison as the end of a report's sentence; empty where there is none."""
    if rolling is None:
        return ""
    first, last = rolling.first, rolling.last
    windows = f"window {last}" if first == last else f"windows {first}-{last}"
    if rolling.differs:
        return f"; it differs from {windows}, too, at level {rolling.level:g}: still changing, or changed since"
    return f"; as in {windows} ({rolling.subjects} subjects) at level {rolling.level:g}: the change is older than those"
