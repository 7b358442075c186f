"""Volumes over both protocols: NIfTI in, and out a mask on the upload's own grid, millilitres, scores or a refusal."""

import base64
import dataclasses
import gzip
from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from api import ServiceOptions, inference_protocol
from api.server import options_of
from continual.domain.adapters import Task
from continual.domain.drift import Action, Verdict
from continual.domain.errors import LearningError
from continual.settings import load_settings

PREDICT = "/v1/adapters/cords/predict"
INFER = "/v2/models/cords/infer"
VOLUME = {"volume": {"spacing_mm": [1, 1, 3], "size": [16, 16, 8]}}
LPS = np.array([[0, -0.5, 0, 10], [-2, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
"""An affine whose first axis goes to the back in steps of 2 mm and whose second goes left in steps of 0.5 mm."""


@dataclass(frozen=True, slots=True)
class Answer:
    mask: NDArray[np.uint8]
    confidence: float


class BackPredictor:
    """Marks bright voxels, class 1 in the patient's front half and class 2 behind: orientation and spacing count."""

    classes = ("dark", "bright")
    backbone_digest = "b" * 64

    def __init__(self, task: Task = Task.SEGMENTATION) -> None:
        self.task = task

    def predict_mask(self, values: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> Answer:
        if spacing_mm != (0.5, 2, 3):
            raise LearningError(f"the volume's spacing is {spacing_mm} mm; resample it")
        front = np.arange(values.shape[1])[None, :, None] >= values.shape[1] // 2
        return Answer(np.where(values > 500, np.where(front, 1, 2), 0).astype(np.uint8), 0.75)

    def predict(self, values: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> Mapping[str, float]:
        bright = float(np.mean(self.predict_mask(values, spacing_mm).mask > 0))
        return {"dark": 1 - bright, "bright": bright}


def scan() -> np.ndarray:
    """18 steps to the back, 20 to the left, 6 up; bright in the last 5 steps to the back and the first one."""
    voxels = np.random.default_rng(2).integers(0, 400, size=(18, 20, 6)).astype(np.int16)
    voxels[13:, 4:9, :3] = 900
    voxels[0, 2, 5] = 900
    return voxels


def seen() -> np.ndarray:
    """What `BackPredictor` says of `scan()`, in the file's own order."""
    mask = np.zeros((18, 20, 6), dtype=np.uint8)
    mask[13:, 4:9, :3] = 2
    mask[0, 2, 5] = 1
    return mask


def nifti(voxels: np.ndarray, affine: np.ndarray = LPS) -> bytes:
    image = nib.Nifti1Image(voxels, affine)
    image.header["descrip"] = b"Doe^Jane"
    data: bytes = image.to_bytes()
    return data


def read(data: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(data))


@pytest.fixture
def cords(opened, bench):
    """A service whose champion of the adapter "cords" segments volumes."""
    bench.champion("cords", metric="dice", network=VOLUME)
    return opened(ServiceOptions(predictor_loader=lambda _: BackPredictor()))


def test_predict_answers_millilitres_and_the_mask_on_the_uploads_own_grid(cords):
    body = cords.http.post(PREDICT, content=gzip.compress(nifti(scan()))).json()
    assert (body["shape"], body["spacing_mm"], body["confidence"]) == ([18, 20, 6], [0.5, 2, 3], 0.75)
    assert [(each["number"], each["name"]) for each in body["classes"]] == [
        (0, "background"),
        (1, "dark"),
        (2, "bright"),
    ]
    # 75 voxels and 1 voxel of 0.5 x 2 x 3 mm.
    assert [each["volume_ml"] for each in body["classes"][1:]] == pytest.approx([0.003, 0.225])
    assert sum(each["share"] for each in body["classes"]) == pytest.approx(1)
    mask = read(base64.b64decode(body["mask"]))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), seen())
    np.testing.assert_allclose(mask.affine, LPS, atol=1e-5)


def test_predict_gives_the_nifti_itself_to_who_asks_for_it(cords, bench):
    bench.look("north", Verdict.DATA_FAULT, Action.QUARANTINE)
    files = {"file": ("DOE_JANE.nii", nifti(scan()))}
    answer = cords.http.post(PREDICT, params={"site": "north"}, files=files, headers={"accept": "application/gzip"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/gzip")
    assert (answer.headers["x-adapter-version"], answer.headers["x-drift-verdict"]) == ("1", "data_fault")
    np.testing.assert_array_equal(np.asarray(read(answer.content).dataobj), seen())
    assert b"Doe" not in gzip.decompress(answer.content)


@pytest.mark.parametrize(("asked", "remedy"), [("image/png", "application/gzip or application/json")])
def test_a_picture_of_a_volume_is_not_given(cords, asked, remedy):
    answer = cords.http.post(PREDICT, content=nifti(scan()), headers={"accept": asked})
    assert answer.status_code == 406
    assert answer.json()["detail"] == f"version 1 of cords gives masks of volumes; ask with Accept: {remedy}"


def test_a_version_that_classifies_volumes_answers_with_scores(opened, bench):
    bench.champion("cords", network=VOLUME)
    door = opened(ServiceOptions(predictor_loader=lambda _: BackPredictor(Task.CLASSIFICATION)))
    body = door.http.post(PREDICT, content=nifti(scan())).json()
    assert (body["label"], body["scores"]["bright"]) == ("dark", pytest.approx(76 / scan().size))
    refused = door.http.post(PREDICT, content=nifti(scan()), headers={"accept": "application/gzip"})
    assert refused.status_code == 406
    answer = door.http.post(INFER, json=tensor(nifti(scan()))).json()
    assert answer["outputs"][1]["data"] == ["dark"]


def tensor(*files: bytes) -> dict:
    data = [base64.b64encode(each).decode() for each in files]
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(files)], "data": data}]}


def test_open_inference_protocol_gives_class_numbers_in_the_files_own_order(cords):
    mask, share = cords.http.post(INFER, json=tensor(nifti(scan()), nifti(scan()))).json()["outputs"]
    assert (mask["datatype"], mask["shape"]) == ("UINT8", [2, 18, 20, 6])
    np.testing.assert_array_equal(np.array(mask["data"]).reshape(mask["shape"]), [seen(), seen()])
    assert share["data"][:3] == pytest.approx([1 - 76 / 2160, 1 / 2160, 75 / 2160])
    outputs = cords.http.get("/v2/models/cords").json()["outputs"]
    assert outputs[0] == {"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1, -1]}


def test_more_voxels_than_json_can_carry_are_refused_with_the_way_round(cords, monkeypatch):
    monkeypatch.setattr(inference_protocol, "MASK_PIXELS_PER_CALL", scan().size - 1)
    answer = cords.http.post(INFER, json=tensor(nifti(scan())))
    assert answer.status_code == 413
    assert "Accept: application/gzip" in answer.json()["detail"]


def test_a_picture_for_a_version_of_volumes_and_a_volume_for_one_of_pictures_are_refused(cords, bench):
    answer = cords.http.post(PREDICT, content=bench.png())
    assert answer.status_code == 422
    assert "looks at volumes, a picture was sent; send NIfTI" in answer.json()["detail"]
    pixels = {"name": "image", "datatype": "UINT8", "shape": [16, 16, 3], "data": list(range(256)) * 3}
    assert "a picture was sent" in cords.http.post(INFER, json={"inputs": [pixels]}).json()["detail"]


def test_a_volume_for_a_version_of_pictures_is_refused(door, bench):
    bench.champion("wbc")
    answer = door.http.post("/v1/adapters/wbc/predict", content=nifti(scan()))
    assert answer.status_code == 422
    assert "looks at pictures, a volume was sent; send PNG, JPEG or DICOM" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (gzip.compress(nifti(scan()))[:-20], "UnreadableImageError", "cut short"),
        (nifti(np.stack([scan()] * 2, axis=-1)), "UnreadableImageError", "send one time point"),
        (nifti(scan() * 0), "QualityError", "is blank"),
        (gzip.compress(nifti(scan()) + bytes(2**22)), "UnreadableImageError", "holds more bytes"),
    ],
)
def test_a_volume_that_could_not_be_taken_in_is_not_predicted_on_either(cords, data, kind, reason):
    answer = cords.http.post(PREDICT, content=data)
    assert (answer.status_code, answer.json()["error_type"]) == (422, kind)
    assert reason in answer.json()["detail"]


def test_a_volume_that_the_version_cannot_look_at_is_the_senders_to_mend(cords):
    answer = cords.http.post(PREDICT, content=nifti(scan(), np.eye(4)))
    assert answer.status_code == 422
    assert "the volume's spacing is (1.0, 1.0, 1.0) mm; resample it" in answer.json()["detail"]


def test_an_upload_above_the_limit_names_the_setting_that_raises_it(opened, bench, monkeypatch):
    bench.champion("cords", metric="dice", network=VOLUME)
    large = nifti(np.random.default_rng(0).integers(0, 900, size=(96, 96, 64)).astype(np.int16))
    for limit_mib, expected in ((1, 413), (2, 200)):
        monkeypatch.setenv("CONTINUAL_UPLOAD_MIB", str(limit_mib))
        options = dataclasses.replace(
            options_of(load_settings(), bench.registry), predictor_loader=lambda _: BackPredictor(), preload=False
        )
        answer = opened(options).http.post(PREDICT, content=large)
        assert answer.status_code == expected
        assert ("CONTINUAL_UPLOAD_MIB" in answer.text) is (expected == 413)
