"""The main job on simulated hospitals: makes its own DICOM files and base model, then takes the real path."""

from pathlib import Path
from typing import Any

import numpy as np

from continual.domain.adapters import Task
from continual.domain.change_plan import ChangePlan
from continual.domain.samples import Sample, Split
from continual.imaging import decode_image, write_simulated_hospitals
from continual.learning import LoraShape, TrainingOptions, pretrain_backbone
from flows.ingest import take_in
from flows.progress import say, track
from flows.requests import Incoming, Release
from flows.run import run
from flows.updates.adapter_context import AdapterOptions
from flows.whole_files import write_whole
from flows.workplace import open_workplace

ADAPTER = "nodule"
# The first site also has to carry the base model.
IMAGES = {"northgate": 1800, "hillcrest": 800, "riverside": 800}
SITES = tuple(IMAGES)
IMAGE_SIZE = 64
PRETRAINING_STEPS = 600
SEED = 20260301

OPTIONS = AdapterOptions(
    image_size=IMAGE_SIZE,
    lora=LoraShape(rank=8, alpha=16, blocks=3),
    # A small network made from nothing moves in larger steps than a foundation model, and a nodule may lie in so few
    # patches that leaving half of them out would leave the nodule out.
    training=TrainingOptions(steps=200, lora_rate=3e-3, head_rate=3e-3, patch_share=1.0, seed=SEED),
    plan=ChangePlan(replay_samples=300, seed=SEED),
)


def play(workspace: str) -> dict[str, Any]:
    """Simulated DICOM files -> base model from the first site -> ingest, drift check, update, gate, alias."""
    folder = Path(workspace)
    say("The images of this demo are SIMULATED: three made-up scanners, one finding (a nodule), invented patients.")
    incoming = folder / "incoming"
    labels = incoming / "labels.csv"
    if not labels.exists():
        advance = track("writing DICOM files", sum(IMAGES.values()))
        labels = write_simulated_hospitals(incoming, SEED, IMAGES, advance)
    source = Incoming(str(incoming), str(labels))
    take_in(workspace, source, SITES[0], None)
    backbone = _base_model(workspace, folder / "backbone.safetensors")
    wanted = Release(ADAPTER, str(backbone), None, OPTIONS.as_record())
    return run(workspace, source, list(SITES), wanted)


def _base_model(workspace: str, path: Path) -> Path:
    if path.exists():
        return path
    with open_workplace(workspace) as workplace:
        samples = workplace.registry.samples.list(SITES[0], Split.TRAIN, labelled=Task.CLASSIFICATION)
        images = [_pixels(workplace.registry.samples.read(sample)) for sample in samples]
    advance = track(f"base model on {SITES[0]}, then frozen", PRETRAINING_STEPS)
    weights = pretrain_backbone(images, _targets(samples), PRETRAINING_STEPS, SEED, advance)
    write_whole(path, weights)
    return path


def _pixels(png: bytes) -> np.ndarray:
    pixels: np.ndarray = decode_image(png).pixels
    return pixels


def _targets(samples: list[Sample]) -> list[int]:
    classes = sorted({str(sample.label) for sample in samples})
    return [classes.index(str(sample.label)) for sample in samples]
