"""Training-free classifiers: they separate what can be separated, and the order of sites leaves no trace."""

import numpy as np
import pytest

from continual.domain.metrics import balanced_accuracy
from continual.learning.closed_form import CLOSED_FORMS, targets_of

CLASSES = ("basophil", "eosinophil", "monocyte")
WIDTH = 24


def site(seed, per_class=40, shift=0.0):
    """Gaussian classes whose means all sites share, moved by the site."""
    means = np.random.default_rng(0).normal(size=(len(CLASSES), WIDTH))
    random = np.random.default_rng([seed, 1])
    targets = np.repeat(np.arange(len(CLASSES)), per_class)
    return means[targets] + random.normal(scale=0.6, size=(len(targets), WIDTH)) + shift, targets


def accuracy(model, features, targets):
    return balanced_accuracy([str(t) for t in targets], [str(p) for p in model.scores(features).argmax(axis=1)])


@pytest.fixture(params=CLOSED_FORMS)
def make(request):
    return lambda: CLOSED_FORMS[request.param](WIDTH, len(CLASSES), 7)


def test_classes_that_can_be_told_apart_are_told_apart_on_new_images(make):
    model = make()
    model.learn(*site(1))
    model.settle(*site(2))
    assert accuracy(model, *site(3)) > 0.95


def test_sites_in_any_order_and_in_any_number_of_batches_give_the_same_scores(make):
    batches = [site(1), site(2, shift=0.5), site(3, per_class=5)]
    forward, backward, once = make(), make(), make()
    for batch in batches:
        forward.learn(*batch)
    for batch in reversed(batches):
        backward.learn(*batch)
    once.learn(np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches]))
    expected = forward.scores(site(4)[0])
    assert np.allclose(backward.scores(site(4)[0]), expected)
    assert np.allclose(once.scores(site(4)[0]), expected)


def test_what_is_kept_does_not_grow_with_the_images(make):
    model = make()
    model.learn(*site(1))
    before = model.stored_bytes()
    model.learn(*site(2, per_class=400))
    assert model.stored_bytes() == before > 0


def test_a_class_without_an_image_is_never_the_answer(make):
    features, targets = site(1)
    model = make()
    model.learn(features[targets != 1], targets[targets != 1])
    assert 1 not in model.scores(site(2)[0]).argmax(axis=1)


def test_settling_on_validation_images_never_makes_them_worse(make):
    noise = np.random.default_rng(5).normal(scale=2.0, size=(60, WIDTH))
    features, targets = site(1, per_class=20)
    model, validation = make(), site(2)
    model.learn(features + noise, targets)
    before = accuracy(model, *validation)
    model.settle(*validation)
    assert accuracy(model, *validation) >= before


def test_labels_become_their_places_among_the_classes():
    assert targets_of(["monocyte", "basophil"], CLASSES).tolist() == [2, 0]
