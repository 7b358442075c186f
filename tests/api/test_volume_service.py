"""Real versions of volumes, a UNETR's and a 3D ResNet's, loaded and asked as the server does it."""

import base64
import gzip

import nibabel as nib
import numpy as np
import pytest

from api.server import options_of
from continual.domain.adapters import Task, VersionDraft
from continual.imaging import decode_volume
from continual.settings import load_settings

SIDE = 16
SPACING = (1.0, 1.0, 2.0)
SMALL = {
    "unetr": {"feature_size": 4, "hidden_size": 16, "mlp_dim": 32, "num_heads": 2},
    "resnet10": {"conv1_t_size": 3, "widen_factor": 0.125, "norm": ["group", {"num_groups": 4}]},
}
CLASSES = {"unetr": ("body",), "resnet10": ("low", "high")}


def scan(seed, high):
    """A bright body in the lower or upper half of noise, canonical order; and where it is."""
    random = np.random.default_rng(seed)
    body = np.zeros((SIDE, SIDE, SIDE), dtype=np.uint8)
    body[3:9, 4:12, (9 if high else 2) : (14 if high else 7)] = 1
    return (100 + 80 * body + random.normal(scale=5, size=body.shape)).astype(np.float32), body


def nifti(voxels, axes):
    """The volume as a gzipped file along the axes named."""
    image = nib.Nifti1Image(voxels, np.diag([*SPACING, 1.0]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    return gzip.compress(image.as_reoriented(turn).to_bytes())


@pytest.fixture(scope="module", params=["unetr", "resnet10"])
def made(request):
    """Base model, an adapter's files on it and their record."""
    from continual.learning import (
        BaseModel,
        BaseTraining,
        LoraShape,
        Volume,
        VolumeGrid,
        network_record,
        train_volume_classifier,
        train_volume_segmenter,
        usual_blocks,
        volume_network,
        weights_from_bytes,
        write_adapter,
    )

    grid = VolumeGrid((1.0, 1.0, 2.0), (SIDE, SIDE, SIDE))
    model, training = BaseModel(request.param, grid, SMALL[request.param]), BaseTraining(30, 1)
    scenes = [scan(seed, seed % 2) for seed in range(8)]
    volumes = [Volume(values, SPACING) for values, _ in scenes]
    if request.param == "unetr":
        pairs = [(volume, body) for volume, (_, body) in zip(volumes, scenes, strict=True)]
        data = train_volume_segmenter(model, pairs, 1, training, lambda _n: None)
    else:
        data = train_volume_classifier(model, volumes, [seed % 2 for seed in range(8)], training, lambda _n: None)
    weights = weights_from_bytes(data)
    network = volume_network(weights, LoraShape(blocks=usual_blocks(weights)), CLASSES[request.param], grid)
    record = {"network": network_record(network, weights, 0), "gate": {"accepted": True}}
    return request.param, weights, record, write_adapter(network, {}, record)


@pytest.fixture
def served(made, bench, opened, tmp_path):
    """The version as champion, behind the loader that `continual serve` uses."""
    architecture, weights, record, files = made
    draft = VersionDraft(
        adapter="bodies",
        parent=None,
        strategy="naive",
        backbone_digest=weights.digest,
        trained_on=("north",),
        classes=CLASSES[architecture],
        metric="dice" if architecture == "unetr" else "balanced_accuracy",
        metrics={"north": 0.9},
        record=record,
    )
    bench.registry.artifacts.put(weights.data)
    version = bench.registry.adapters.register(draft, files, "test")
    bench.registry.adapters.promote("bodies", version.number, bench.gate(True), "champion", "test", "the gate passed")
    return opened(options_of(load_settings(tmp_path), bench.registry))


@pytest.fixture
def predictor(made):
    from continual.learning import load_predictor

    _, weights, _, files = made
    return load_predictor(weights.data, files)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR"])
def test_the_service_says_of_a_file_along_any_axes_what_the_version_says(served, predictor, axes):
    values, body = scan(20, high=True)
    answer = served.http.post("/v1/adapters/bodies/predict", content=nifti(values, axes))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    if predictor.task is Task.CLASSIFICATION:
        assert said["scores"] == pytest.approx(predictor.predict(values, SPACING), abs=1e-6)
        return
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(said["mask"])))
    assert "".join(nib.aff2axcodes(mask.affine)) == axes
    expected = predictor.predict_mask(values, SPACING)
    np.testing.assert_array_equal(nib.as_closest_canonical(mask).get_fdata(), expected.mask)
    assert said["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
    assert said["classes"][1]["volume_ml"] == pytest.approx(expected.mask.sum() * 2 / 1000)


def test_the_open_inference_protocol_tells_of_volumes(served, predictor):
    values, _ = scan(21, high=False)
    data = [base64.b64encode(nifti(values, "LPS")).decode()]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    answer = served.http.post("/v2/models/bodies/infer", json={"inputs": [tensor]})
    outputs = {each["name"]: each for each in answer.json()["outputs"]}
    if predictor.task is Task.CLASSIFICATION:
        assert outputs["scores"]["data"] == pytest.approx(list(predictor.predict(values, SPACING).values()), abs=1e-5)
    else:
        mask = np.array(outputs["mask"]["data"]).reshape(outputs["mask"]["shape"][1:])
        expected = predictor.predict_mask(values, SPACING).mask
        np.testing.assert_array_equal(mask, decode_volume(nifti(values, "LPS")).grid.from_canonical(expected))


def test_a_spacing_that_no_version_can_resample_is_the_senders_to_mend(served):
    values, _ = scan(22, high=True)
    far = nib.Nifti1Image(values, np.diag([90.0, 90.0, 90.0, 1.0])).to_bytes()
    answer = served.http.post("/v1/adapters/bodies/predict", content=far)
    assert answer.status_code == 422, answer.text
    assert "becomes 1440x1440x720 at this spacing" in answer.json()["detail"]
