"""Real blood cells with a champion that answers them, for benchmarks of verdicts: as they are, broken, and changed."""

import csv
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from real_cells import SIDE_PX
from report import data_folder, weights_file
from scipy.ndimage import gaussian_filter, zoom

from continual.domain.errors import QualityError
from continual.domain.metrics import balanced_accuracy
from continual.domain.samples import SPLIT_SHARES, Sample, Split
from continual.imaging import check_quality, decode_image, pixel_statistics
from continual.learning import (
    CLOSED_FORMS,
    ActivationCache,
    ActivationKey,
    LoraShape,
    Readout,
    build_network,
    first_tuned_block,
    fit_temperature,
    resolve_backbone,
    softmax,
)
from monitoring import Window

CLASSES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
RELEASE = "barcelona"
"""The site the champion is released on: 1,588 patients with one image each."""
CHANGED = 600
"""Of its patients, as many that the champion is never trained on: only their images are drawn for windows."""
FINAL, TRIAL = slice(0, CHANGED // 2), slice(CHANGED // 2, CHANGED)
"""Of those, the ones that figures are measured on, and the ones that rules were chosen on."""

OTHERS = ("bccd", "tecom_jiangxi", "bangkok_chula")
MIXES = {"bccd": (0.01, 0.25, 0.09, 0.06, 0.59), "tecom_jiangxi": (0.0, 0.07, 0.17, 0.16, 0.60)}
"""Shares of `CLASSES` at the sites that do not choose their cells: what a changed case mix looks like."""

Picture = UInt8[np.ndarray, "height width 3"]
Change = Callable[[Picture, np.random.Generator], Picture]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Images of a site, row by row; `held_back` are those that the quality gate refuses."""

    site: str
    subjects: tuple[str, ...]
    labels: Int[np.ndarray, "sample"]
    embeddings: Float[np.ndarray, "sample feature"]
    tags: tuple[Mapping[str, str | float], ...]
    statistics: tuple[Mapping[str, float], ...]
    held_back: Bool[np.ndarray, "sample"]

    def rows(self, places: Sequence[int] | Int[np.ndarray, "some"]) -> "Cells":
        """Some of the images, in the order given."""
        return Cells(
            self.site,
            tuple(self.subjects[row] for row in places),
            self.labels[places],
            self.embeddings[places],
            tuple(self.tags[row] for row in places),
            tuple(self.statistics[row] for row in places),
            self.held_back[places],
        )


@cache
def read_cells(site: str, folder: Path, change: str = "") -> Cells:
    """A site's images as they are, or with their pixels changed by `CHANGES[change]`; embedded once, kept in `folder`.

    Of the release site only the patients of `changed_rows` are changed; the rows are theirs.
    """
    kept = folder / f"{site}{'-' if change else ''}{change.replace(' ', '-')}.npz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **_embedded(site, change))
    with np.load(kept) as stored:
        return Cells(
            site,
            tuple(map(str, stored["subjects"])),
            stored["labels"],
            stored["embeddings"],
            tuple(
                {"format": "JPEG", "width": float(w), "height": float(h), "channels": 3.0} for w, h in stored["sizes"]
            ),
            tuple(dict(zip(map(str, stored["names"]), map(float, row), strict=True)) for row in stored["statistics"]),
            stored["held_back"],
        )


def changed_rows() -> Int[np.ndarray, "row"]:
    """Rows of the release site's patients that windows are drawn from; no champion is trained on them."""
    return np.random.default_rng(2026).permutation(1588)[:CHANGED]


def _embedded(site: str, change: str) -> dict[str, np.ndarray]:
    manifest = data_folder() / "white_blood_cells" / "manifest.csv"
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["site"] == site]
    if change and site == RELEASE:
        rows = [rows[place] for place in changed_rows()]
    alter = CHANGES[change] if change else _as_sent
    samples = [
        Sample(f"{number:064x}", site, row["subject"], row["label"], Split.TRAIN, "", batch=1)
        for number, row in enumerate(rows)
    ]
    pixels = {
        sample.digest: alter(
            decode_image((manifest.parent / row["path"]).read_bytes()).pixels, np.random.default_rng(number)
        )
        for number, (sample, row) in enumerate(zip(samples, rows, strict=True))
    }
    print(f"{site} {change}: {len(samples)} images", file=sys.stderr)
    measured = [pixel_statistics(pixels[sample.digest]) for sample in samples]
    return {
        "subjects": np.array([sample.subject for sample in samples]),
        "labels": np.array([CLASSES.index(str(sample.label)) for sample in samples]),
        "embeddings": _features(samples, pixels),
        "sizes": np.array([pixels[sample.digest].shape[1::-1] for sample in samples]),
        "names": np.array(sorted(measured[0])),
        "statistics": np.array([[each[name] for name in sorted(each)] for each in measured]),
        "held_back": np.array([_is_held_back(pixels[sample.digest]) for sample in samples]),
    }


