"""Calibration: what a version answers with beside its weights, fitted on images that it was not trained on.

A temperature for class scores; for masks the foreground's bias, too.
"""

from collections.abc import Callable, Sequence

import numpy as np

from continual.domain.samples import Sample
from continual.learning.closed_form_network import ClosedFormNetwork
from continual.learning.evaluation import class_scores
from continual.learning.network import TunedNetwork
from continual.learning.segmentation.judging import calibrate_masks
from continual.learning.segmentation.mask_network import MaskNetwork
from continual.learning.segmentation.tile_cache import Cache, TileCache
from continual.learning.temperature import fit_temperature


def calibrate(
    network: TunedNetwork | ClosedFormNetwork,
    cache: Cache,
    samples: Sequence[Sample],
    progress: Callable[[int], None],
) -> float:
    """Fit what the network answers with on labelled samples it was not trained on, set it and return the temperature.

    Cells are (site, class). Samples without a label, or with one that the network does not know, are left out. A
    segmenting network gets its foreground's bias first, from samples with a mask.
    """
    if isinstance(network, MaskNetwork) and isinstance(cache, TileCache):
        return calibrate_masks(network, cache, samples, progress)
    known = [sample for sample in samples if sample.label in network.classes]
    scores = class_scores(network, cache, [sample.digest for sample in known], progress)
    targets = np.array([network.classes.index(str(sample.label)) for sample in known], dtype=np.int64)
    network.temperature = fit_temperature(scores, targets, [(sample.site, sample.label) for sample in known])
    return network.temperature
