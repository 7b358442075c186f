"""Which side of every evaluation a new subject stands on: a deterministic, stratified greedy assignment.

Knows nothing of tables. Subjects, not images, are assigned and counted: one patient's images never stand on two sides,
and a patient with many images is still one patient. Each subject goes where its dominant label is furthest behind its
target share, so filling is even at every size (Adams' method of apportionment, with subjects as votes): the first three
subjects of a label go to train, test and validation. Which of a label's subjects takes which of these places is drawn
again and again, and the draw kept whose images come nearest to the shares (rerandomisation, Morgan & Rubin 2012).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float

from continual.domain.digests import sha256_bytes
from continual.domain.samples import SPLIT_SHARES, Split

MOST_DRAWS = 500
"""Orders tried per label; with thousands of subjects chance alone is even, and fewer are tried."""
MOST_PLACES_DRAWN = 200_000

UNLABELLED = ""
"""Stands for the label of samples that have none: they are spread evenly, too."""
MASKED = "\x00mask"
"""Stands for the label of samples that have a mask instead; no label can be spelt so."""

LabelSplitCounts = Mapping[tuple[str, Split], int]
"""Number of subjects per label and split; one with several labels counts under each."""


@dataclass(frozen=True, slots=True)
class NewSubject:
    """A subject that has no split yet. `labels` counts its samples per label, or what stands for one (`stratum`).

    `demanded` is the split the manifest asks for; None lets the assignment choose. `mark` names the subject by its
    images, so that the same images get the same splits under every pseudonym key; empty falls back on the pseudonym.
    """

    pseudonym: str
    labels: Mapping[str, int]
    demanded: Split | None = None
    mark: str = ""


def least_learnt(splits: Iterable[Split]) -> Split:
    """Of several sides the one that least is learnt from: test before validation before training."""
    return max(splits, key=list(Split).index)


def stratum(label: str | None, *, masked: bool) -> str:
    """What a sample is evened out with: its label; without one, `MASKED` if it has a mask, else `UNLABELLED`."""
    return label or (MASKED if masked else UNLABELLED)


def assign_splits(subjects: Sequence[NewSubject], stored: LabelSplitCounts) -> dict[str, Split]:
    """A split per pseudonym, given what one site holds already; the same for every order of `subjects`.

    Demanded splits are honoured first and count. Then come the subjects of the rarest labels. A patient's number of
    images has no say in how many patients a split gets, only in which of them.
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
    turns = sorted(free, key=lambda one: _turn(one, totals))
    for label, group in groupby(turns, key=lambda one: _dominant(one, totals)):
        members = list(group)
        places = _places(label, len(members), filled)
        for at, split in zip(_evenest_order(label, members, places), places, strict=True):
            _place(members[at], split, chosen, filled)
    return chosen


def _places(label: str, count: int, filled: Mapping[tuple[str, Split], int]) -> list[Split]:
    """The splits that the next `count` subjects of a label go to, in order."""
    ahead = Counter(dict(filled))
    places = []
    for _ in range(count):
        places.append(_furthest_behind(label, ahead))
        ahead[label, places[-1]] += 1
    return places


def _evenest_order(label: str, members: Sequence[NewSubject], places: Sequence[Split]) -> list[int]:
    """Which member takes which place: of many orders the one whose images come nearest to the shares; ties: the first.

    The first order tried is the members' own, so that nothing is drawn where every subject has as many images.
    """
    sizes = np.array([member.labels[label] for member in members], dtype=float)
    orders = [np.arange(len(members))]
    if np.ptp(sizes) > 0:
        seed = sha256_bytes("".join(member.mark or member.pseudonym for member in members).encode())
        random = np.random.default_rng(int(seed[:16], 16))
        draws = min(MOST_DRAWS, max(1, MOST_PLACES_DRAWN // len(members)))
        orders += [random.permutation(len(members)) for _ in range(draws)]
    stray = [_stray(sizes[order], places) for order in orders]
    return [int(at) for at in orders[int(np.argmin(stray))]]


def _stray(sizes: Float[np.ndarray, "place"], places: Sequence[Split]) -> float:
    """Squared distance of the splits' shares of images from their targets."""
    where = np.array([list(Split).index(split) for split in places])
    held = np.bincount(where, weights=sizes, minlength=len(Split)) / sizes.sum()
    return float(sum((share - SPLIT_SHARES[split]) ** 2 for split, share in zip(Split, held, strict=True)))


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