def _features(samples: Sequence[Sample], pixels: Mapping[str, Picture]) -> Float[np.ndarray, "sample feature"]:
    weights = resolve_backbone(str(weights_file()))
    backbone = build_network(weights)
    key = ActivationKey(weights.digest, first_tuned_block(backbone, LoraShape()), SIDE_PX)
    with tempfile.TemporaryDirectory() as folder:
        cache = ActivationCache(Path(folder), key, backbone, torch.device("cpu"))
        cache.fill(samples, 0, lambda sample: pixels[sample.digest], lambda _done: None)
        return cache.features([sample.digest for sample in samples]).astype(float)


def _is_held_back(picture: Picture) -> bool:
    try:
        check_quality(picture)
    except QualityError:
        return True
    return False


def _as_sent(picture: Picture, _generator: np.random.Generator) -> Picture:
    return picture


def _levels(values: Float[np.ndarray, "height width 3"]) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _inverted(picture: Picture, _generator: np.random.Generator) -> Picture:
    return 255 - picture


def _truncated(picture: Picture, generator: np.random.Generator) -> Picture:
    """The last quarter to half of the rows never arrived."""
    cut = picture.copy()
    cut[round(len(cut) * generator.uniform(0.5, 0.75)) :] = 0
    return cut


def _shuttered(picture: Picture, generator: np.random.Generator) -> Picture:
    """A black frame of an eighth of the side or somewhat more around what is left."""
    width = round(len(picture) * generator.uniform(0.12, 0.2))
    framed = np.zeros_like(picture)
    framed[width:-width, width:-width] = picture[width:-width, width:-width]
    return framed


def _cut_out(picture: Picture, generator: np.random.Generator) -> Picture:
    """A square of five to seven eighths of the side, wherever the export put it."""
    side = round(len(picture) * generator.uniform(0.625, 0.875))
    top, left = generator.integers(0, len(picture) - side + 1, size=2)
    return picture[top : top + side, left : left + side].copy()


def _cut_and_stretched(picture: Picture, generator: np.random.Generator) -> Picture:
    part = _cut_out(picture, generator).astype(float)
    factor = len(picture) / len(part)
    return _levels(zoom(part, (factor, factor, 1), order=1))


def _gain(factor: float) -> Change:
    return lambda picture, _generator: _levels(factor * picture.astype(float))


def _blurred(sigma_px: float) -> Change:
    return lambda picture, _generator: _levels(gaussian_filter(picture.astype(float), (sigma_px, sigma_px, 0)))


def _noisy(levels: float) -> Change:
    return lambda picture, generator: _levels(picture + generator.normal(0, levels, picture.shape))


def _stained(share: float) -> Change:
    """Red and blue drift apart, as with another batch of stain or another white balance."""
    return lambda picture, _generator: _levels(picture * np.array([1 + share, 1.0, 1 - share]))


