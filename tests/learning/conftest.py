"""The real foundation model, where this machine has it."""

import os
from pathlib import Path

import pytest

from continual.learning import BackboneWeights, build_network, resolve_backbone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def real_weights() -> BackboneWeights:
    """DINOv2 small; CONTINUAL_TEST_WEIGHTS names the folder of backbones."""
    folder = Path(os.environ.get("CONTINUAL_TEST_WEIGHTS") or ROOT.parent / "shared" / "weights")
    path = folder / "dinov2_small" / "model.safetensors"
    if not path.is_file():
        pytest.skip("no real backbone: dinov2_small/model.safetensors is not under CONTINUAL_TEST_WEIGHTS")
    return resolve_backbone(str(path))


@pytest.fixture
def real_network(real_weights):
    return build_network(real_weights)
