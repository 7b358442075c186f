"""Masks over both protocols: the right class for every pixel, as JSON, as PNG and as a tensor."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from api import inference_protocol
from api.masks import PNG, prefers
from continual.domain.drift import Action, Verdict
from continual.domain.samples import CleanImage

PREDICT = "/v1/adapters/vessels/predict"
INFER = "/v2/models/vessels/infer"
SEEN = np.array([[0, 1, 2], [2, 2, 2]], dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
"""The mask of `picture()`, 32 x 48: its blocks are dark, grey and bright."""


def picture() -> np.ndarray:
    pixels = np.array([30, 120, 220], dtype=np.uint8)[SEEN]
    return np.repeat(pixels[..., np.newaxis], 3, axis=2)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def base64_tensor(*images: np.ndarray) -> dict:
    data = [base64.b64encode(png(image)).decode() for image in images]
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}]}


def test_predict_answers_class_names_shares_and_the_mask_in_base64(masks_door):
    body = masks_door.http.post(PREDICT, content=png(picture())).json()
    assert body["classes"] == [
        {"number": 0, "name": "background", "share": pytest.approx(1 / 6)},
        {"number": 1, "name": "dark", "share": pytest.approx(1 / 6)},
        {"number": 2, "name": "bright", "share": pytest.approx(4 / 6)},
    ]
    assert (body["height"], body["width"], body["confidence"]) == (32, 48, 0.75)
    assert (body["adapter"], body["version"], body["backbone_digest"]) == ("vessels", 1, "b" * 64)
    assert body["drift"] is None
    mask = Image.open(io.BytesIO(base64.b64decode(body["mask"])))
    assert (mask.format, mask.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(mask), SEEN)


def test_predict_gives_the_png_itself_to_who_asks_for_it(masks_door, bench):
    bench.look("north", Verdict.DATA_FAULT, Action.QUARANTINE)
    answer = masks_door.http.post(
        PREDICT, params={"site": "north"}, content=png(picture()), headers={"accept": "image/png"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert (answer.headers["x-adapter-version"], answer.headers["x-drift-verdict"]) == ("1", "data_fault")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), SEEN)


def test_a_png_of_a_version_that_gives_scores_is_406_and_names_what_to_ask_for(door, bench):
    bench.champion("wbc")
    answer = door.http.post("/v1/adapters/wbc/predict", content=bench.png(), headers={"accept": "image/png"})
    assert answer.status_code == 406
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("accept", "png_wanted"),
    [
        ("", False),
        ("*/*", False),
        ("image/png", True),
        ("IMAGE/PNG", True),
        ("image/*", True),
        ("image/png, */*;q=0.1", True),
        ("application/json, image/png", False),
        ("application/json;q=0.5, image/png;q=0.8", True),
        ("image/png;q=0, */*", False),
        ("text/html", False),
        ("image/png;q=nonsense", False),
    ],
)
def test_a_png_is_given_only_where_it_is_preferred_to_json(accept, png_wanted):
    assert prefers(accept, PNG) is png_wanted


def test_a_blank_image_is_refused_before_it_is_segmented(masks_door):
    answer = masks_door.http.post(PREDICT, content=png(np.full((32, 32, 3), 90, np.uint8)))
    assert (answer.status_code, answer.json()["error_type"]) == (422, "QualityError")


def test_open_inference_protocol_gives_class_numbers_as_a_tensor(masks_door):
    answer = masks_door.http.post(INFER, json={"id": "7", **base64_tensor(picture(), picture()[::-1])}).json()
    mask, share = answer["outputs"]
    assert (answer["id"], answer["model_version"], answer["parameters"]["classes"]) == ("7", "1", "dark,bright")
    assert (mask["name"], mask["datatype"], mask["shape"]) == ("mask", "UINT8", [2, 32, 48])
    np.testing.assert_array_equal(np.array(mask["data"]).reshape(mask["shape"]), [SEEN, SEEN[::-1]])
    assert (share["name"], share["shape"]) == ("share", [2, 3])
    assert share["data"] == pytest.approx([1 / 6, 1 / 6, 4 / 6] * 2)


def test_metadata_tells_what_a_version_that_segments_puts_out(masks_door):
    outputs = masks_door.http.get("/v2/models/vessels").json()["outputs"]
    assert outputs == [
        {"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]},
        {"name": "share", "datatype": "FP32", "shape": [-1, 3]},
    ]


def test_images_of_two_sizes_cannot_share_one_tensor(masks_door):
    answer = masks_door.http.post(INFER, json=base64_tensor(picture(), picture()[:, :32]))
    assert answer.status_code == 422
    assert "2 sizes" in answer.json()["detail"]


def test_more_pixels_than_json_can_carry_are_refused_with_the_way_round(masks_door, monkeypatch):
    monkeypatch.setattr(inference_protocol, "MASK_PIXELS_PER_CALL", 2 * SEEN.size - 1)
    assert masks_door.http.post(INFER, json=base64_tensor(picture())).status_code == 200
    answer = masks_door.http.post(INFER, json=base64_tensor(picture(), picture()))
    assert answer.status_code == 413
    assert "Accept: image/png" in answer.json()["detail"]


def test_sites_and_dashboard_count_masks_as_labels_of_their_own(masks_door, bench):
    image = CleanImage("d" * 64, "north", "0" * 16, None, png(picture()), 48, 32)
    masked = dataclasses.replace(image, digest="e" * 64, subject="1" * 16, mask_data=b"mask")
    labelled = dataclasses.replace(image, digest="f" * 64, subject="2" * 16, label="dark")
    bench.registry.samples.record("north", [image, masked, labelled], [], "test")
    (site,) = masks_door.http.get("/v1/sites").json()
    assert (site["samples"], site["labelled"], site["masked"]) == (3, 1, 1)
    page = masks_door.http.get("/dashboard").text
    assert "<dt>Unlabelled</dt><dd>1</dd>" in page
    assert "Dice of each version" in page


def test_the_reference_describes_both_kinds_of_answer(masks_door):
    schema = masks_door.http.get("/openapi.json").json()
    content = schema["paths"]["/v1/adapters/{name}/predict"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "image/png", "application/gzip"}
    answers = {entry["$ref"].rsplit("/", 1)[1] for entry in content["application/json"]["schema"]["anyOf"]}
    assert answers == {"PredictionAnswer", "MaskPrediction", "VolumeMaskPrediction"}
