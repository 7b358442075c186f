"""How soon labels show a fall, and how often they cry wolf: the test of `monitoring/risk.py` by simulation.

    python tests/benchmarks/labelled_risk.py [--streams 300]

Every stream is a reference and labels that come one by one; one image a subject unless said. No data are needed.
"""

import argparse

import numpy as np

from monitoring import Outcomes
from monitoring.risk import bounds, fall_p_value, level_of, milestones

ALPHA, FIRST, MARGIN = 0.05, 40, 0.05


def draw(random: np.random.Generator, count: int, recall: np.ndarray, shares: np.ndarray, name: str) -> Outcomes:
    """Subjects with one image each."""
    classes = random.choice(len(recall), count, p=shares)
    met = (random.random(count) < recall[classes]).astype(float)
    return Outcomes(tuple(f"{name}{at}" for at in range(count)), tuple(f"c{each}" for each in classes), met)


def patients(random: np.random.Generator, count: int, recall: np.ndarray, shares: np.ndarray, name: str) -> Outcomes:
    """Subjects with three images each, of any classes, that are met better or worse together."""
    classes = random.choice(len(recall), (count, 3), p=shares)
    chance = np.clip(recall[classes] + random.normal(0, 0.15, (count, 1)), 0, 1)
    met = (random.random(chance.shape) < chance).astype(float).ravel()
    subjects = tuple(f"{name}{at // 3}" for at in range(3 * count))
    return Outcomes(subjects, tuple(f"c{each}" for each in classes.ravel()), met)


def called_at(reference: Outcomes, current: Outcomes, seed: int) -> int | None:
    """Labels after which concept shift is called: a milestone's test, and a measured fall beyond the margin."""
    for milestone, images in milestones(len(current.met), FIRST):
        level, so_far = level_of(milestone, ALPHA), current.first(images)
        if fall_p_value(reference, so_far, level, seed + milestone) <= level:
            both = sorted(set(reference.classes) & set(so_far.classes))
            if reference.of(both).balanced - so_far.of(both).balanced > MARGIN:
                return images
    return None


def show(title: str, found: list[int | None]) -> None:
    """Share of streams in which a fall was called within some numbers of labels."""
    within = " ".join(
        f"{np.mean([at is not None and at <= count for at in found]):6.2f}" for count in (40, 68, 89, 151, 256)
    )
    print(f"{title:<64}{within}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--streams", type=int, default=300)
    streams = parser.parse_args().streams
    even = {count: np.full(count, 1 / count) for count in (2, 5, 8)}
    skew = np.array([0.4, 0.2, 0.15, 0.1, 0.05, 0.05, 0.03, 0.02])
    uneven = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.9, 0.6, 0.5])
    two = np.array([0.05, 0.05, *(6 * [0.85])])

    def run(title, recall, now, before=None, after=None, *, known=60, labels=256, make=draw):
        found = []
        for seed in range(streams):
            random = np.random.default_rng(seed)
            shares = even[len(recall)] if before is None else before
            reference = make(random, known, recall, shares, "a")
            found.append(called_at(reference, make(random, labels, now, shares if after is None else after, "b"), seed))
        show(title, found)

    print(
        f"{streams} streams a row; share called within this many labels:" + " " * 12 + "40     68     89    151    256"
    )
    run("nothing changes, 5 classes", np.full(5, 0.85), np.full(5, 0.85))
    run("nothing changes, reference of 16, 2 classes", np.full(2, 0.8), np.full(2, 0.8), known=16)
    run("only the case mix changes, 8 classes, rare ones", uneven, uneven, skew, even[8])
    run("the same, patients with 3 images of several classes", uneven, uneven, skew, even[8], make=patients, labels=86)
    for known in (60, 200):
        for fall in (0.1, 0.2, 0.3):
            run(
                f"every recall falls by {fall:g}, reference of {known}",
                np.full(5, 0.9),
                np.full(5, 0.9 - fall),
                known=known,
            )
        run(f"2 of 8 classes permuted, reference of {known}", np.full(8, 0.85), two, known=known)
        run(f"2 of 8 classes permuted, rare ones, reference of {known}", np.full(8, 0.85), two[::-1], skew, known=known)
    missed = 0
    for seed in range(streams):
        current = draw(np.random.default_rng(seed), 256, uneven, skew, "b")
        truth = {f"c{at}": value for at, value in enumerate(uneven)}
        for milestone, images in milestones(256, FIRST):
            so_far = current.first(images)
            low, high = bounds(so_far, level_of(milestone, ALPHA))
            if not low <= np.mean([truth[name] for name in set(so_far.classes)]) <= high:
                missed += 1
                break
    reached = len(list(milestones(256, FIRST)))
    print(f"streams whose bounds missed the truth at any of {reached} milestones: {missed / streams:.3f}")


if __name__ == "__main__":
    main()
