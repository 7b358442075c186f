"""Decides what one intake changes at one site, before anything is written; knows nothing of tables and files."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from continual.domain.samples import CleanImage, QuarantineEntry, Split
from continual.domain.texts import MOST_CHARACTERS, unstorable
from registry.masks import mask_address
from registry.splits import UNLABELLED, LabelSplitCounts, NewSubject, assign_splits, least_learnt, stratum


@dataclass(frozen=True, slots=True)
class KnownSample:
    """What is stored about a picture that is offered again; `mask` is an address."""

    subject: str
    label: str | None
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class SiteKnowledge:
    """What a site holds of what is offered: pictures by digest, subjects' splits, and all its subjects counted.

    `early` are labels by digest that came for a prediction, before their picture was offered. `elsewhere` are the
    splits of pictures that another site holds, too: what is learnt there must not be judged here.
    """

    samples: Mapping[str, KnownSample]
    subjects: Mapping[str, Split]
    counts: LabelSplitCounts
    early: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, Split] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IntakePlan:
    """What to write: new images, splits of new subjects, labels and masks for stored pictures, what is held back.

    `stored` are digests of the offered pictures that the site holds from now on, and of the files they came in.
    """

    new: tuple[CleanImage, ...]
    subjects: Mapping[str, Split]
    labels: Mapping[str, str]
    masks: Mapping[str, bytes]
    duplicates: int
    quarantined: tuple[QuarantineEntry, ...]
    stored: frozenset[str]

    @property
    def relabelled(self) -> int:
        """Stored pictures that get a label or another mask."""
        return len(self.labels.keys() | self.masks.keys())


@dataclass(slots=True)
class _Draft:
    site: str
    known: SiteKnowledge
    new: dict[str, CleanImage] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    masks: dict[str, bytes] = field(default_factory=dict)
    offered_masks: dict[str, str] = field(default_factory=dict)
    demanded: dict[str, Split] = field(default_factory=dict)
    duplicates: int = 0
    quarantined: list[QuarantineEntry] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    def take(self, position: int, image: CleanImage) -> None:
        held = self._held(image.digest)
        subject = image.subject if held is None else held.subject
        stored = self.known.early.get(image.digest) if held is None else held.label
        fault = _unfit(image) or self._split_fault(subject, image.split) or _label_fault(stored, image)
        fault = fault or self._mask_fault(image)
        if fault is not None:
            self.quarantined.append(QuarantineEntry(self.site, position, image.digest, fault[:MOST_CHARACTERS]))
            return
        if image.file_digest is not None:
            self.files.add(image.file_digest)
        if image.split is not None:
            self.demanded.setdefault(subject, image.split)
        address = mask_address(image)
        if address is not None:
            self.offered_masks[image.digest] = address
        if held is None:
            self.new[image.digest] = replace(image, label=image.label or stored)
            return
        self.duplicates += 1
        if held.label is None and image.label is not None:
            self._label(image.digest, image.label)
        if image.mask_data is not None and address != held.mask:
            self._mask(image.digest, image.mask_data)

    def _held(self, digest: str) -> KnownSample | None:
        if digest in self.new:
            new = self.new[digest]
            return KnownSample(new.subject, new.label, mask_address(new))
        stored = self.known.samples.get(digest)
        return stored if stored is None else replace(stored, label=self.labels.get(digest, stored.label))

    def _label(self, digest: str, label: str) -> None:
        if digest in self.new:
            self.new[digest] = replace(self.new[digest], label=label)
        else:
            self.labels[digest] = label

    def _mask(self, digest: str, mask_data: bytes) -> None:
        if digest in self.new:
            self.new[digest] = replace(self.new[digest], mask_data=mask_data)
        else:
            self.masks[digest] = mask_data

    def _mask_fault(self, image: CleanImage) -> str | None:
        # Within one intake no row is the later one: which of two masks is meant only the sender can say.
        if image.mask_data is None or self.offered_masks.get(image.digest, mask_address(image)) == mask_address(image):
            return None
        return "another row has another mask for the same picture; keep the right one in the manifest"

    def _split_fault(self, subject: str, wanted: Split | None) -> str | None:
        fixed = self.known.subjects.get(subject, self.demanded.get(subject))
        if wanted is None or fixed is None or wanted == fixed:
            return None
        return (
            f"split {wanted.value!r} is demanded for a subject that stands in {fixed.value!r} for ever; "
            "correct the manifest's split"
        )


def plan_intake(site: str, images: Sequence[CleanImage], known: SiteKnowledge) -> IntakePlan:
    """What the images change, given what the site holds. Faulty ones are held back with the reason; the rest goes on.

    The same picture twice is a duplicate; it may bring the label that was missing, never another one, and the mask that
    was missing or a better one. Positions count the images from 1 in the order given.
    """
    draft = _Draft(site, known)
    for position, image in enumerate(images, start=1):
        draft.take(position, image)
    return IntakePlan(
        new=tuple(draft.new.values()),
        subjects=assign_splits(_new_subjects(draft), known.counts),
        labels=draft.labels,
        masks=draft.masks,
        duplicates=draft.duplicates,
        quarantined=tuple(draft.quarantined),
        stored=frozenset(known.samples) | draft.new.keys() | draft.files,
    )


def _new_subjects(draft: _Draft) -> list[NewSubject]:
    labels: dict[str, Counter[str]] = {}
    marks: dict[str, str] = {}
    elsewhere: dict[str, Split] = {}
    for image in draft.new.values():
        if image.subject not in draft.known.subjects:
            kind = stratum(image.label, masked=image.mask_data is not None)
            labels.setdefault(image.subject, Counter())[kind] += 1
            marks[image.subject] = min(marks.get(image.subject, image.digest), image.digest)
            if image.digest in draft.known.elsewhere:
                there = draft.known.elsewhere[image.digest]
                elsewhere[image.subject] = least_learnt((there, elsewhere.get(image.subject, there)))
    wanted = elsewhere | draft.demanded
    return [NewSubject(subject, counts, wanted.get(subject), marks[subject]) for subject, counts in labels.items()]


def _label_fault(stored: str | None, image: CleanImage) -> str | None:
    if None in (stored, image.label) or stored == image.label:
        return None
    return (
        f"label {image.label!r} contradicts {stored!r}, which is stored for the same picture and stays; "
        "correct the manifest's label"
    )


def _unfit(image: CleanImage) -> str | None:
    texts = [image.digest, image.subject, image.label or UNLABELLED]
    texts += [text for pair in image.tags.items() for text in pair if isinstance(text, str)]
    if any(unstorable(text) for text in texts):
        return "a label, subject or tag holds a zero character or half a surrogate pair; remove it and repeat"
    if not image.digest or not image.subject or image.label == UNLABELLED:
        return "the digest, subject or label is empty; fill it, or leave the label out"
    if image.mask_data == b"":
        return "the mask is empty (0 bytes); export it again, or leave it out"
    for numbers in (image.tags, image.pixel_statistics):
        for name, value in numbers.items():
            if not isinstance(value, str) and not math.isfinite(value):
                return f"{name} is {value}, must be a finite number; leave it out"
    return None
