"""What single memory policies keep: even shares, a uniform sample, images that stand for their cell's mean."""

from collections import Counter

import numpy as np
import pytest

from continual.domain.errors import StreamError
from continual.domain.samples import Sample, Split
from continual.learning import Candidates, Capacity, select_memory
from continual.learning.memory.herding import herd


def _cells(**counts):
    return [
        Sample(f"{cell}{i}", cell[0], "s", cell[1], Split.TRAIN, "a", 1)
        for cell, count in counts.items()
        for i in range(count)
    ]


def _choose(samples, count, seed=1, policy="class_and_site_balanced", **more):
    return select_memory(Candidates(samples, seed, **more), Capacity(count), policy)


def _kept_per_cell(samples, count, policy="class_and_site_balanced"):
    return dict(Counter(digest[:2] for digest in _choose(samples, count, policy=policy)))


def test_places_are_shared_evenly_and_what_a_small_cell_leaves_goes_to_the_others():
    samples = _cells(ax=100, ay=3, bx=20, by=20)
    assert _kept_per_cell(samples, 12) == {"ax": 3, "ay": 3, "bx": 3, "by": 3}
    assert _kept_per_cell(samples, 33) == {"ax": 10, "ay": 3, "bx": 10, "by": 10}
    assert _kept_per_cell(samples, 1000) == {"ax": 100, "ay": 3, "bx": 20, "by": 20}


@pytest.mark.parametrize("policy", ["class_and_site_balanced", "reservoir"])
def test_another_seed_keeps_other_samples(policy):
    samples = _cells(ax=100)
    assert set(_choose(samples, 20, 1, policy)) != set(_choose(samples, 20, 2, policy))


def test_memory_that_learns_site_after_site_keeps_room_for_each():
    kept = _cells(ax=50, ay=50)
    for site in "bc":
        chosen = set(_choose(kept, 24))
        kept = [s for s in kept if s.digest in chosen] + _cells(**{f"{site}x": 50, f"{site}y": 50})
    assert set(_kept_per_cell(kept, 24).values()) == {4}


def test_a_reservoir_keeps_every_image_of_the_stream_equally_often():
    """Over 400 seeds each of 50 images is kept 80 times on average; 5 standard deviations are 40."""
    samples = _cells(ax=40, by=10)
    times = Counter(digest for seed in range(400) for digest in _choose(samples, 10, seed, "reservoir"))
    assert len(times) == 50
    assert all(abs(count - 80) < 40 for count in times.values())


def test_an_image_larger_than_the_whole_memory_is_passed_over_and_the_rest_is_remembered():
    samples = _cells(ax=6)
    sizes = {sample.digest: 10 for sample in samples} | {"ax0": 1000, "ax3": 1000}
    kept = select_memory(Candidates(samples, 1, sizes), Capacity(100, 35), "reservoir")
    assert len(kept) == 3
    assert not {"ax0", "ax3"} & set(kept)


def test_a_bound_in_bytes_needs_the_size_of_every_image():
    with pytest.raises(StreamError, match="sizes of 1 of 2 images are unknown"):
        select_memory(Candidates(_cells(ax=2), 1, {"ax0": 10}), Capacity(5, 100), "reservoir")


def test_an_unknown_policy_is_answered_with_those_there_are():
    with pytest.raises(StreamError, match=r"no replay policy 'luck'; choose one of .*reservoir.*herding"):
        _choose(_cells(ax=2), 1, policy="luck")


def test_herding_takes_the_images_whose_mean_comes_nearest_to_the_mean_of_all():
    """Against brute force at every step (Rebuffi et al. 2017, algorithm 4)."""
    features = np.random.default_rng(3).normal(size=(12, 4))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    chosen = []
    for _ in range(12):
        free = [row for row in range(12) if row not in chosen]
        chosen.append(min(free, key=lambda row: np.linalg.norm(unit.mean(0) - unit[[*chosen, row]].mean(0))))
    assert herd(features, 12) == chosen
    assert herd(features, 5) == chosen[:5]
    assert herd(1000 * features, 5) == chosen[:5]


def test_herding_stands_for_its_cell_better_than_chance_and_leaves_the_outlier():
    random = np.random.default_rng(1)
    samples = _cells(ax=60, by=60)
    vectors = {s.digest: random.normal(size=8) + (3 if s.site == "a" else -3) for s in samples}
    vectors["ax7"] = np.full(8, -3.0)

    def features(digests):
        return np.array([vectors[digest] for digest in digests])

    def miss(digests):
        unit = {digest: vector / np.linalg.norm(vector) for digest, vector in vectors.items()}
        cell = [unit[digest] for digest in vectors if digest.startswith("ax")]
        return np.linalg.norm(np.mean([unit[d] for d in digests if d.startswith("ax")], axis=0) - np.mean(cell, axis=0))

    herded = _choose(samples, 12, policy="herding", features=features)
    assert Counter(digest[:2] for digest in herded) == {"ax": 6, "by": 6}
    assert "ax7" not in herded
    drawn = [miss(_choose(samples, 12, seed)) for seed in range(20)]
    assert miss(herded) < min(drawn)


def test_herding_of_equal_images_goes_by_rank_and_of_blank_ones_does_not_fail():
    assert herd(np.ones((4, 3)), 4) == [0, 1, 2, 3]
    assert herd(np.zeros((3, 2)), 2) == [0, 1]


def test_herding_without_features_says_so():
    with pytest.raises(StreamError, match="herding chooses by frozen features"):
        _choose(_cells(ax=3), 2, policy="herding")
