"""A made-up chest-like picture with or without a nodule, and what a scanner makes of it: arrays only, no files.

Intensities are in [0, 1], 1 the brightest. Bands are ribs, a smooth field is soft tissue, thin lines are vessels;
vessels are about as bright as a nodule and the mean is the same with and without one: what tells is the shape.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SIDE = 64
"""Height and width in pixels."""

Picture = Float[np.ndarray, "64 64"]

_Y, _X = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE), indexing="ij")


@dataclass(frozen=True, slots=True)
class Physics:
    """How one scanner turns anatomy into intensities.

    Gain and gamma act on the signal, offset is added, blur is a Gaussian's sigma in pixels, noise its standard
    deviation. `nodule_core` and `nodule_rim` are the contrast of a nodule's inside and edge against what surrounds it.
    """

    gain: float
    offset: float
    gamma: float
    blur_px: float
    noise: float
    nodule_core: float
    nodule_rim: float


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One subject: the picture without a nodule, and where a nodule sits (row, column, radius in half-widths)."""

    background: Picture
    nodule: tuple[float, float, float] | None


def draw_anatomy(rng: np.random.Generator, with_nodule: bool) -> Anatomy:
    """A subject's anatomy; positions, sizes and strengths are random, the presence of a nodule is not."""
    background = _soft_tissue(rng) + _ribs(rng) + _vessels(rng)
    place = _random_place(rng)
    return Anatomy(background, place if with_nodule else None)


def expose(anatomy: Anatomy, physics: Physics, rng: np.random.Generator) -> Picture:
    """One image of a subject: a small shift of position, the nodule in this scanner's contrast, blur, gain, noise."""
    shift = rng.integers(-2, 3, size=2)
    picture = _shifted(anatomy.background, int(shift[0]), int(shift[1]))
    if anatomy.nodule is not None:
        row, column, radius = anatomy.nodule
        moved = (row + shift[0] * 2 / SIDE, column + shift[1] * 2 / SIDE, radius)
        picture = picture + _disc(moved, physics.nodule_core, physics.nodule_rim)
    picture = picture - picture.mean() + rng.normal(0.45, 0.04)
    blurred = _blur(np.clip(picture, 0.0, 1.0), physics.blur_px)
    signal = physics.offset + physics.gain * blurred**physics.gamma
    return np.clip(signal + rng.normal(0.0, physics.noise, size=signal.shape), 0.0, 1.0)


def _shifted(picture: Picture, rows: int, columns: int) -> Picture:
    """The picture moved by a few pixels down and right; what comes in at the edge mirrors what is there."""
    margin = max(abs(rows), abs(columns))
    wide = np.pad(picture, margin, mode="reflect")
    return wide[margin - rows : margin - rows + SIDE, margin - columns : margin - columns + SIDE]


def _soft_tissue(rng: np.random.Generator) -> Picture:
    field = np.zeros((SIDE, SIDE))
    for _ in range(4):
        row, column = rng.uniform(-1, 1, size=2)
        width = rng.uniform(0.5, 0.9)
        field += rng.uniform(-0.15, 0.15) * np.exp(-((_Y - row) ** 2 + (_X - column) ** 2) / (2 * width**2))
    return field


def _ribs(rng: np.random.Generator) -> Picture:
    spacing, bend = rng.uniform(0.38, 0.5), rng.uniform(-0.25, 0.25)
    first, tilt = rng.uniform(-1, -1 + spacing), rng.uniform(-0.2, 0.2)
    phase = (_Y - first - bend * _X**2 - tilt * _X) / spacing
    distance = (phase - np.rint(phase)) * spacing
    band: Picture = rng.uniform(0.08, 0.14) * np.exp(-(distance**2) / (2 * 0.05**2))
    return band


def _vessels(rng: np.random.Generator) -> Picture:
    picture = np.zeros((SIDE, SIDE))
    for _ in range(int(rng.integers(4, 8))):
        row, column = rng.uniform(-0.9, 0.9, size=2)
        angle, half_length = rng.uniform(0, np.pi), rng.uniform(0.25, 0.6)
        along = (_X - column) * np.cos(angle) + (_Y - row) * np.sin(angle)
        across = -(_X - column) * np.sin(angle) + (_Y - row) * np.cos(angle)
        beyond = np.maximum(np.abs(along) - half_length, 0.0)
        width = rng.uniform(0.02, 0.035)
        picture += rng.uniform(0.16, 0.30) * np.exp(-(across**2 + beyond**2) / (2 * width**2))
    return picture


def _random_place(rng: np.random.Generator) -> tuple[float, float, float]:
    """Row and column of a disc's middle and its radius, in half-widths of the picture."""
    row, column = rng.uniform(-0.6, 0.6, size=2)
    return row, column, rng.uniform(0.17, 0.25)


def _disc(place: tuple[float, float, float], core_contrast: float, rim_contrast: float) -> Picture:
    row, column, radius = place
    distance = np.hypot(_Y - row, _X - column)
    core = 1.0 / (1.0 + np.exp((distance - radius) / 0.02))
    rim = np.exp(-((distance - radius) ** 2) / (2 * 0.03**2))
    picture: Picture = core_contrast * core + rim_contrast * rim
    return picture


def _blur(picture: Picture, sigma_px: float) -> Picture:
    if sigma_px <= 0:
        return picture
    offsets = np.subtract.outer(np.arange(SIDE), np.arange(SIDE))
    weights = np.exp(-(offsets**2) / (2 * sigma_px**2))
    weights /= weights.sum(axis=1, keepdims=True)
    blurred: Picture = weights @ picture @ weights.T
    return blurred
