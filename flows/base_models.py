"""Base models of volumes: made of one site's stored volumes, or of a published checkpoint, as a file of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from continual.domain.adapters import Task
from continual.domain.errors import SettingsError, StreamError
from continual.domain.samples import IGNORED, Sample, Split, label_counts
from continual.imaging import decode_volume, decode_volume_mask
from continual.learning import (
    BaseModel,
    BaseTraining,
    Volume,
    bound_threads,
    convert_checkpoint,
    train_volume_classifier,
    train_volume_segmenter,
    weights_from_bytes,
)
from flows.ingest import intake_line, take_in
from flows.progress import say, track
from flows.requests import Incoming
from flows.whole_files import write_whole
from flows.workplace import Workplace, open_workplace


@dataclass(frozen=True, slots=True)
class BaseOrder:
    """Which base model is made, of which site's training volumes, for how long."""

    model: BaseModel
    site: str
    training: BaseTraining
    incoming: Incoming | None = None


def make_base_model(workspace: str, order: BaseOrder) -> bytes:
    """Take the site in where a source is given, then train on its training split; the file's bytes.

    Raises StreamError when the site has no training volume that the architecture can learn from.
    """
    if order.incoming is not None:
        say(intake_line(take_in(workspace, order.incoming, order.site, None)))
    with open_workplace(workspace, create=order.incoming is not None) as workplace:
        bound_threads(workplace.settings.threads)
        task = order.model.task
        stored = workplace.registry.samples.list(order.site, Split.TRAIN, labelled=task)
        samples = [sample for sample in stored if sample.is_volume]
        if not samples:
            wanted = "masks" if task is Task.SEGMENTATION else "labels"
            raise StreamError(
                f"site {order.site} has 0 training volumes with {wanted}; take some in with --manifest, or correct "
                "--site"
            )
        advance = track(f"base model of {len(samples)} volumes of {order.site}, then frozen", order.training.steps)
        volumes = [_volume(workplace, sample) for sample in samples]
        if task is Task.CLASSIFICATION:
            return train_volume_classifier(order.model, volumes, _targets(samples), order.training, advance)
        masks = [decode_volume_mask(workplace.registry.samples.read_mask(sample)) for sample in samples]
        classes = max(int(mask[mask != IGNORED].max(initial=0)) for mask in masks)
        pairs = list(zip(volumes, masks, strict=True))
        return train_volume_segmenter(order.model, pairs, max(classes, 1), order.training, advance)


def convert(model: BaseModel, checkpoint: Path) -> bytes:
    """A published checkpoint as a backbone's file. SettingsError where there is no such file."""
    if not checkpoint.is_file():
        raise SettingsError(f"checkpoint file {checkpoint.name!r} does not exist at the path given; correct it")
    return convert_checkpoint(model, checkpoint.read_bytes())


def keep_base_model(data: bytes, out: Path) -> str:
    """Write the file whole or not at all; the digest that the backbone is known by."""
    write_whole(out, data)
    return weights_from_bytes(data).digest


def _volume(workplace: Workplace, sample: Sample) -> Volume:
    decoded = decode_volume(workplace.registry.samples.read(sample))
    return Volume(decoded.values, decoded.spacing_mm)


def _targets(samples: Sequence[Sample]) -> list[int]:
    classes = list(label_counts(samples))
    return [classes.index(str(sample.label)) for sample in samples]
