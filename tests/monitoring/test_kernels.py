import numpy as np
import pytest

from monitoring.detectors import kernels
from monitoring.detectors.kernels import Cloud, RandomFeatures, similarity


def _clouds(images, seed=3, features=6):
    """Two clouds; `images` are the numbers of samples of each one's subjects, shuffled as they come."""
    generator = np.random.default_rng(seed)
    clouds = []
    for counts in images:
        codes = generator.permutation(np.repeat(np.arange(len(counts)), counts))
        clouds.append(Cloud(generator.normal(5.0, size=(len(codes), features)), codes, len(counts)))
    return clouds


def _groups(count, subjects, seed=1):
    return np.random.default_rng(seed).random((count, subjects)) < 0.4


def _assert_sums(found, expected, relative):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=relative)


def _discrepancies(sums, known, new):
    """Squared mean discrepancies, which no centre changes."""
    across = sums.with_all - sums.inside
    outside = sums.total - 2 * across - sums.inside
    return sums.inside / (new * (new - 1)) + outside / (known * (known - 1)) - 2 * across / (known * new)


def test_discrepancies_by_random_features_are_near_those_of_every_pair():
    clouds = _clouds([[3, 1, 2] * 20, [1, 5] * 15])
    apart = np.arange(90) >= 60
    groups = np.array([apart, np.arange(90) % 3 == 1])
    clouds[1].samples[:] += 1.0
    exact, near = (
        _discrepancies(each.sums(groups), 60, 30)
        for each in (similarity(clouds, seed=2), RandomFeatures(clouds, seed=2))
    )
    assert exact[0] > 20 * abs(exact[1])
    assert near == pytest.approx(exact, abs=0.1 * exact[0])


@pytest.mark.parametrize("rows", [1, 4, 7, 10_000])
def test_how_many_samples_a_block_holds_changes_no_sum(rows, monkeypatch):
    clouds = _clouds([[3, 1, 12, 2], [1, 1, 9]])
    groups = _groups(5, 7)
    expected = RandomFeatures(clouds, seed=2).sums(groups)
    monkeypatch.setattr(kernels, "_FEATURE_ROWS", rows)
    _assert_sums(RandomFeatures(clouds, seed=2).sums(groups), expected, 1e-5)


@pytest.mark.parametrize("cells", [1, 20, 10_000])
def test_how_many_groups_are_summed_at_once_changes_no_sum(cells, monkeypatch):
    clouds = _clouds([[3, 1], [1, 1, 9]])
    groups = _groups(6, 5)
    expected = similarity(clouds, seed=2).sums(groups)
    monkeypatch.setattr(kernels, "_GROUP_CELLS", cells)
    _assert_sums(similarity(clouds, seed=2).sums(groups), expected, 1e-12)


def test_where_all_samples_are_one_every_kernel_is_one():
    clouds = [Cloud(np.full((4, 3), 7.7), np.arange(4), 4), Cloud(np.full((6, 3), 7.7), np.arange(6) // 2, 3)]
    groups = np.array([[True, True, True, False, False, False, False]])
    inside, with_all, total = similarity(clouds, seed=1).sums(groups)
    assert (inside[0], with_all[0], total) == (6, 18, 42)
    # About their own centre nothing is left of them.
    inside, with_all, total = RandomFeatures(clouds, seed=1).sums(groups)
    assert (inside[0], with_all[0], total) == pytest.approx((0, 0, 0), abs=1e-11)
