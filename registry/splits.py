"""Which side of every evaluation a new subject stands on: a deterministic, stratified greedy assignment.

Knows nothing of tables. Subjects, not images, are assigned and counted: one patient's images never stand on two sides,
and a patient with many images is still one patient. Each subject goes where its dominant label is furthest behind its
target share, so filling is even at every size (Adams' method of apportionment, with subjects as votes): the first three
subjects of a label go to train, test and validation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from continual.domain.digests import sha256_bytes
from continual.domain.samples import SPLIT_SHARES, Split

UNLABELLED = ""
"""Stands for the label of samples that have none: they are spread evenly, too."""

LabelSplitCounts = Mapping[tuple[str, Split], int]
"""Number of subjects per label and split; one with several labels counts under each."""


@dataclass(frozen=True, slots=True)
class NewSubject:
    """A subject that has no split yet. `labels` counts its samples per label, unlabelled ones under ``""``.

    `demanded` is the split the manifest asks for; None lets the assignment choose. `mark` names the subject by its
    images, so that the same images get the same splits under every pseudonym key; empty falls back on the pseudonym.
    """

    pseudonym: str
    labels: Mapping[str, int]
    demanded: Split | None = None
    mark: str = ""


def assign_splits(subjects: Sequence[NewSubject], stored: LabelSplitCounts) -> dict[str, Split]:
    """A split per pseudonym, given what one site holds already; the same for every order of `subjects`.

    Demanded splits are honoured first and count. Then come the subjects of the rarest labels, within a label in the
    order of a digest, which is as good as chance: a patient's number of images has no say.
    """
    filled = Counter(dict(stored))
    totals: Counter[str] = Counter()
    for (label, _), count in stored.items():
        totals[label] += count
    for subject in subjects:
        totals.update(subject.labels.keys())
    chosen: dict[str, Split] = {}
    for subject in subjects:
        if subject.demanded is not None:
            _place(subject, subject.demanded, chosen, filled)
    free = [subject for subject in subjects if subject.demanded is None]
    for subject in sorted(free, key=lambda one: _turn(one, totals)):
        _place(subject, _furthest_behind(_dominant(subject, totals), filled), chosen, filled)
    return chosen


def _turn(subject: NewSubject, totals: Mapping[str, int]) -> tuple[int, str, str]:
    label = _dominant(subject, totals)
    return totals[label], label, sha256_bytes((subject.mark or subject.pseudonym).encode())


def _dominant(subject: NewSubject, totals: Mapping[str, int]) -> str:
    return min(subject.labels, key=lambda label: (-subject.labels[label], totals[label], label))


def _furthest_behind(label: str, filled: Mapping[tuple[str, Split], int]) -> Split:
    # Deficit over target is 1 - filled / (share * total): largest where filled / share is least, whatever the total.
    return min(SPLIT_SHARES, key=lambda split: (filled[label, split] / SPLIT_SHARES[split], -SPLIT_SHARES[split]))


def _place(subject: NewSubject, split: Split, chosen: dict[str, Split], filled: "Counter[tuple[str, Split]]") -> None:
    chosen[subject.pseudonym] = split
    for label in subject.labels:
        filled[label, split] += 1
