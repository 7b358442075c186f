"""Real blood cells seen by a real backbone, for the drift benchmarks: as they are, and with their pixels changed."""

import csv
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from report import data_folder, weights_file
from scipy.ndimage import gaussian_filter

from continual.domain.samples import Sample, Split
from continual.imaging import decode_image, pixel_statistics
from continual.learning import (
    ActivationCache,
    ActivationKey,
    LoraShape,
    build_network,
    first_tuned_block,
    resolve_backbone,
)
from monitoring import Window

SIDE_PX = 126

Picture = UInt8[np.ndarray, "height width 3"]
Pixels = Mapping[str, Picture]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """All images of a site: rows of embeddings, their patients, their pixel statistics."""

    name: str
    embeddings: Float[np.ndarray, "sample feature"]
    subjects: tuple[str, ...]
    statistics: tuple[dict[str, float], ...]

    def columns(self) -> tuple[list[str], Float[np.ndarray, "sample statistic"]]:
        """Names of the pixel statistics and a row of them per image."""
        names = sorted(self.statistics[0])
        return names, np.array([[row[name] for name in names] for row in self.statistics])

    def window(self, rows: Sequence[int] | Int[np.ndarray, "sample"]) -> Window:
        """Some of the images as a window."""
        return Window(
            site=self.name,
            subjects=tuple(self.subjects[row] for row in rows),
            embeddings=self.embeddings[rows],
            outputs=None,
            tags=({},) * len(rows),
            pixel_statistics=tuple(self.statistics[row] for row in rows),
        )


def read_site(name: str, folder: Path) -> Site:
    """Embeddings from the frozen backbone, computed once and kept in `folder`."""
    samples, pixels = _read_images(name)
    print(f"{name}: {len(samples)} images", file=sys.stderr)
    return _site(name, samples, pixels, folder / name)


def read_changed(name: str, change: str, folder: Path) -> Site:
    """The same images after a change of their pixels, `CHANGES[change]`; computed once and kept in `folder`."""
    kept = folder / f"{name}-{change.replace(' ', '-')}.npz"
    if not kept.exists():
        samples, pixels = _read_images(name)
        changed = {
            sample.digest: CHANGES[change](pixels[sample.digest], np.random.default_rng(row))
            for row, sample in enumerate(samples)
        }
        print(f"{name}, {change}: {len(samples)} images", file=sys.stderr)
        with tempfile.TemporaryDirectory() as activations:
            site = _site(name, samples, changed, Path(activations))
        names, table = site.columns()
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, embeddings=site.embeddings, subjects=site.subjects, names=names, statistics=table)
    with np.load(kept) as stored:
        rows = tuple(dict(zip(map(str, stored["names"]), map(float, row), strict=True)) for row in stored["statistics"])
        return Site(name, stored["embeddings"], tuple(map(str, stored["subjects"])), rows)


def _read_images(name: str) -> tuple[list[Sample], Pixels]:
    manifest = data_folder() / "white_blood_cells" / "manifest.csv"
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["site"] == name]
    samples = [
        Sample(f"{number:064x}", name, row["subject"], row["label"], Split.TRAIN, "", batch=1)
        for number, row in enumerate(rows)
    ]
    pixels = {
        sample.digest: decode_image((manifest.parent / row["path"]).read_bytes()).pixels
        for sample, row in zip(samples, rows, strict=True)
    }
    return samples, pixels


def _site(name: str, samples: Sequence[Sample], pixels: Pixels, folder: Path) -> Site:
    weights = resolve_backbone(str(weights_file()))
    backbone = build_network(weights)
    key = ActivationKey(weights.digest, first_tuned_block(backbone, LoraShape()), SIDE_PX)
    cache = ActivationCache(folder, key, backbone, torch.device("cpu"))
    cache.fill(samples, 1, lambda sample: pixels[sample.digest], lambda _done: None)
    return Site(
        name,
        cache.features([sample.digest for sample in samples]).astype(float),
        tuple(sample.subject for sample in samples),
        tuple(pixel_statistics(pixels[sample.digest]) for sample in samples),
    )


def _levels(values: Float[np.ndarray, "height width 3"]) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _gain(factor: float) -> Callable[[Picture, np.random.Generator], Picture]:
    return lambda picture, _generator: _levels(factor * picture.astype(float))


def _inverted(picture: Picture, _generator: np.random.Generator) -> Picture:
    return 255 - picture


def _blurred(sigma_px: float) -> Callable[[Picture, np.random.Generator], Picture]:
    return lambda picture, _generator: _levels(gaussian_filter(picture.astype(float), (sigma_px, sigma_px, 0)))


def _noisy(levels: float) -> Callable[[Picture, np.random.Generator], Picture]:
    return lambda picture, generator: _levels(picture + generator.normal(0, levels, picture.shape))


def _new_scanner(picture: Picture, _generator: np.random.Generator) -> Picture:
    """Another camera: a little darker in the middle greys, a little warmer, edges sharpened by its filter."""
    toned = 255 * (picture / 255) ** 1.03 * np.array([1.01, 1.0, 0.98])
    return _levels(toned + 0.3 * (toned - gaussian_filter(toned, (1.5, 1.5, 0))))


CHANGES: Mapping[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "gain x0.9": _gain(0.9),
    "inverted": _inverted,
    "blur 0.4 px": _blurred(0.4),
    "noise 2": _noisy(2.0),
    "new scanner": _new_scanner,
}
"""What can happen to a picture on its way: grey levels of 0 to 255, pixels of the image as it was sent."""
