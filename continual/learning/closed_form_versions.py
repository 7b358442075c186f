"""A closed-form version's folder as bytes: readout, projection, sums, golden outputs, record and model card.

Loading recomputes the golden outputs, as for LoRA versions. Knows safetensors; knows nothing of where bytes are kept.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load, save

from continual.domain.adapters import CLOSED_FORM
from continual.domain.errors import AdapterMismatchError
from continual.domain.metrics import BALANCED_ACCURACY
from continual.learning.adapter_files import (
    CARD,
    GOLDEN_OUTPUTS,
    RECORD,
    check_backbone,
    check_golden,
    golden_images,
    stored_temperature,
)
from continual.learning.backbone_weights import BackboneWeights
from continual.learning.backbones import build_network
from continual.learning.closed_form import CLOSED_FORMS, READOUTS, ClosedForm, Readout
from continual.learning.closed_form_network import ClosedFormNetwork
from continual.learning.devices import full_precision
from continual.learning.model_card import score_table

READOUT_WEIGHTS = "closed_form.safetensors"
PROJECTION_WEIGHTS = "projection.safetensors"
"""A file of its own: every version of a lineage has the same one, and the artifact store keeps it once."""
SUMS = "sums.safetensors"
PROJECTION = "projection"
SAME_FEATURES = 1e-2
"""Largest difference of golden features, as a share of the largest value, that rounding on another machine explains."""
SAME_READOUT = 1e-3
"""Largest difference, as a share of the largest value, that solving the same sums on another machine explains."""


def write_closed_form(
    network: ClosedFormNetwork, sums: Mapping[str, np.ndarray], record: Mapping[str, Any]
) -> dict[str, bytes]:
    """The version's folder, file name to bytes; `record` must hold what `closed_form_record` gives, under "network"."""
    arrays = network.readout.arrays()
    projection = arrays.pop(PROJECTION, None)
    golden = _golden_features(network, record["network"]["image_size"])
    files = {
        READOUT_WEIGHTS: _saved(arrays),
        SUMS: _saved(sums),
        GOLDEN_OUTPUTS: _saved({"features": golden, "scores": network.readout.scores(golden)}),
        RECORD: json.dumps(record, indent=2, sort_keys=True, allow_nan=False).encode(),
        CARD: closed_form_card(record).encode(),
    }
    return files if projection is None else files | {PROJECTION_WEIGHTS: _saved({PROJECTION: projection})}


def closed_form_record(network: ClosedFormNetwork, weights: BackboneWeights, image_size: int) -> dict[str, Any]:
    """What loading needs to rebuild the network: plain JSON."""
    return {
        "kind": CLOSED_FORM,
        "method": network.method,
        **network.readout.described(),
        "backbone": weights.name,
        "backbone_digest": weights.digest,
        "image_size": image_size,
        "classes": list(network.classes),
        "temperature": network.temperature,
        "trainable_parameters": 0,
        "trainable_share": 0.0,
    }


def read_closed_form(weights: BackboneWeights, files: Mapping[str, bytes], device: torch.device) -> ClosedFormNetwork:
    """The network of a stored closed-form version, proved alive.

    Raises AdapterMismatchError when the backbone is another, a file is missing or damaged, the method is unknown, the
    temperature is out of bounds, or golden outputs differ.
    """
    absent = {READOUT_WEIGHTS, GOLDEN_OUTPUTS, RECORD} - set(files)
    if absent:
        raise AdapterMismatchError(f"the version lacks {sorted(absent)}; restore its folder from the artifact store")
    shape = json.loads(files[RECORD])["network"]
    check_backbone(weights, shape)
    network = ClosedFormNetwork(
        build_network(weights).to(device), shape["method"], shape["classes"], _readout(shape, files)
    )
    network.temperature = stored_temperature(shape)
    _prove_alive(network, _loaded(files, GOLDEN_OUTPUTS), shape["image_size"])
    return network


def read_closed_form_learner(files: Mapping[str, bytes]) -> ClosedForm:
    """The closed form of a stored version with its sums, ready to go on learning; no image is asked for.

    Raises AdapterMismatchError when files are missing, or when the sums do not give the stored readout.
    """
    shape = json.loads(files[RECORD])["network"]
    readout, sums = _readout(shape, files), _loaded(files, SUMS)
    # Width and seed are for a beginning; everything is taken from the files.
    learner = CLOSED_FORMS[shape["method"]](1, len(shape["classes"]), 0)
    try:
        learner.resume(sums, readout)
        found = learner.readout().arrays()
    except (KeyError, ValueError) as error:
        raise AdapterMismatchError(
            f"{SUMS} does not fit method {shape['method']!r}; restore the version's files"
        ) from error
    for name, expected in readout.arrays().items():
        if not _near(found[name], expected, SAME_READOUT):
            raise AdapterMismatchError(f"{SUMS} gives other {name} than {READOUT_WEIGHTS}; restore the version's files")
    return learner


