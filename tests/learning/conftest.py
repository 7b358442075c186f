"""The real foundation model, where this machine has it."""

import os
from pathlib import Path

import pytest

from continual.learning import BackboneWeights, build_network, resolve_backbone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def real_weights() -> BackboneWeights:
    """DINOv2 small; CONTINUAL_TEST_WEIGHTS names its safetensors file."""
    default = ROOT.parent / "shared" / "weights" / "dinov2_small" / "model.safetensors"
    path = Path(os.environ.get("CONTINUAL_TEST_WEIGHTS") or default)
    if not path.is_file():
        pytest.skip("no real backbone: CONTINUAL_TEST_WEIGHTS does not name a safetensors file of DINOv2 small")
    return resolve_backbone(str(path))


@pytest.fixture
def real_network(real_weights):
    return build_network(real_weights)
