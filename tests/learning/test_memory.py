"""Replay memory: bounded, balanced, nested, and the same on every machine."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.samples import Sample, Split
from continual.learning.memory import select_memory

SITES, LABELS = ("north", "south", "west"), ("x", "y", None)


@st.composite
def _stores(draw):
    """Samples of three sites; pictures may be shared between sites, and some have no label."""
    rows = draw(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(SITES), st.sampled_from(LABELS)), max_size=60))
    return [Sample(f"d{number}", site, "s", label, Split.TRAIN, "a", 1) for number, site, label in rows]


def _cells(**counts):
    return [
        Sample(f"{cell}{i}", cell[0], "s", cell[1], Split.TRAIN, "a", 1)
        for cell, count in counts.items()
        for i in range(count)
    ]


def _kept_per_cell(samples, capacity):
    return dict(Counter(digest[:2] for digest in select_memory(samples, capacity, seed=1)))


@given(_stores(), st.integers(0, 70), st.integers(0, 5))
@settings(deadline=None)
def test_memory_is_bounded_holds_each_labelled_picture_once_and_never_wastes_a_place(samples, capacity, seed):
    kept = select_memory(samples, capacity, seed)
    labelled = {sample.digest for sample in samples if sample.label is not None}
    assert set(kept) <= labelled
    assert len(kept) == len(set(kept)) == min(capacity, len(labelled))


@given(_stores(), st.integers(0, 70), st.integers(0, 70))
@settings(deadline=None)
def test_a_smaller_memory_is_a_part_of_a_larger_one(samples, one, other):
    small, large = (set(select_memory(samples, capacity, seed=3)) for capacity in sorted((one, other)))
    assert small <= large


@given(_stores(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_in_which_samples_come_does_not_matter(samples, random):
    mixed = random.sample(samples, len(samples))
    assert select_memory(mixed, 9, seed=1) == select_memory(samples, 9, seed=1)


def test_places_are_shared_evenly_and_what_a_small_cell_leaves_goes_to_the_others():
    samples = _cells(ax=100, ay=3, bx=20, by=20)
    assert _kept_per_cell(samples, 12) == {"ax": 3, "ay": 3, "bx": 3, "by": 3}
    assert _kept_per_cell(samples, 33) == {"ax": 10, "ay": 3, "bx": 10, "by": 10}
    assert _kept_per_cell(samples, 1000) == {"ax": 100, "ay": 3, "bx": 20, "by": 20}


def test_another_seed_keeps_other_samples():
    samples = _cells(ax=100)
    assert set(select_memory(samples, 20, seed=1)) != set(select_memory(samples, 20, seed=2))


def test_memory_that_learns_site_after_site_keeps_room_for_each():
    kept = _cells(ax=50, ay=50)
    for site in "bc":
        chosen = set(select_memory(kept, 24, seed=1))
        kept = [s for s in kept if s.digest in chosen] + _cells(**{f"{site}x": 50, f"{site}y": 50})
    assert set(_kept_per_cell(kept, 24).values()) == {4}
