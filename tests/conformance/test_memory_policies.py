"""What every memory policy promises, run over the registry: a new one is tested by being listed."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.change_plan import ChangePlan
from continual.domain.samples import Sample, Split
from continual.learning import POLICIES, Candidates, Capacity, policy_named, select_memory

NAMES = list(POLICIES)
NESTED = [name for name, policy in POLICIES.items() if policy.nested]
INCREMENTAL = [name for name, policy in POLICIES.items() if policy.incremental]
SITES, LABELS = ("north", "south", "west"), ("x", "y", None)
LARGEST_BYTES = 90


def _size(digest: str) -> int:
    return 10 + int(hashlib.sha256(digest.encode()).hexdigest(), 16) % (LARGEST_BYTES - 9)


def _features(digests):
    """Frozen features in name only: numbers that belong to the picture, whoever asks in whatever order."""
    rows = [np.random.default_rng(list(digest.encode())).normal(size=5) for digest in digests]
    return np.array(rows).reshape(len(rows), 5)


def _candidates(samples, seed=1):
    return Candidates(samples, seed, {sample.digest: _size(sample.digest) for sample in samples}, _features)


def _choose(name, samples, count=1000, size_bytes=0, seed=1):
    return select_memory(_candidates(samples, seed), Capacity(count, size_bytes), name)


@st.composite
def _stores(draw):
    """Samples of three sites; pictures may be shared between sites, and some have no label."""
    rows = draw(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(SITES), st.sampled_from(LABELS)), max_size=50))
    return [Sample(f"d{number}", site, "s", label, Split.TRAIN, "a", 1) for number, site, label in rows]


def test_every_name_is_its_key_and_every_policy_says_what_it_keeps():
    assert all(name == policy.name and policy.summary for name, policy in POLICIES.items())
    assert {"reservoir", "class_and_site_balanced", "herding"} <= set(NAMES)
    assert NESTED
    assert INCREMENTAL
    assert policy_named(ChangePlan().replay_policy).name == "class_and_site_balanced"


@pytest.mark.parametrize("name", NAMES)
@given(_stores(), st.integers(0, 60), st.integers(0, 1500), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_a_memory_never_exceeds_its_samples_or_bytes_and_holds_labelled_pictures_once(name, samples, count, most, seed):
    kept = _choose(name, samples, count, most, seed)
    assert len(kept) == len(set(kept)) <= count
    assert set(kept) <= {sample.digest for sample in samples if sample.label is not None}
    if most:
        assert sum(map(_size, kept)) <= most


@pytest.mark.parametrize("name", NAMES)
@given(_stores(), st.integers(0, 60))
@settings(deadline=None, max_examples=40)
def test_a_memory_without_a_bound_in_bytes_wastes_no_place(name, samples, count):
    labelled = {sample.digest for sample in samples if sample.label is not None}
    assert len(_choose(name, samples, count)) == min(count, len(labelled))


@pytest.mark.parametrize("name", NAMES)
@given(_stores(), st.integers(1, 1500))
@settings(deadline=None, max_examples=40)
def test_what_a_bound_in_bytes_leaves_unused_is_less_than_one_image(name, samples, most):
    labelled = {sample.digest for sample in samples if sample.label is not None}
    kept = set(_choose(name, samples, size_bytes=most))
    if any(_size(digest) <= most for digest in labelled - kept):
        assert most - sum(map(_size, kept)) < LARGEST_BYTES


@pytest.mark.parametrize("name", NAMES)
@given(_stores(), st.randoms(use_true_random=False), st.integers(0, 40), st.sampled_from([0, 200, 700]))
@settings(deadline=None, max_examples=40)
def test_neither_the_order_of_samples_nor_repeats_matter_and_the_choice_is_the_same_each_time(
    name, samples, random, count, most
):
    mixed = random.sample(samples, len(samples)) + samples[:3]
    first = _choose(name, samples, count, most)
    assert _choose(name, samples, count, most) == first
    assert _choose(name, mixed, count, most) == first


@pytest.mark.parametrize("name", NESTED)
@given(_stores(), st.tuples(st.integers(0, 50), st.integers(0, 50)), st.sampled_from([0, 300]))
@settings(deadline=None, max_examples=60)
def test_a_memory_of_fewer_samples_is_a_part_of_a_larger_one(name, samples, counts, most):
    small, large = (set(_choose(name, samples, count, most)) for count in sorted(counts))
    assert small <= large


@pytest.mark.parametrize("name", NESTED)
@given(_stores(), st.tuples(*[st.integers(LARGEST_BYTES, 2000)] * 2))
@settings(deadline=None, max_examples=60)
def test_a_memory_of_fewer_bytes_is_a_part_of_a_larger_one(name, samples, bounds):
    small, large = (set(_choose(name, samples, size_bytes=most)) for most in sorted(bounds))
    assert small <= large


@pytest.mark.parametrize("name", INCREMENTAL)
@given(_stores(), st.lists(st.integers(0, 50), max_size=3), st.integers(0, 30), st.sampled_from([0, 60, 400]))
@settings(deadline=None, max_examples=60)
def test_a_stream_in_pieces_is_remembered_as_one_in_a_single_piece(name, samples, cuts, count, most):
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    kept = []
    for start, end in zip(edges, edges[1:], strict=False):
        chosen = set(_choose(name, kept + samples[start:end], count, most))
        kept = [sample for sample in kept + samples[start:end] if sample.digest in chosen]
    assert {s.digest for s in kept if s.label} == set(_choose(name, samples, count, most))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_remember_is_an_empty_memory(name):
    assert _choose(name, []) == ()
    assert _choose(name, [Sample("d", "north", "s", None, Split.TRAIN, "a", 1)]) == ()
