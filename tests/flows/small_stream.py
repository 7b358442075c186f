"""Two small sites of made-up stained cells as PNG files with a manifest, and a tiny backbone with random weights.

The site's light differs, so that a model of the first site mistakes the second; a model of both can learn both.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

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
        label = sorted(COLOURS)[number % 2]
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


def write_backbone(path: Path, **untrue: int) -> Path:
    """A vision transformer that never saw an image, in the format that `pretrain_backbone` writes.

    `untrue` makes the file tell another architecture than the one its weights have.
    """
    import torch
    from safetensors.torch import save
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(3)
    network = VisionTransformer(**ARCHITECTURE, num_classes=0, dynamic_img_size=True)
    state = {name: weight.contiguous() for name, weight in network.state_dict().items()}
    described = json.dumps({"name": "small_vision_transformer", "arguments": ARCHITECTURE | untrue})
    path.write_bytes(save(state, metadata={"continual_backbone": described}))
    return path
