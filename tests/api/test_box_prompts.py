"""Boxes over both protocols: in the upload's own pixels, refused with the limit, and told where they came from."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from api import ServiceOptions
from continual.domain.adapters import Task, VersionDraft
from continual.domain.boxes import whole_image
from continual.domain.errors import PromptError

PREDICT = "/v1/adapters/organs/predict"
INFER = "/v2/models/organs/infer"
CLASSES = ("dark", "bright")
HEIGHT, WIDTH = 32, 48


@dataclass(frozen=True, slots=True)
class Filled:
    mask: np.ndarray
    confidence: float


class BoxFiller:
    """Fills every class's box with the class's number: where a box lands can be checked pixel by pixel."""

    task = Task.SEGMENTATION
    classes = CLASSES
    backbone_digest = "b" * 64

    def predict(self, pixels):
        mask = self.predict_mask(pixels).mask
        return {name: float(np.mean(mask == number)) for number, name in enumerate(CLASSES, start=1)}

    def predict_mask(self, pixels):
        return self.predict_boxed(pixels, {"": whole_image(*pixels.shape[:2])})

    def predict_boxed(self, pixels, boxes):
        mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
        if set(boxes) - {"", *CLASSES}:
            raise PromptError("no such class; it tells apart dark, bright")
        for number, name in enumerate(CLASSES, start=1):
            box = boxes.get(name, boxes.get(""))
            if box is not None:
                box.check_inside(*pixels.shape[:2])
                mask[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = number
        return Filled(mask, 0.5)


@pytest.fixture
def box_door(opened, bench):
    """A service whose champion of "organs" takes boxes."""
    draft = VersionDraft(
        adapter="organs",
        parent=None,
        strategy="naive",
        backbone_digest="b" * 64,
        trained_on=("north",),
        classes=CLASSES,
        metric="dice",
        metrics={"north": 0.9},
        record={"network": {"prompt": "box"}},
    )
    version = bench.registry.adapters.register(draft, {"record.json": b"{}"}, "test")
    bench.registry.adapters.promote("organs", version.number, bench.gate(True), "champion", "test", "the gate passed")
    return opened(ServiceOptions(predictor_loader=lambda _: BoxFiller()))


def png() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def predicted(door, *boxes: str):
    answer = door.http.post(PREDICT, params={"box": list(boxes)}, content=png())
    assert answer.status_code == 200, answer.text
    mask = Image.open(io.BytesIO(base64.b64decode(answer.json()["mask"])))
    return answer.json(), np.asarray(mask)


def expected(**boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for name, (left, top, right, bottom) in boxes.items():
        mask[top:bottom, left:right] = 1 + CLASSES.index(name)
    return mask


def test_a_box_for_each_class_lands_where_it_was_sent(box_door):
    body, mask = predicted(box_door, "dark:0,0,10,20", "bright:20,5,48,32")
    np.testing.assert_array_equal(mask, expected(dark=(0, 0, 10, 20), bright=(20, 5, 48, 32)))
    assert body["boxes"] == {"dark": "request", "bright": "request"}


def test_a_box_without_a_class_is_for_all_and_a_class_without_a_box_is_not_looked_for(box_door):
    body, mask = predicted(box_door, "1,2,7,9")
    np.testing.assert_array_equal(mask, expected(bright=(1, 2, 7, 9)))
    assert body["boxes"] == {"dark": "request", "bright": "request"}
    body, mask = predicted(box_door, "dark:1,2,7,9")
    np.testing.assert_array_equal(mask, expected(dark=(1, 2, 7, 9)))
    assert body["boxes"] == {"dark": "request"}


def test_without_a_box_the_whole_image_is_asked_for_and_the_answer_says_so(box_door):
    body, mask = predicted(box_door)
    np.testing.assert_array_equal(mask, expected(bright=(0, 0, WIDTH, HEIGHT)))
    assert body["boxes"] == {"dark": "whole image", "bright": "whole image"}
    answer = box_door.http.post(PREDICT, content=png(), headers={"accept": "image/png"})
    assert answer.headers["x-box-prompt"] == "whole image"
    answer = box_door.http.post(PREDICT, params={"box": "1,1,9,9"}, content=png(), headers={"accept": "image/png"})
    assert answer.headers["x-box-prompt"] == "request"


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ("0,0,49,32", "the box 0,0,49,32 reaches beyond the image of 48 x 32 pixels"),
        ("10,0,10,32", "must have 0 <= x0 < x1 and 0 <= y0 < y1"),
        ("-1,0,10,32", "must have 0 <= x0 < x1"),
        ("nan,0,10,32", "no finite number"),
        ("0,0,10", "not the form of four numbers; send box=x0,y0,x1,y1 or box=class:x0,y0,x1,y1"),
        ("left:a,b,c,d", "not the form of four numbers"),
        ("vessel:0,0,10,10", "it tells apart dark, bright"),
    ],
)
def test_what_is_no_box_of_the_image_is_refused_with_limit_and_remedy(box_door, box, told):
    answer = box_door.http.post(PREDICT, params={"box": box}, content=png())
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_two_boxes_of_one_class_and_too_many_boxes_are_refused(box_door):
    answer = box_door.http.post(PREDICT, params={"box": ["dark:0,0,1,1", "dark:0,0,2,2"]}, content=png())
    assert (answer.status_code, "a class has 1 box" in answer.json()["detail"]) == (422, True)
    answer = box_door.http.post(PREDICT, params={"box": ["0,0,1,1"] * 256}, content=png())
    assert (answer.status_code, "at most 255" in answer.json()["detail"]) == (422, True)


def test_a_version_that_takes_no_boxes_refuses_them(masks_door):
    answer = masks_door.http.post("/v1/adapters/vessels/predict", params={"box": "0,0,9,9"}, content=png())
    assert answer.status_code == 422
    assert "version 1 of vessels takes 0" in answer.json()["detail"]
    assert masks_door.http.post("/v1/adapters/vessels/predict", content=png()).json()["boxes"] is None


def infer(door, boxes=None, shape=None, **changed):
    data = [base64.b64encode(png()).decode()] * 2
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [2], "data": data}]
    if boxes is not None:
        inputs.append({"name": "box", "datatype": "FP32", "shape": shape, "data": boxes} | changed)
    return door.http.post(INFER, json={"inputs": inputs})


def test_open_inference_takes_a_box_per_image_or_per_image_and_class(box_door):
    answer = infer(box_door, [0, 0, 4, 4, 5, 5, 9, 9], [2, 4]).json()
    masks = np.array(answer["outputs"][0]["data"]).reshape(2, HEIGHT, WIDTH)
    np.testing.assert_array_equal(masks, [expected(bright=(0, 0, 4, 4)), expected(bright=(5, 5, 9, 9))])
    assert answer["parameters"]["boxes"] == "request"
    boxes = [[[0, 0, 4, 4], [5, 5, 9, 9]]] * 2
    answer = infer(box_door, boxes, [2, 2, 4]).json()
    masks = np.array(answer["outputs"][0]["data"]).reshape(2, HEIGHT, WIDTH)
    np.testing.assert_array_equal(masks, [expected(dark=(0, 0, 4, 4), bright=(5, 5, 9, 9))] * 2)


def test_open_inference_without_boxes_says_that_the_whole_image_was_asked_for(box_door):
    assert infer(box_door).json()["parameters"]["boxes"] == "whole image"


@pytest.mark.parametrize(
    ("boxes", "shape", "changed", "told"),
    [
        ([0, 0, 4, 4], [1, 4], {}, "shape [1, 4], must be [2, 4] or [2, 2, 4]"),
        ([0, 0, 4], [2, 4], {}, "do not fill shape [2, 4]"),
        ([0, 0, 4, 4, 0, 0, 99, 4], [2, 4], {}, "reaches beyond the image of 48 x 32 pixels"),
        ([0, 0, 4, 4] * 2, [2, 4], {"datatype": "BOOL"}, "datatype is 'BOOL'"),
        ([0, 0, 4, 4] * 2, [2, 4], {"name": "mask"}, "has 2 tensors of images, must have 1"),
    ],
)
def test_open_inference_refuses_what_is_no_box(box_door, boxes, shape, changed, told):
    answer = infer(box_door, boxes, shape, **changed)
    assert answer.status_code == 422
    assert told in answer.json()["error"]


def test_metadata_and_reference_tell_that_boxes_are_taken(box_door, masks_door):
    assert [each["name"] for each in box_door.http.get("/v2/models/organs").json()["inputs"]] == ["image", "box"]
    assert [each["name"] for each in box_door.http.get("/v2/models/vessels").json()["inputs"]] == ["image"]
    route = box_door.http.get("/openapi.json").json()["paths"]["/v1/adapters/{name}/predict"]["post"]
    (told,) = [each for each in route["parameters"] if each["name"] == "box"]
    assert "x0,y0,x1,y1" in told["description"]
    assert told["required"] is False
