"""What each action means to the person who reads it; knows nothing of pages or statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from continual.domain.drift import Action, Verdict


class Tone(StrEnum):
    """How urgent an action is; always shown with words and a sign, never by colour alone."""

    ACT = "act"
    WATCH = "watch"
    WAIT = "wait"
    CALM = "calm"


@dataclass(frozen=True, slots=True)
class ActionWords:
    """An action in the imperative, and its urgency."""

    headline: str
    tone: Tone


ACTION_WORDS: Mapping[Action, ActionWords] = {
    Action.QUARANTINE: ActionWords("Fix the scanner", Tone.ACT),
    Action.URGENT_UPDATE: ActionWords("Update now or roll back", Tone.ACT),
    Action.REQUEST_LABELS: ActionWords("Send labels", Tone.ACT),
    Action.UPDATE: ActionWords("Let it update", Tone.WATCH),
    Action.RECALIBRATE: ActionWords("Recalibrate the threshold", Tone.WATCH),
    Action.WAIT: ActionWords("Wait for more images", Tone.WAIT),
    Action.LOG: ActionWords("Nothing to do", Tone.CALM),
    Action.NONE: ActionWords("Nothing to do", Tone.CALM),
}

VERDICT_WORDS: Mapping[Verdict, str] = {
    Verdict.INSUFFICIENT_DATA: "Too little data to tell",
    Verdict.NO_DRIFT: "No drift",
    Verdict.DATA_FAULT: "Data fault",
    Verdict.PREVALENCE_SHIFT: "Prevalence shift",
    Verdict.COVARIATE_SHIFT: "Covariate shift",
    Verdict.CONCEPT_SHIFT: "Concept shift",
}


def is_alarm(action: Action) -> bool:
    """Whether somebody, or the next update, has to do something."""
    return ACTION_WORDS[action].tone in (Tone.ACT, Tone.WATCH)
