"""Networks on the frozen splits of sites, and how far from the champion a candidate may stay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from continual.domain.adapters import SiteOutcomes, Task
from continual.domain.digests import sha256_json
from continual.domain.errors import ImageErasedError
from continual.domain.metrics import chance_level
from continual.domain.samples import Sample, Split
from continual.learning import (
    DenseCache,
    DenseScore,
    SiteScore,
    TileCache,
    TunedNetwork,
    VersionNetwork,
    WeightLine,
    blind_dice,
    calibrate,
    check_mask_numbers,
    site_outcomes,
)
from flows.progress import say, track
from flows.updates.adapter_context import AdapterContext

SHARES = (0.6, 0.8, 1.0)
"""Shares of the way from champion to candidate that are tried."""
AS_GOOD = {Task.CLASSIFICATION: 0.01, Task.SEGMENTATION: 0.002}
"""A validation mean at most this much below the best counts as good as the best.

A balanced accuracy moves by whole images, of which a class may have ten; a mean Dice moves with every pixel.
"""


Result = TypeVar("Result")
Evaluation = tuple[SiteOutcomes, SiteScore | DenseScore]
Samples = Mapping[str, Sequence[Sample]]
"""By site."""


@dataclass(frozen=True, slots=True)
class Stay:
    """The share of what was learnt that is kept, and the mean validation score of every share tried (empty: none)."""

    share: float = 1.0
    validation: Mapping[str, float] = field(default_factory=dict)


def labelled_samples(context: AdapterContext, site: str, split: Split) -> list[Sample]:
    """A site's samples with a label, or for masks with a mask, on one side of its split."""
    return context.labelled(site, split)


def split_digest(samples: Sequence[Sample]) -> str:
    """What a metric was measured on: the images with their labels or masks."""
    return sha256_json(sorted((sample.digest, sample.label or "", sample.mask or "") for sample in samples))


def chance_on(context: AdapterContext, site: str) -> float:
    """What can be had on a site's test split without looking, in the adapter's metric."""
    samples = labelled_samples(context, site, Split.TEST)
    if isinstance(context.cache, DenseCache):
        masks = [context.cache.whole_mask(sample) for sample in samples]
        boxed = isinstance(context.cache, TileCache) and context.cache.prompted
        return blind_dice(masks, len(context.options.classes), boxed=boxed)
    return chance_level([str(sample.label) for sample in samples])


def despite_erasures(work: Callable[[], Result]) -> Result:
    """What some work gives that lists its samples itself; begun again where one of them was erased meanwhile."""
    while True:
        try:
            return work()
        except ImageErasedError as error:
            say(f"{error.args[0].partition(';')[0]}: they are left out now")


def check_masks(context: AdapterContext, sites: Sequence[str]) -> None:
    """Raise StreamError where a held-out mask holds a number that is no class: training would end in front of it."""
    if isinstance(context.cache, DenseCache):
        for site in sites:
            held = [s for split in (Split.VALIDATION, Split.TEST) for s in labelled_samples(context, site, split)]
            check_mask_numbers(context.cache, held, context.options.classes)


def evaluate(
    context: AdapterContext, network: VersionNetwork, sites: Sequence[str], split: Split
) -> dict[str, Evaluation]:
    """A network's outcomes and scores on one split of every named site; sites without labels there are left out."""
    return evaluate_on(context, network, {site: labelled_samples(context, site, split) for site in sites}, split)


def evaluate_on(
    context: AdapterContext, network: VersionNetwork, samples: Samples, split: Split
) -> dict[str, Evaluation]:
    """The same on samples that were listed before: what an intake brings meanwhile is not among them."""
    found = {}
    for site, held in samples.items():
        if held:
            context.fill(held, context.options.test_time_views, f"{site}: activations")
            found[site] = site_outcomes(network, context.cache, site, held, track(f"{site}: {split} split", len(held)))
    return found


def settle(context: AdapterContext, network: VersionNetwork, sites: Sequence[str], told: str = "calibration") -> None:
    """Fit what the network answers with beside its weights on the validation splits of the sites; a bar says `told`."""
    _settle_on(context, network, validation_samples(context, sites), told)


def _settle_on(context: AdapterContext, network: VersionNetwork, samples: Samples, told: str) -> None:
    held = [sample for group in samples.values() for sample in group]
    context.fill(held, context.options.test_time_views, "validation: activations")
    calibrate(network, context.cache, held, track(told, len(held)))


def validation_samples(context: AdapterContext, sites: Sequence[str]) -> dict[str, list[Sample]]:
    """Labelled validation samples by site."""
    return {site: labelled_samples(context, site, Split.VALIDATION) for site in sites}


def validate(context: AdapterContext, network: VersionNetwork, samples: Samples) -> dict[str, float]:
    """Validation scores by site, in the adapter's metric, as they would be served; sites without samples are left out.

    Masks move with the foreground's bias, so it is fitted first; a temperature moves no class.
    """
    if context.options.task is Task.SEGMENTATION:
        _settle_on(context, network, samples, "calibration")
    return {site: score.value for site, (_, score) in evaluate_on(context, network, samples, Split.VALIDATION).items()}


def stay_near(context: AdapterContext, line: WeightLine, network: TunedNetwork, sites: Sequence[str]) -> Stay:
    """Leave the network at the smallest share of the line that is as good on validation as the best one.

    Scored by the adapter's metric, every site alike. Without labelled validation samples everything learnt is kept.
    """
    line.end_here()
    means = despite_erasures(lambda: _means(context, line, network, sites))
    if not means:
        line.go(1.0)
        return Stay()
    chosen = min(share for share, mean in means.items() if mean >= max(means.values()) - AS_GOOD[context.options.task])
    line.go(chosen)
    return Stay(chosen, {f"{share:g}": mean for share, mean in means.items()})


def _means(
    context: AdapterContext, line: WeightLine, network: TunedNetwork, sites: Sequence[str]
) -> dict[float, float]:
    """Mean validation score over sites of every share, on samples listed once; empty where no site has any."""
    means: dict[float, float] = {}
    held = validation_samples(context, sites)
    for share in SHARES:
        line.go(share)
        scores = validate(context, network, held)
        if not scores:
            return {}
        means[share] = float(np.mean(list(scores.values())))
    return means
