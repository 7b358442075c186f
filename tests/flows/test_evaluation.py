"""How near the champion a candidate stays: as near as the validation splits allow."""

from types import SimpleNamespace

import pytest

from continual.domain.adapters import Task


class Line:
    """Stands for the weights: remembers where it was sent. The scores below follow from where it stands."""

    def __init__(self):
        self.share = None

    def end_here(self):
        self.share = 1.0

    def go(self, share):
        self.share = share


@pytest.fixture
def judged(monkeypatch, libraries):
    """`stay_near` with validation scores that are told instead of measured."""
    from flows.updates import evaluation

    def judge(scores_of, task=Task.CLASSIFICATION):
        line = Line()
        context = SimpleNamespace(options=SimpleNamespace(task=task), labelled=lambda _site, _split: ["one"])

        monkeypatch.setattr(evaluation, "validate", lambda _context, _network, sites: scores_of(line.share, sites))
        return evaluation.stay_near(context, line, None, ("first", "second")), line

    return judge


def test_the_best_validation_mean_over_all_sites_decides(judged):
    stay, line = judged(lambda share, sites: dict.fromkeys(sites, {0.6: 0.7, 0.8: 0.9, 1.0: 0.8}[share]))
    assert (stay.share, line.share) == (0.8, 0.8)
    assert stay.validation == pytest.approx({"0.6": 0.7, "0.8": 0.9, "1": 0.8})


def test_of_shares_that_are_as_good_the_nearest_to_the_champion_is_kept(judged):
    stay, line = judged(lambda share, sites: dict.fromkeys(sites, {0.6: 0.80, 0.8: 0.893, 1.0: 0.90}[share]))
    assert (stay.share, line.share) == (0.8, 0.8)


def test_of_masks_less_than_a_hundredth_of_dice_is_already_worse(judged):
    means = {0.6: 0.893, 0.8: 0.8985, 1.0: 0.90}
    stay, _ = judged(lambda share, sites: dict.fromkeys(sites, means[share]), Task.SEGMENTATION)
    assert stay.share == 0.8
    stay, _ = judged(lambda share, sites: dict.fromkeys(sites, means[share]))
    assert stay.share == 0.6


def test_every_site_weighs_the_same(judged):
    means = {0.6: (0.9, 0.5), 0.8: (0.8, 0.7), 1.0: (0.6, 0.8)}
    stay, _ = judged(lambda share, sites: dict(zip(sites, means[share], strict=True)))
    assert stay.share == 0.8


def test_without_validation_samples_everything_learnt_is_kept(judged):
    stay, line = judged(lambda _share, _sites: {})
    assert (stay.share, dict(stay.validation), line.share) == (1.0, {}, 1.0)


def test_a_real_update_records_the_share_it_chose(released):
    released.take_in(released.cells("second", tuple(f"t{number}" for number in range(40)), seed=2), "second", "cells")
    assert released.learn("second") == "version 2 accepted"
    with released.registry() as registry:
        first, second = registry.adapters.get("cells", 1), registry.adapters.get("cells", 2)
    assert first.record["stay"] == {"share": 1.0, "validation": {}}
    stay = second.record["stay"]
    assert set(stay["validation"]) == {"0.6", "0.8", "1"}
    assert stay["validation"][f"{stay['share']:g}"] >= max(stay["validation"].values()) - 0.01
