"""Two small sites of made-up stained cells as PNG files with a manifest, a tiny backbone, and a desk to work at.

The second site's light differs, so that a model of the first site mistakes it; one model can learn both.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from continual.domain.samples import IntakeSummary
from registry import Registry, open_registry

if TYPE_CHECKING:
    from flows.updates.adapter_context import AdapterOptions

ADAPTER = "cells"
SUBJECTS = tuple(f"s{number}" for number in range(40))
SIDE_PX = 64
COLOURS = {"blue": (70.0, 60.0, 150.0), "red": (150.0, 60.0, 70.0)}
"""Label to the nucleus' colour on the first site's scanner."""
LIGHTS = {"first": (0.0, 0.0, 0.0), "second": (70.0, -45.0, -15.0)}
"""Site to what its lamp adds to each channel."""
ARCHITECTURE = {"img_size": SIDE_PX, "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest."""

    path: str
    site: str
    label: str
    subject: str


def draw_cell(site: str, label: str, random: np.random.Generator) -> np.ndarray:
    """A disc of the label's colour, anywhere, on a pale speckled ground."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    radius = random.uniform(16, 24)
    top, left = random.uniform(radius, SIDE_PX - radius, size=2)
    inside = ((rows - top) ** 2 + (columns - left) ** 2 < radius**2)[:, :, None]
    ground = np.array([180.0, 175.0, 180.0]) + random.normal(scale=6)
    picture = np.where(inside, np.array(COLOURS[label]), ground) + random.normal(scale=10, size=(SIDE_PX, SIDE_PX, 3))
    return np.clip(picture + np.array(LIGHTS[site]), 0, 255).astype(np.uint8)


def write_cells(folder: Path, site: str, subjects: Sequence[str], seed: int) -> list[Row]:
    """Two pictures of each subject, of one label; labels take turns. The rows of a manifest that names them."""
    random = np.random.default_rng(seed)
    (folder / site).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, subject in enumerate(subjects):
        label = sorted(COLOURS)[number % len(COLOURS)]
        for view in (1, 2):
            path = f"{site}/{seed}-{number:03d}-{view}.png"
            Image.fromarray(draw_cell(site, label, random)).save(folder / path)
            rows.append(Row(path, site, label, subject))
    return rows


def write_manifest(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "site", "label", "subject"))
        writer.writerows((row.path, row.site, row.label, row.subject) for row in rows)
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A manifest whose columns are the first row's names."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_backbone(path: Path, seed: int = 3, **untrue: int) -> Path:
    """A vision transformer that never saw an image, in the format that `pretrain_backbone` writes.

    `untrue` makes the file tell another architecture than the one its weights have.
    """
    import torch
    from safetensors.torch import save
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    network = VisionTransformer(**ARCHITECTURE, num_classes=0, dynamic_img_size=True)
    state = {name: weight.contiguous() for name, weight in network.state_dict().items()}
    described = json.dumps({"name": "small_vision_transformer", "arguments": ARCHITECTURE | untrue})
    path.write_bytes(save(state, metadata={"continual_backbone": described}))
    return path


def load_libraries(prefect_home: Path) -> None:
    """Loads Prefect, which reads its settings at import, with its files in the folder given; and torch, one thread."""
    wanted = {"PREFECT_HOME": str(prefect_home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        import torch

        import flows.run  # noqa: F401
    torch.set_num_threads(1)


@dataclass(frozen=True, slots=True)
class Desk:
    """A workspace with a folder of files beside it, worked on as the flows do."""

    folder: Path

    @property
    def workspace(self) -> str:
        return str(self.folder / "workspace")

    def take_in(
        self, rows: list[Row], site: str, adapter: str | None = None, *, new_classes: bool = False
    ) -> IntakeSummary:
        from flows.ingest import take_in
        from flows.requests import Incoming

        manifest = write_manifest(self.folder / "manifest.csv", rows)
        return take_in(self.workspace, Incoming(str(manifest)), site, adapter, new_classes=new_classes)

    def cells(self, site: str, subjects: tuple[str, ...] = SUBJECTS, seed: int = 1) -> list[Row]:
        """Pictures of the subjects, two each, written beside the manifest."""
        return write_cells(self.folder, site, subjects, seed)

    def release(self, **plan: Any) -> str:
        """The first version, under a plan with these changes; its state."""
        from flows.requests import Release
        from flows.update import release

        options = small_options()
        options = replace(options, plan=replace(options.plan, **plan))
        backbone = write_backbone(self.folder / "backbone.safetensors")
        return release(self.workspace, "first", Release(ADAPTER, str(backbone), None, options.as_record())).state.value

    def learn(self, site: str, *, strategy: str | None = None, new_classes: bool = False) -> str:
        """Look at a site and learn any shift; what happened, in words."""
        from flows.run import LEARN_ON_ANY_SHIFT
        from flows.update import look_and_learn

        return look_and_learn(self.workspace, ADAPTER, site, strategy, LEARN_ON_ANY_SHIFT, new_classes=new_classes)

    def registry(self) -> Registry:
        """The workspace's registry, to be closed by the caller."""
        return open_registry(f"sqlite:///{self.workspace}/registry.db", f"{self.workspace}/artifacts")


def small_options() -> "AdapterOptions":
    """Seconds of training, and a gate that a handful of test images can satisfy."""
    from continual.domain.change_plan import ChangePlan
    from continual.learning import LoraShape, TrainingOptions
    from flows.updates.adapter_context import AdapterOptions

    return AdapterOptions(
        image_size=64,
        lora=LoraShape(rank=4, alpha=8, blocks=2),
        training=TrainingOptions(steps=40, batch_size=16, lora_rate=3e-3, head_rate=1e-2, views=1),
        plan=ChangePlan(
            replay_samples=30,
            past_site_margin=-0.30,
            past_site_drop=0.30,
            minimum_labelled=20,
            bootstrap_draws=200,
            permutations=199,
        ),
    )
