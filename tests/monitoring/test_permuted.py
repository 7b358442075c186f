"""Which subjects are current under permutation: every choice as likely as any other, the observed one first."""

import math
from collections import Counter

import numpy as np
import pytest

from monitoring.detectors.permuted import permuted_groups


@pytest.mark.parametrize(("known", "new"), [(3, 2), (2, 3), (4, 1), (1, 4), (2, 2)])
def test_every_choice_of_current_subjects_is_as_likely_as_any_other(known, new):
    groups = permuted_groups(known, new, 4000, seed=5)
    assert groups[0].tolist() == [False] * known + [True] * new
    assert (groups.sum(axis=1) == new).all()
    counts = Counter(map(bytes, groups[1:]))
    choices = math.comb(known + new, new)
    assert len(counts) == choices
    # Pearson's statistic of 4,000 draws; beyond 30 with at most nine degrees of freedom once in two thousand times.
    expected = 4000 / choices
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 30


def test_a_seed_gives_the_same_groups_and_another_seed_others():
    once, again, other = (permuted_groups(30, 10, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
