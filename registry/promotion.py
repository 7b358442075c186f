"""The gate: is a candidate good enough to replace the champion, site by site? Pure numpy; knows nothing of tables.

Per site a paired bootstrap over subjects (Efron & Tibshirani 1993, ch. 13): both models are read on the same resampled
subjects, because one patient's images move together and both models see the same patients.
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
    `plan.new_site_gain`. Without any champion a site passes when the candidate's
    lower bound lies above chance. Raises ConflictError when a site is missing or the two were not asked the same.
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
    mine = balanced_accuracy(candidate.labels, candidate.predicted)
    other = balanced_accuracy(champion.labels, champion.predicted)
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
    score, chance = balanced_accuracy(candidate.labels, candidate.predicted), chance_level(candidate.labels)
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


@dataclass(frozen=True, slots=True)
class _Counts:
    """Samples of each subject in each class present; `subject` and `label` index every sample into it."""

    subject: Int[np.ndarray, "sample"]
    label: Int[np.ndarray, "sample"]
    total: Float[np.ndarray, "subject class"]

    @property
    def subjects(self) -> int:
        return int(self.total.shape[0])


def _count(outcomes: SiteOutcomes) -> _Counts:
    subject_names, subject = np.unique(outcomes.subjects, return_inverse=True)
    label_names, label = np.unique(outcomes.labels, return_inverse=True)
    total = np.zeros((len(subject_names), len(label_names)))
    np.add.at(total, (subject, label), 1.0)
    return _Counts(subject, label, total)


def _correct(outcomes: SiteOutcomes, counts: _Counts) -> Float[np.ndarray, "subject class"]:
    hits = np.asarray(outcomes.labels) == np.asarray(outcomes.predicted)
    correct = np.zeros_like(counts.total)
    np.add.at(correct, (counts.subject[hits], counts.label[hits]), 1.0)
    return correct


def _drawn_scores(
    counts: _Counts, correct: Sequence[Float[np.ndarray, "subject class"]], plan: ChangePlan, site: str
) -> list[Float[np.ndarray, "draw"]]:
    """Balanced accuracy of each model in every draw, over the classes that the draw holds."""
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
        if not one.labels or not len(one.subjects) == len(one.labels) == len(one.predicted):
            raise ConflictError(
                f"the {who}'s outcomes on site {one.site!r} are {len(one.subjects)} subjects, {len(one.labels)} labels "
                f"and {len(one.predicted)} predictions; pass the same number of each, at least 1"
            )
        found[one.site] = one
    return found


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
    if candidate.subjects != champion.subjects or candidate.labels != champion.labels:
        raise ConflictError(
            f"candidate and champion were asked about different samples on site {candidate.site!r} "
            f"({len(candidate.labels)} and {len(champion.labels)}); evaluate both on the same test split, in one order"
        )
