"""Box prompts as they are sent: in a query, or as a tensor; knows nothing of how a version is asked with them."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from api.problems import Problem
from continual.domain.adapters import AdapterVersion, asked_with_boxes
from continual.domain.boxes import ANY_CLASS, Box

MOST_BOXES = 255
"""A class has one box at most, and a mask 254 classes."""
WHOLE_IMAGE, REQUEST = "whole image", "request"
"""Where a class's box came from."""

Boxes = Mapping[str, Box]
"""Boxes of one image by class name or `ANY_CLASS`; empty where none was sent."""

EXPECTED = "send box=x0,y0,x1,y1 or box=class:x0,y0,x1,y1, edges in pixels of the image that is sent"


def boxes_of_query(sent: Sequence[str]) -> Boxes:
    """Boxes from `x0,y0,x1,y1` or `class:x0,y0,x1,y1`, one for a class; raises Problem 422 or PromptError."""
    if len(sent) > MOST_BOXES:
        raise _refused(f"{len(sent)} boxes were sent, at most {MOST_BOXES} are read; send one box for a class")
    found: dict[str, Box] = {}
    for text in sent:
        name, _, edges = text.rpartition(":")
        try:
            left, top, right, bottom = (float(edge) for edge in edges.split(","))
        except ValueError as error:
            raise _refused(f"a box has not the form of four numbers; {EXPECTED}") from error
        if name in found:
            raise _refused(f"2 boxes were sent for one class; a class has 1 box; {EXPECTED}")
        found[name] = Box(left, top, right, bottom)
    return found


def boxes_of_tensor(shape: Sequence[int], data: Sequence[Any], images: int, classes: Sequence[str]) -> list[Boxes]:
    """Boxes of each image from a tensor [image, 4], for every class, or [image, class, 4] in the order of `classes`.

    Raises Problem 422 for another shape, and PromptError for what is no box.
    """
    wanted = ([images, 4], [images, len(classes), 4])
    if list(shape) not in wanted:
        raise _refused(f"the box tensor has shape {list(shape)[:8]}, must be {wanted[0]} or {wanted[1]}; reshape it")
    try:
        edges = np.asarray(data, dtype=np.float64).reshape(images, -1, 4)
    except (ValueError, TypeError, OverflowError) as error:
        raise _refused(f"the box tensor's data do not fill shape {list(shape)} with numbers; correct them") from error
    names = classes if len(shape) == 3 else (ANY_CLASS,)
    return [
        {name: Box(*(float(edge) for edge in box)) for name, box in zip(names, image, strict=True)} for image in edges
    ]


def check_takes_boxes(version: AdapterVersion, boxes: Sequence[Boxes]) -> None:
    """Raise Problem 422 where boxes were sent to a version that is asked with nothing but the image."""
    if any(boxes) and not asked_with_boxes(version.record):
        raise _refused(
            f"{max(map(len, boxes))} boxes were sent, and version {version.number} of {version.adapter} takes 0; leave "
            "them out"
        )


def origins(version: AdapterVersion, boxes: Boxes) -> dict[str, str]:
    """Where each class's box came from; classes that were not looked for are left out."""
    if not boxes:
        return dict.fromkeys(version.classes, WHOLE_IMAGE)
    return {name: REQUEST for name in version.classes if name in boxes or ANY_CLASS in boxes}


def _refused(detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
