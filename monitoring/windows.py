"""Windows: what one site sent in one stretch of time, checked at the door; knows nothing of tests or verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from jaxtyping import Bool, Float, Int

from continual.domain.errors import WindowError

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Intake:
    """How many images the site offered for this window, and how many of them the quality gate held back.

    `trusted` says of each sample of the window whether a person has looked at it and found it sound: no fault is looked
    for there; empty for none. Raises WindowError unless 0 <= quarantined <= offered.
    """

    offered: int
    quarantined: int
    trusted: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.quarantined <= self.offered:
            raise WindowError(
                f"intake: {self.quarantined} quarantined of {self.offered} offered images; pass counts of one intake"
            )

    @property
    def quarantined_share(self) -> float:
        """Quarantined over offered, in [0, 1]; 0 when nothing was offered."""
        return self.quarantined / self.offered if self.offered else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A site's samples side by side: row i of every member belongs to one image of `subjects[i]`.

    `embeddings` come from the frozen backbone; `outputs` are probabilities of one and the same champion in every window
    of a look, None where it has not predicted. `tags` may lack keys and hold NaN, both meaning "not recorded".
    `labels` are the columns of `outputs` that were true, `UNLABELLED` where nobody said; None where nobody ever does.
    `classes` name the columns of `outputs`, `samples` the images by digest, where somebody cares to; `arrived` is when
    the first of them was taken in.
    Subjects are pseudonyms scoped by site. Raises WindowError for an empty window, unequal lengths, or a value in
    embeddings, outputs or pixel statistics that is not finite.
    """

    site: str
    subjects: tuple[str, ...]
    embeddings: Float[np.ndarray, "sample feature"]
    outputs: Float[np.ndarray, "sample class"] | None
    tags: tuple[Mapping[str, str | float], ...]
    pixel_statistics: tuple[Mapping[str, float], ...]
    labels: Int[np.ndarray, "sample"] | None = None
    classes: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    arrived: datetime | None = None

    def __post_init__(self) -> None:
        count = len(self.subjects)
        if count == 0:
            raise WindowError(f"window of site {self.site} holds 0 samples, at least 1 is needed; wait for images")
        for name, rows in (("tags", self.tags), ("pixel_statistics", self.pixel_statistics)):
            if len(rows) != count:
                raise WindowError(f"{self._of(name)}: {len(rows)} rows for {count} subjects; pass one per sample")
        if self.samples and len(self.samples) != count:
            raise WindowError(
                f"{self._of('samples')}: {len(self.samples)} digests for {count} subjects; pass one per sample, or none"
            )
        self._check_array("embeddings", self.embeddings)
        if self.outputs is not None:
            self._check_array("outputs", self.outputs)
        if self.labels is not None:
            self._check_labels(self.labels)
        for row in self.pixel_statistics:
            for name, value in row.items():
                if not math.isfinite(value):
                    raise WindowError(f"{self._of('pixel_statistics')}: {name} is {value}; measure the image again")

    @property
    def labelled(self) -> Bool[np.ndarray, "sample"]:
        """Which samples have a label."""
        return np.zeros(len(self.subjects), dtype=bool) if self.labels is None else self.labels != UNLABELLED

    @property
    def subject_count(self) -> int:
        """Number of different subjects, the sample size of every test here."""
        return len(set(self.subjects))

    def _of(self, member: str) -> str:
        return f"window of site {self.site}, {member}"

    def _check_labels(self, labels: Int[np.ndarray, "sample"]) -> None:
        classes = 0 if self.outputs is None else self.outputs.shape[1]
        if labels.shape != (len(self.subjects),):
            raise WindowError(
                f"{self._of('labels')}: shape {labels.shape} for {len(self.subjects)} samples; pass one per sample"
            )
        unknown = labels[(labels != UNLABELLED) & ((labels < 0) | (labels >= classes))]
        if unknown.size:
            raise WindowError(
                f"{self._of('labels')}: class {unknown[0]} of {classes} classes; use {UNLABELLED} where none is known"
            )

    def _check_array(self, name: str, values: Float[np.ndarray, "sample column"]) -> None:
        if values.ndim != 2 or values.shape[0] != len(self.subjects) or values.shape[1] == 0:
            raise WindowError(
                f"{self._of(name)}: shape {values.shape} for {len(self.subjects)} subjects; pass one row per sample"
            )
        broken = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        if broken:
            raise WindowError(
                f"{self._of(name)}: {broken} of {len(values)} rows are not finite, 0 may be; leave those samples out"
            )


def subject_codes(window: Window) -> tuple[Int[np.ndarray, "sample"], int]:
    """Number from 0 of each sample's subject, in order of subject name, and how many subjects there are."""
    names, codes = np.unique(np.asarray(window.subjects), return_inverse=True)
    return codes.reshape(-1), len(names)


def pool(windows: Sequence[Window]) -> Window:
    """All samples of some windows as one, under the first one's site; a subject is told by its site and name.

    Outputs, labels and digests are kept where all windows have them. Raises WindowError where widths differ.
    """
    first = windows[0]
    if len(windows) == 1:
        return first
    outputs = [window.outputs for window in windows if window.outputs is not None]
    labels = [window.labels for window in windows if window.labels is not None]
    named = all(window.samples for window in windows)
    return Window(
        site=first.site,
        subjects=tuple(f"{window.site}/{subject}" for window in windows for subject in window.subjects),
        embeddings=_stacked([window.embeddings for window in windows], first.site),
        outputs=_stacked(outputs, first.site) if len(outputs) == len(windows) else None,
        tags=tuple(row for window in windows for row in window.tags),
        pixel_statistics=tuple(row for window in windows for row in window.pixel_statistics),
        labels=np.concatenate(labels) if len(labels) == len(windows) else None,
        classes=first.classes,
        samples=tuple(digest for window in windows for digest in window.samples) if named else (),
        arrived=min((window.arrived for window in windows if window.arrived is not None), default=None),
    )


def _stacked(arrays: Sequence[Float[np.ndarray, "sample column"]], site: str) -> Float[np.ndarray, "sample column"]:
    widths = sorted({array.shape[1] for array in arrays})
    if len(widths) > 1:
        raise WindowError(f"windows of site {site} have {widths} columns; compute all with one model")
    return np.vstack(arrays)


def draw_subjects(window: Window, limit: int, seed: int) -> Window:
    """The window itself, or all samples of `limit` subjects drawn without replacement when it has more."""
    codes, count = subject_codes(window)
    if count <= limit:
        return window
    kept = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return select(window, np.isin(codes, kept))


def select(window: Window, mask: Bool[np.ndarray, "sample"]) -> Window:
    """The samples of a window that a mask marks."""
    rows = np.flatnonzero(mask)
    return Window(
        site=window.site,
        subjects=tuple(window.subjects[i] for i in rows),
        embeddings=window.embeddings[rows],
        outputs=None if window.outputs is None else window.outputs[rows],
        tags=tuple(window.tags[i] for i in rows),
        pixel_statistics=tuple(window.pixel_statistics[i] for i in rows),
        labels=None if window.labels is None else window.labels[rows],
        classes=window.classes,
        samples=tuple(window.samples[i] for i in rows) if window.samples else (),
        arrived=window.arrived,
    )