CHANGES: Mapping[str, Change] = {
    "inverted": _inverted,
    "truncated": _truncated,
    "shuttered": _shuttered,
    "cut out": _cut_out,
    "cut and stretched": _cut_and_stretched,
    "stain 1": _stained(0.02),
    "gain 1": _gain(0.95),
    "blur 1": _blurred(0.5),
    "noise 1": _noisy(3.0),
    "stain 2": _stained(0.05),
    "gain 2": _gain(0.88),
    "blur 2": _blurred(0.8),
    "noise 2": _noisy(6.0),
    "stain 3": _stained(0.10),
    "gain 3": _gain(0.78),
    "blur 3": _blurred(1.2),
    "noise 3": _noisy(12.0),
}
"""What can happen to a picture on its way; grey levels of 0 to 255, pixels of the image as it was sent."""
GRADED = tuple(f"{kind} {grade}" for grade in (1, 2, 3) for kind in ("gain", "stain", "blur", "noise"))


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """A closed form on frozen features, released on the train split of some site; `validation` is its score there."""

    readout: Readout
    temperature: float
    validation: float

    def outputs(self, cells: Cells) -> Float[np.ndarray, "sample klass"]:
        """Probabilities of `CLASSES`."""
        probabilities: Float[np.ndarray, "sample klass"] = softmax(
            self.readout.scores(cells.embeddings) / self.temperature
        )
        return probabilities

    def accuracy(self, cells: Cells) -> float:
        """Balanced accuracy on the images' labels."""
        return _accuracy(cells.labels, self.outputs(cells))

    def window(self, cells: Cells, *, labelled: bool) -> Window:
        """Images as a look is given them."""
        return Window(
            site=cells.site,
            subjects=cells.subjects,
            embeddings=cells.embeddings,
            outputs=self.outputs(cells),
            tags=cells.tags,
            pixel_statistics=cells.statistics,
            labels=cells.labels if labelled else np.full(len(cells.labels), -1),
            classes=CLASSES,
        )


def release(train: Cells, validation: Cells, seed: int) -> Champion:
    """Fit the project's random projection, choose its ridge and its temperature on validation images."""
    learner = CLOSED_FORMS["random_projection"](train.embeddings.shape[1], len(CLASSES), seed)
    learner.learn(train.embeddings, train.labels)
    learner.settle(validation.embeddings, validation.labels)
    readout = learner.readout()
    scores = readout.scores(validation.embeddings)
    temperature = fit_temperature(scores, validation.labels, list(validation.labels))
    champion = Champion(readout, temperature, 0.0)
    return replace(champion, validation=champion.accuracy(validation))


def _accuracy(labels: Int[np.ndarray, "sample"], outputs: Float[np.ndarray, "sample klass"]) -> float:
    true, said = ([CLASSES[place] for place in places] for places in (labels, outputs.argmax(axis=1)))
    return balanced_accuracy(true, said)


def splits(count: int, generator: np.random.Generator) -> Int[np.ndarray, "sample"]:
    """The split of each of some patients in the registry's shares: 0 train, 1 validation, 2 test."""
    sizes = np.rint(np.array([SPLIT_SHARES[split] for split in Split]) * count).astype(int)
    places = np.repeat(np.arange(3), sizes)[:count]
    return generator.permutation(np.pad(places, (0, count - len(places)), constant_values=2))


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One release and what windows can be drawn from."""

    seed: int
    folder: Path
    patients: slice
    """Which of `changed_rows` windows are drawn from."""

    @property
    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def own(self, change: str = "") -> Cells:
        """Patients of the release site, as they are or changed."""
        cells = read_cells(RELEASE, self.folder, change)
        return cells.rows(np.arange(len(changed_rows()))[self.patients] if change else changed_rows()[self.patients])


def released(draw: Draw) -> tuple[Champion, Window]:
    """A champion trained on six in ten of the patients that no window is drawn from; the others are its reference."""
    cells = read_cells(RELEASE, draw.folder)
    known = cells.rows(np.setdiff1d(np.arange(len(cells.labels)), changed_rows()))
    split = splits(len(known.labels), draw.generator)
    train, validation, test = (np.flatnonzero(split == place) for place in range(3))
    champion = release(known.rows(train), known.rows(validation), draw.seed)
    held_out = np.concatenate([validation, test])
    return champion, champion.window(known.rows(held_out), labelled=True)
