"""The gate: is a candidate good enough to replace the champion, site by site? Pure numpy; knows nothing of tables.

Per site a paired bootstrap over subjects (Efron & Tibshirani 1993, ch. 13): both models are read on the same resampled
subjects, because one patient's images move together and both models see the same patients. The metric is balanced
accuracy where the outcomes are labels, and the mean score where every image has one (Dice).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from continual.domain.adapters import GateDecision, GateFinding, SiteOutcomes
from continual.domain.change_plan import ChangePlan
from continual.domain.digests import sha256_bytes
from continual.domain.errors import ConflictError, SettingsError
from continual.domain.metrics import balanced_accuracy, chance_level

PAST = "past"
NEW = "new"
FEWEST_SUBJECTS = 2
"""One subject cannot be resampled into anything but itself."""
CELLS_PER_CHUNK = 2_000_000


def run_gate(
    candidate: Sequence[SiteOutcomes],
    champion: Sequence[SiteOutcomes],
    past_sites: Sequence[str],
    plan: ChangePlan,
) -> GateDecision:
    """The verdict over all of the candidate's sites; each finding's reason is a sentence with the numbers.

    A past site passes when the lower bound of candidate minus champion lies above `plan.past_site_margin` and the
    observed loss is at most `plan.past_site_drop`; a new site when the observed difference exceeds
    `plan.new_site_gain`. Without any champion a site passes when the candidate's lower bound lies above chance, which
    is what a constant answer reaches. Raises ConflictError when a site is missing or the two were not asked the same.
    """
    if plan.bootstrap_draws < 1:
        raise SettingsError(f"change plan: {plan.bootstrap_draws} bootstrap draws, must be 1 or more; correct the plan")
    rivals = _by_site(champion, "champion")
    _check_sites(_by_site(candidate, "candidate"), rivals, past_sites)
    findings = tuple(_finding(outcomes, rivals.get(outcomes.site), past_sites, plan) for outcomes in candidate)
    return GateDecision(
        accepted=all(finding.passed for finding in findings),
        findings=findings,
        margin=plan.past_site_margin,
        confidence=plan.confidence,
    )


def _finding(
    candidate: SiteOutcomes, champion: SiteOutcomes | None, past_sites: Sequence[str], plan: ChangePlan
) -> GateFinding:
    if champion is None:
        return _first_finding(candidate, plan)
    _check_same_samples(candidate, champion)
    mine, other = _observed(candidate), _observed(champion)
    difference = mine - other
    counts = _count(candidate)
    few = counts.subjects < FEWEST_SUBJECTS
    draws = _drawn_scores(counts, (_correct(candidate, counts), _correct(champion, counts)), plan, candidate.site)
    lower = difference if few else _lower(draws[0] - draws[1], plan)
    past = candidate.site in past_sites
    limit = plan.past_site_margin if past else plan.new_site_gain
    passed = (lower if past else difference) > limit
    held = f"the lower bound {lower:+.3f} at {plan.confidence:.0%} confidence" if past else "the gain"
    if past and few:
        held = "the observed difference, for want of a second subject to resample,"
    verdict = f"{held} is {'above' if passed else 'not above'} the limit {limit:+.3f}"
    if past and difference < -plan.past_site_drop:
        passed, verdict = False, f"{verdict}, and the observed loss is larger than {plan.past_site_drop:.3f}"
    reason = (
        f"On {'past' if past else 'new'} site {candidate.site!r} the candidate reaches {mine:.3f} against the "
        f"champion's {other:.3f} ({difference:+.3f}, {counts.subjects} subjects): {verdict}."
    )
    return GateFinding(
        site=candidate.site,
        role=PAST if past else NEW,
        champion=other,
        candidate=mine,
        difference=difference,
        lower_bound=lower,
        limit=limit,
        passed=passed,
        subjects=counts.subjects,
        reason=reason,
    )


def _first_finding(candidate: SiteOutcomes, plan: ChangePlan) -> GateFinding:
    """With no champion to compare with, the least a model must show is that it beats guessing."""
    score = _observed(candidate)
    chance = candidate.chance if candidate.scores else chance_level(candidate.labels)
    counts = _count(candidate)
    few = counts.subjects < FEWEST_SUBJECTS
    lower = (
        score if few else _lower(_drawn_scores(counts, (_correct(candidate, counts),), plan, candidate.site)[0], plan)
    )
    passed = lower > chance
    held = "its score, for want of a second subject to resample," if few else f"its lower bound {lower:.3f}"
    return GateFinding(
        site=candidate.site,
        role=NEW,
        champion=None,
        candidate=score,
        difference=score - chance,
        lower_bound=lower,
        limit=chance,
        passed=passed,
        subjects=counts.subjects,
        reason=(
            f"On new site {candidate.site!r} the first version reaches {score:.3f} ({counts.subjects} subjects): "
            f"{held} at {plan.confidence:.0%} confidence is {'above' if passed else 'not above'} chance, {chance:.3f}."
        ),
    )


def _observed(outcomes: SiteOutcomes) -> float:
    if outcomes.scores:
        return float(np.mean(outcomes.scores))
    return balanced_accuracy(outcomes.labels, outcomes.predicted)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Samples of each subject in each class present; `subject` and `label` index every sample into it.

    Scored samples are all of one class: its recall, a score counting as that share of a hit, is their mean score.
    """

    subject: Int[np.ndarray, "sample"]
    label: Int[np.ndarray, "sample"]
    total: Float[np.ndarray, "subject class"]

    @property
    def subjects(self) -> int:
        return int(self.total.shape[0])


