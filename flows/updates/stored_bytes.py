"""What is held of each sample, its image or its kept activations, and how many bytes; knows nothing of learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.domain.samples import Sample
from continual.learning import activation_bytes
from flows.workplace import Workplace

IMAGE, ACTIVATIONS, BOTH, NOTHING = "image", "activations", "both", "nothing"


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of stored images and masks by address, and of kept activations by digest; what is missing is left out."""

    files: Mapping[str, int]
    activations: Mapping[str, int]

    def image_bytes(self, sample: Sample) -> int:
        """Bytes of the sample's stored image and mask."""
        return self.files.get(sample.artifact, 0) + (self.files.get(sample.mask, 0) if sample.mask else 0)

    def activation_bytes(self, sample: Sample) -> int:
        """Bytes of the sample's kept activations."""
        return self.activations.get(sample.digest, 0)

    def what(self, sample: Sample) -> str:
        """Whether image, activations, both or nothing is held."""
        image, activations = sample.artifact in self.files, sample.digest in self.activations
        return {(True, True): BOTH, (True, False): IMAGE, (False, True): ACTIVATIONS}.get((image, activations), NOTHING)


def held_of(workplace: Workplace, samples: Sequence[Sample]) -> Held:
    """What the workspace holds of the samples; cached activations do not count, as they can be deleted."""
    addresses = [address for sample in samples for address in (sample.artifact, sample.mask) if address]
    return Held(
        workplace.registry.artifacts.sizes(addresses),
        activation_bytes(workplace.settings.kept_activations_folder(), {sample.digest for sample in samples}),
    )


def site_rows(held: Held, samples: Sequence[Sample]) -> tuple[dict[str, Any], ...]:
    """Per site in the order given: samples, images and kept activations, and bytes of both."""
    rows: dict[str, dict[str, Any]] = {}
    for sample in samples:
        empty = {"samples": 0, "images": 0, "image_bytes": 0, "activations": 0, "activation_bytes": 0}
        row = rows.setdefault(sample.site, {"site": sample.site, **empty})
        row["samples"] += 1
        row["images"] += held.what(sample) in {IMAGE, BOTH}
        row["image_bytes"] += held.image_bytes(sample)
        row["activations"] += held.what(sample) in {ACTIVATIONS, BOTH}
        row["activation_bytes"] += held.activation_bytes(sample)
    return tuple(rows.values())
