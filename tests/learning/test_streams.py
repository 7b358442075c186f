"""Draws for the training loop: balanced, bounded, deterministic, and never without a label."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from continual.domain.errors import StreamError
from continual.domain.samples import Sample, Split
from continual.learning.streams import RARE_CLASS_BOOST, as_dataset, as_experience, balanced_draws

CLASSES = ("x", "y")


def _cell(site, label, count):
    return [Sample(f"{site}-{label}-{i}", site, f"s{i}", label, Split.TRAIN, "a", 1) for i in range(count)]


def _shares(samples, count):
    draws = balanced_draws(samples, CLASSES, count, views=4, seed=2)
    return {cell: n / count for cell, n in Counter(draw.digest.rsplit("-", 1)[0] for draw in draws).items()}


def test_every_site_and_class_weighs_the_same_however_many_images_it_sent():
    samples = [*_cell("a", "x", 90), *_cell("a", "y", 15), *_cell("b", "x", 40), *_cell("b", "y", 40)]
    shares = _shares(samples, 8000)
    # One share of 1/4 has a standard deviation of 0.005.
    assert set(shares) == {"a-x", "a-y", "b-x", "b-y"}
    assert all(share == pytest.approx(0.25, abs=0.025) for share in shares.values())


def test_a_single_image_of_a_rare_class_is_drawn_more_often_but_not_half_the_time():
    share = _shares([*_cell("a", "x", 599), *_cell("a", "y", 1)], 8000)["a-y"]
    weight = RARE_CLASS_BOOST / 600
    assert share == pytest.approx(weight / (weight + 0.5), abs=0.011)
    assert 1 / 600 < share < 0.06


def test_targets_are_places_in_the_adapters_classes_and_views_are_all_drawn():
    draws = balanced_draws([*_cell("a", "y", 5), *_cell("a", "x", 5)], CLASSES, 200, views=3, seed=1)
    assert len(draws) == 200
    assert all(draw.target == CLASSES.index(draw.digest.split("-")[1]) for draw in draws)
    assert {draw.view for draw in draws} == {0, 1, 2}


def test_draws_depend_on_the_seed_and_on_nothing_else():
    samples = [*_cell("a", "x", 30), *_cell("a", "y", 10)]
    first, again, other = (balanced_draws(samples, CLASSES, 50, views=4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_unlabelled_samples_are_never_drawn():
    unlabelled = [replace(sample, label=None, digest=f"none-{i}") for i, sample in enumerate(_cell("a", "x", 50))]
    draws = balanced_draws([*unlabelled, *_cell("a", "x", 2)], CLASSES, 200, views=1, seed=1)
    assert {draw.digest for draw in draws} == {"a-x-0", "a-x-1"}


@pytest.mark.parametrize("samples", [[], [replace(sample, label=None) for sample in _cell("a", "x", 3)]])
def test_a_stream_without_a_label_is_an_error(samples):
    with pytest.raises(StreamError, match=f"none of {len(samples)} training samples has a label"):
        balanced_draws(samples, CLASSES, 10, views=1, seed=1)


def test_a_label_outside_the_adapters_classes_is_an_error_that_names_it():
    with pytest.raises(StreamError, match=r"labels \['z'\] are not among the adapter's classes \['x', 'y'\]"):
        balanced_draws([*_cell("a", "x", 3), *_cell("a", "z", 1)], CLASSES, 10, views=1, seed=1)


def test_an_adapter_of_one_class_has_nothing_to_tell_apart():
    with pytest.raises(StreamError, match="needs 2"):
        balanced_draws(_cell("a", "x", 3), ("x",), 10, views=1, seed=1)


def test_an_experience_hands_over_cached_tokens_under_task_zero(toy):
    draws = balanced_draws(toy.samples["north", Split.TRAIN], ("dim", "bright"), 6, views=2, seed=1)
    experience = as_experience(draws, toy.cache)
    assert experience.task_label == 0
    assert len(experience.dataset) == 6
    for place, (draw, (tokens, target, number, task)) in enumerate(zip(draws, experience.dataset, strict=True)):
        assert np.array_equal(tokens.numpy(), toy.cache.tokens(draw.digest, draw.view).astype(np.float32))
        assert (tokens.dtype, target, number, task) == (torch.float32, draw.target, place, 0)
    assert [number for _, _, number, _ in as_dataset(draws, toy.cache, first=10)] == list(range(10, 16))
