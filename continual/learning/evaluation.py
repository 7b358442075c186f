"""What a network says on stored samples: probabilities, outcomes per site, scores and calibration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from continual.domain.adapters import SiteOutcomes
from continual.domain.metrics import balanced_accuracy, calibration_floor, expected_calibration_error
from continual.domain.samples import Sample
from continual.learning.closed_form_network import ClosedFormNetwork
from continual.learning.devices import mixed_precision
from continual.learning.network import AdaptedNetwork, TunedNetwork
from continual.learning.segmentation.dense_cache import DenseCache
from continual.learning.segmentation.dense_network import DenseNetwork
from continual.learning.segmentation.judging import DenseScore, dense_outcomes, mean_probabilities
from continual.learning.segmentation.tile_cache import Cache

EVALUATION_BATCH = 32


@dataclass(frozen=True, slots=True)
class SiteScore:
    """Balanced accuracy in [0, 1] and expected calibration error in [0, 1] (lower is better) on one site.

    `calibration_floor` is the error that honest confidences would show by chance on so few samples.
    """

    site: str
    balanced_accuracy: float
    calibration_error: float
    samples: int
    calibration_floor: float = 0.0

    @property
    def value(self) -> float:
        """The metric that versions are compared by."""
        return self.balanced_accuracy


@torch.inference_mode()
def class_scores(
    network: TunedNetwork | ClosedFormNetwork,
    cache: Cache,
    digests: Sequence[str],
    progress: Callable[[int], None],
) -> Float[np.ndarray, "image klass"]:
    """Class scores (logits, before the temperature) of cached images, rows in the order given.

    Means over as many views as the network is asked with, which must be cached; view 0 alone unless it says otherwise.
    """
    if isinstance(network, ClosedFormNetwork):
        return network.cached_scores(cache, digests, progress)
    network.eval()
    device = next(network.parameters()).device
    rows = [np.empty((0, len(network.classes)), dtype=np.float32)]
    for start in range(0, len(digests), EVALUATION_BATCH):
        batch = digests[start : start + EVALUATION_BATCH]
        said = []
        for view in range(network.test_time_views if isinstance(network, AdaptedNetwork) else 1):
            tokens = torch.stack([cache.inputs(digest, view)[0] for digest in batch])
            with mixed_precision(device):
                said.append(network(tokens.to(device)).float())
        rows.append(torch.stack(said).mean(dim=0).cpu().numpy())
        progress(len(batch))
    return np.concatenate(rows)


def probabilities(
    network: TunedNetwork | ClosedFormNetwork,
    cache: Cache,
    digests: Sequence[str],
    progress: Callable[[int], None],
) -> Float[np.ndarray, "image klass"]:
    """Class probabilities of cached images at the network's temperature, in the order given, summing to 1.

    A segmenting network's are means over an image's pixels, the background's first.
    """
    if isinstance(network, DenseNetwork) and isinstance(cache, DenseCache):
        return mean_probabilities(network, cache, digests, progress)
    scores = torch.from_numpy(class_scores(network, cache, digests, progress))
    calibrated: Float[np.ndarray, "image klass"] = network.calibrated(scores).numpy()
    return calibrated


def site_outcomes(
    network: TunedNetwork | ClosedFormNetwork,
    cache: Cache,
    site: str,
    samples: Sequence[Sample],
    progress: Callable[[int], None],
) -> tuple[SiteOutcomes, SiteScore | DenseScore]:
    """The network's outcomes and scores on a site's labelled samples, in the order given.

    Samples without a label, for masks without a mask, are left out. Raises ValueError when none is left.
    """
    if isinstance(network, DenseNetwork) and isinstance(cache, DenseCache):
        return dense_outcomes(network, cache, site, samples, progress)
    labelled = [sample for sample in samples if sample.label is not None]
    scores = probabilities(network, cache, [sample.digest for sample in labelled], progress)
    labels = tuple(str(sample.label) for sample in labelled)
    predicted = tuple(network.classes[index] for index in scores.argmax(axis=1))
    outcomes = SiteOutcomes(site, tuple(sample.subject for sample in labelled), labels, predicted)
    correct = np.array(labels) == np.array(predicted)
    return outcomes, SiteScore(
        site=site,
        balanced_accuracy=balanced_accuracy(labels, predicted),
        calibration_error=expected_calibration_error(scores.max(axis=1), correct),
        samples=len(labelled),
        calibration_floor=calibration_floor(scores.max(axis=1)),
    )