def closed_form_card(record: Mapping[str, Any]) -> str:
    """The model card (Mitchell et al. 2019); every figure in it comes from `record`."""
    network, gate = record["network"], record.get("gate", {})
    solved = (
        f", ridge strength {network['ridge']:g} on {network['projected']} random features" if "ridge" in network else ""
    )
    return f"""---
library_name: continual
base_model: {network["backbone"]}
tags: [medical-imaging, continual-learning, closed-form]
---
# {record.get("adapter", "adapter")}

Closed form `{network["method"]}`{solved}, on the frozen features (class token and mean patch token) of
`{network["backbone"]}` (SHA-256 `{network["backbone_digest"]}`), images of
{network["image_size"]} x {network["image_size"]} pixels. No weight of the network was trained.

- Classes: {", ".join(network["classes"])}
- Learnt, in this order: {", ".join(record.get("trained_on", []))}
- Strategy: {record.get("strategy", "")}; parent version: {record.get("parent") or "none"}
- Going on from it needs `{SUMS}` and no training image of the past
- Temperature of its probabilities: {network["temperature"]:.3f}
- Gate: {"accepted" if gate.get("accepted") else "not accepted"}

{score_table(record, BALANCED_ACCURACY)}

For research and local evaluation. Not a medical device; clinical use needs the site's own acceptance.
"""


def _readout(shape: Mapping[str, Any], files: Mapping[str, bytes]) -> Readout:
    """The stored readout; AdapterMismatchError where it is not one of the method and classes that the record names."""
    method = shape["method"]
    if method not in READOUTS:
        raise AdapterMismatchError(
            f"the version's method {method!r} is unknown, known: {', '.join(READOUTS)}; load it with a newer release"
        )
    arrays = _loaded(files, READOUT_WEIGHTS)
    if PROJECTION_WEIGHTS in files:
        arrays |= _loaded(files, PROJECTION_WEIGHTS)
    try:
        return READOUTS[method](arrays)
    except (KeyError, IndexError) as error:
        raise AdapterMismatchError(
            f"the version lacks {error.args[0]!r} of method {method!r}; "
            f"restore {READOUT_WEIGHTS} and {PROJECTION_WEIGHTS}"
        ) from error


def _golden_features(network: ClosedFormNetwork, image_size: int) -> Float[np.ndarray, "image feature"]:
    with full_precision():
        return network.image_features(golden_images(image_size))


def _prove_alive(network: ClosedFormNetwork, golden: Mapping[str, np.ndarray], image_size: int) -> None:
    """From pixels to features, and from the stored features to scores.

    In two steps, for a weak ridge may turn another machine's rounding of the features into any difference of scores.
    """
    features, expected = golden["features"], torch.from_numpy(golden["scores"])
    found = _golden_features(network, image_size)
    if not _near(found, features, SAME_FEATURES):
        raise AdapterMismatchError(
            "golden outputs differ by more than rounding: the backbone gives other features than the version was made "
            "on; restore the version's files and use the library versions in its record"
        )
    try:
        scores = torch.from_numpy(network.readout.scores(features))
    except ValueError as error:
        raise AdapterMismatchError(
            "the version's weights do not fit its backbone's features; "
            f"restore {READOUT_WEIGHTS} and {PROJECTION_WEIGHTS}"
        ) from error
    if not scores.shape[1] == expected.shape[1] == len(network.classes):
        raise AdapterMismatchError(
            f"the version's weights score {scores.shape[1]} classes, its record names {len(network.classes)}; "
            f"restore {READOUT_WEIGHTS}"
        )
    check_golden(scores, expected)


def _near(found: np.ndarray, expected: np.ndarray, share: float) -> bool:
    if found.shape != expected.shape:
        return False
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return bool(np.abs(found - expected).max() <= share * max(np.abs(expected).max(), 1e-12))


def _loaded(files: Mapping[str, bytes], name: str) -> dict[str, np.ndarray]:
    if name not in files:
        raise AdapterMismatchError(f"the version lacks {name!r}; restore its folder from the artifact store")
    try:
        arrays: dict[str, np.ndarray] = load(files[name])
    except SafetensorError as error:
        raise AdapterMismatchError(f"{name} is damaged: {str(error)[:200]}; restore the version's files") from error
    return arrays


def _saved(arrays: Mapping[str, np.ndarray]) -> bytes:
    data: bytes = save({name: np.ascontiguousarray(values) for name, values in arrays.items()})
    return data