def _count(outcomes: SiteOutcomes) -> _Counts:
    subject_names, subject = np.unique(outcomes.subjects, return_inverse=True)
    labels = np.zeros(len(outcomes.scores)) if outcomes.scores else np.asarray(outcomes.labels)
    label_names, label = np.unique(labels, return_inverse=True)
    total = np.zeros((len(subject_names), len(label_names)))
    np.add.at(total, (subject, label), 1.0)
    return _Counts(subject, label, total)


def _correct(outcomes: SiteOutcomes, counts: _Counts) -> Float[np.ndarray, "subject class"]:
    scores = outcomes.scores or np.asarray(outcomes.labels) == np.asarray(outcomes.predicted)
    correct = np.zeros_like(counts.total)
    np.add.at(correct, (counts.subject, counts.label), np.asarray(scores, dtype=float))
    return correct


def _drawn_scores(
    counts: _Counts, correct: Sequence[Float[np.ndarray, "subject class"]], plan: ChangePlan, site: str
) -> list[Float[np.ndarray, "draw"]]:
    """Each model's metric in every draw: balanced accuracy over the classes that the draw holds, or the mean score."""
    parts: list[list[Float[np.ndarray, "draw"]]] = [[] for _ in correct]
    for weights in _resamples(counts.subjects, plan, site):
        total = weights @ counts.total
        present = total > 0
        for scores, hits in zip(parts, correct, strict=True):
            recall = np.divide(weights @ hits, total, out=np.zeros_like(total), where=present)
            scores.append(recall.sum(axis=1) / present.sum(axis=1))
    return [np.concatenate(scores) for scores in parts]


def _resamples(subjects: int, plan: ChangePlan, site: str) -> Iterator[Float[np.ndarray, "draw subject"]]:
    """How often each subject is drawn, chunk by chunk; the site's name is in the seed, its place in the list is not."""
    rng = np.random.default_rng([plan.seed, int(sha256_bytes(site.encode())[:8], 16)])
    rows = max(1, CELLS_PER_CHUNK // subjects)
    for start in range(0, plan.bootstrap_draws, rows):
        draws = min(rows, plan.bootstrap_draws - start)
        picked = rng.integers(subjects, size=(draws, subjects)) + subjects * np.arange(draws)[:, np.newaxis]
        yield np.bincount(picked.ravel(), minlength=draws * subjects).reshape(draws, subjects).astype(float)


def _lower(values: Float[np.ndarray, "draw"], plan: ChangePlan) -> float:
    return float(np.quantile(values, 1 - plan.confidence))


def _by_site(outcomes: Sequence[SiteOutcomes], who: str) -> Mapping[str, SiteOutcomes]:
    found: dict[str, SiteOutcomes] = {}
    for one in outcomes:
        if one.site in found:
            raise ConflictError(f"the {who} has two sets of outcomes for site {one.site!r}; pass one per site")
        _check_outcomes(one, who)
        found[one.site] = one
    return found


def _check_outcomes(outcomes: SiteOutcomes, who: str) -> None:
    asked, labels, predicted, scores = (
        len(part) for part in (outcomes.subjects, outcomes.labels, outcomes.predicted, outcomes.scores)
    )
    if asked < 1 or (labels, predicted, scores) not in ((asked, asked, 0), (0, 0, asked)):
        raise ConflictError(
            f"the {who}'s outcomes on site {outcomes.site!r} are {asked} subjects, {labels} labels, {predicted} "
            f"predictions and {scores} scores; pass as many labels and predictions as subjects, or scores alone"
        )
    unfit = [value for value in (*outcomes.scores, outcomes.chance) if not 0 <= value <= 1]
    if unfit:
        raise ConflictError(
            f"the {who} has a score of {unfit[0]} on site {outcomes.site!r}, must lie between 0 and 1; evaluate again"
        )


def _check_sites(
    candidate: Mapping[str, SiteOutcomes], champion: Mapping[str, SiteOutcomes], past_sites: Sequence[str]
) -> None:
    if not candidate:
        raise ConflictError("the candidate has outcomes on 0 sites; evaluate it on at least 1")
    untested = [site for site in past_sites if site not in candidate]
    if untested:
        raise ConflictError(f"the candidate was not evaluated on past site {untested[0]!r}; evaluate it on every one")
    if champion or past_sites:
        unmatched = [site for site in candidate if site not in champion]
        if unmatched:
            raise ConflictError(f"the champion was not evaluated on site {unmatched[0]!r}; evaluate both on every site")


def _check_same_samples(candidate: SiteOutcomes, champion: SiteOutcomes) -> None:
    asked = [(one.subjects, one.labels, len(one.scores)) for one in (candidate, champion)]
    if asked[0] != asked[1]:
        raise ConflictError(
            f"candidate and champion were asked about different samples on site {candidate.site!r} "
            f"({len(candidate.subjects)} and {len(champion.subjects)}); evaluate both on the same test split, "
            "in one order"
        )
