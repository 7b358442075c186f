"""When the change plan lets the next update of a site begin; knows nothing of verdicts, records or clocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from continual.domain.change_plan import ChangePlan

MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class JudgedUpdate:
    """An update that the gate accepted or rejected, and when; an adapter's first version is a release, no update."""

    site: str
    judged_at: datetime


@dataclass(frozen=True, slots=True)
class UpdatePause:
    """Why no update of a site may begin now, in words, and when one may."""

    reason: str
    until: datetime


def update_pause(
    plan: ChangePlan, site: str, judged: Sequence[JudgedUpdate], at: datetime, *, urgent: bool
) -> UpdatePause | None:
    """What keeps an update of `site` waiting at this time, the longest pause of several; None: it may begin.

    `judged` are the adapter's updates at all sites. An urgent one does not wait for the site's cooldown.
    """
    pauses = [_budget(plan, judged, at), None if urgent else _cooldown(plan, site, judged, at)]
    return max((pause for pause in pauses if pause is not None), key=lambda pause: pause.until, default=None)


def _cooldown(plan: ChangePlan, site: str, judged: Sequence[JudgedUpdate], at: datetime) -> UpdatePause | None:
    last = max((update.judged_at for update in judged if update.site == site), default=None)
    if last is None:
        return None
    until = last + timedelta(days=plan.cooldown_days)
    reason = f"cooldown of {plan.cooldown_days:g} days at {site} until {_spelt(until)}"
    return UpdatePause(reason, until) if at < until else None


def _budget(plan: ChangePlan, judged: Sequence[JudgedUpdate], at: datetime) -> UpdatePause | None:
    spent = sorted(update.judged_at for update in judged if at - MONTH < update.judged_at)
    if not plan.updates_per_month or len(spent) < plan.updates_per_month:
        return None
    until = spent[-plan.updates_per_month] + MONTH
    reason = f"budget of {plan.updates_per_month} updates in 30 days is spent until {_spelt(until)}"
    return UpdatePause(reason, until)


def _spelt(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
