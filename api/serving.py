"""One desk that loads versions and predicts, one image at a time; knows nothing of HTTP or of models inside."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from api.boxes import Boxes, check_takes_boxes
from api.options import (
    AnyPredictor,
    MaskAnswer,
    MaskPredictor,
    Predictor,
    VolumeMaskPredictor,
    VolumePredictor,
    takes_boxes,
)
from api.problems import Problem
from continual.domain.adapters import AdapterState, AdapterVersion, Task, of_volumes
from continual.domain.digests import sha256_pixels, sha256_volume
from continual.domain.errors import ContinualError, LearningError, NotAcceptedError
from registry import Registry

if TYPE_CHECKING:
    from continual.imaging import DecodedVolume, VoxelGrid

LOADED_VERSIONS = 4
"""Predictors kept in memory: a champion, its challenger and the two before them."""

Pixels = NDArray[np.uint8]
Image: TypeAlias = "Pixels | DecodedVolume"
BoxSource = Callable[[AdapterVersion], Sequence[Boxes]]
"""The boxes of each image, once it is known which version is asked; none where no image has any."""
Read = TypeVar("Read")
LOG = logging.getLogger(__name__)


def no_boxes(_version: AdapterVersion) -> tuple[Boxes, ...]:
    """Nothing is asked for but the image."""
    return ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one version said about some images: the probability per class in [0, 1], or a mask, of each.

    `task` says which of `scores` and `masks` is filled; beside scores `digests` name the content of each picture.
    `boxes` are those that were sent with each image. Masks of volumes are in canonical axes, and `grids` holds how each
    file had its voxels; it is empty for pictures.
    """

    version: AdapterVersion
    backbone_digest: str
    task: Task
    scores: tuple[Mapping[str, float], ...] = ()
    masks: tuple[MaskAnswer, ...] = ()
    grids: "tuple[VoxelGrid, ...]" = ()
    boxes: tuple[Boxes, ...] = ()
    digests: tuple[str, ...] = ()


class PredictionDesk:
    """Holds the loaded predictors and the one thread they may be used on.

    PEFT's layers are not thread-safe, so decoding, loading and predicting queue for a single thread; that also bounds
    the memory that images take once decoded.
    """

    def __init__(self, registry: Registry, loader: Callable[[AdapterVersion], AnyPredictor], max_waiting: int) -> None:
        self._registry = registry
        self._loader = loader
        self._max_waiting = max_waiting
        self._waiting = 0
        self._loaded: OrderedDict[tuple[str, int], AnyPredictor] = OrderedDict()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict")

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A place in the queue, taken before the upload is read; raises Problem 503 when all are taken."""
        if self._waiting >= self._max_waiting:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._waiting} predictions are waiting, the limit is {self._max_waiting}; try again in a second",
                {"retry-after": "1"},
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def predict(
        self, adapter: str, number: int | None, images: Sequence[Callable[[], Image]], boxes: BoxSource = no_boxes
    ) -> Prediction:
        """Answers of version `number` (None: the champion); each image is decoded on the desk's thread.

        `boxes` gives every image's for that version. Raises NotFoundError, NotAcceptedError, AdapterMismatchError,
        PromptError, Problem 422 for boxes that the version does not take, or whatever an image's decoding raises.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._predict, adapter, number, images, boxes)

    async def read(self, reading: Callable[[], Read]) -> Read:
        """What reading a request gives, on the desk's thread: one at a time, as read it takes far more than as sent."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, reading)

    async def load(self, adapter: str, number: int | None) -> AdapterVersion:
        """Load a version so that the next prediction finds it ready; same errors as `predict`."""
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(self._thread, self._predict, adapter, number, (), no_boxes)).version

    async def preload(self) -> None:
        """Load the champions of as many adapters as are kept; one that cannot be loaded is logged and left."""
        for adapter in self._registry.adapters.names()[:LOADED_VERSIONS]:
            try:
                await self.load(adapter, None)
            except ContinualError as error:
                LOG.warning("champion of %s is not loaded: %s", adapter, error)

    def close(self) -> None:
        """Drop what still waits and let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _predict(
        self, adapter: str, number: int | None, images: Sequence[Callable[[], Image]], boxes: BoxSource
    ) -> Prediction:
        version = self._version(adapter, number)
        asked = tuple(boxes(version))
        # Before the version is loaded: a refusal need not wait for it.
        check_takes_boxes(version, asked)
        predictor = self._predictor(version)
        if of_volumes(version.record):
            return _of_volumes(version, predictor, images)
        return _of_pictures(version, predictor, images, asked or ({},) * len(images))

    def _version(self, adapter: str, number: int | None) -> AdapterVersion:
        if number is None:
            return self._registry.adapters.current(adapter)
        version = self._registry.adapters.get(adapter, number)
        if version.state is not AdapterState.ACCEPTED:
            raise NotAcceptedError(
                f"version {number} of {adapter} is {version.state}, only accepted versions predict; "
                "ask for the champion or another version"
            )
        return version

    def _predictor(self, version: AdapterVersion) -> AnyPredictor:
        key = (version.adapter, version.number)
        if key not in self._loaded:
            self._loaded[key] = self._loader(version)
        self._loaded.move_to_end(key)
        while len(self._loaded) > LOADED_VERSIONS:
            self._loaded.popitem(last=False)
        return self._loaded[key]


def _of_pictures(
    version: AdapterVersion, predictor: AnyPredictor, images: Sequence[Callable[[], Image]], boxes: Sequence[Boxes]
) -> Prediction:
    pixels = (_picture(version, read()) for read in images)
    digest = predictor.backbone_digest
    if predictor.task is Task.SEGMENTATION:
        asked = cast("MaskPredictor", predictor)
        masks = tuple(_mask(asked, each, sent) for each, sent in zip(pixels, boxes, strict=True))
        return Prediction(version, digest, predictor.task, masks=masks, boxes=tuple(boxes))
    scores, digests = [], []
    for each in pixels:
        scores.append(dict(cast("Predictor", predictor).predict(each)))
        digests.append(sha256_pixels(each))
    return Prediction(version, digest, predictor.task, scores=tuple(scores), digests=tuple(digests))


def _of_volumes(version: AdapterVersion, predictor: AnyPredictor, images: Sequence[Callable[[], Image]]) -> Prediction:
    # One after the other: decoded, volumes are the largest thing that this process holds.
    scores, masks, grids, digests = [], [], [], []
    for read in images:
        volume = _volume(version, read())
        try:
            if predictor.task is Task.SEGMENTATION:
                masks.append(cast("VolumeMaskPredictor", predictor).predict_mask(volume.values, volume.spacing_mm))
            else:
                scores.append(dict(cast("VolumePredictor", predictor).predict(volume.values, volume.spacing_mm)))
                digests.append(sha256_volume(volume.values, volume.spacing_mm))
        except LearningError as error:
            # Loading a version is over: what it cannot look at is a fault of what came.
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        grids.append(volume.grid)
    digest = predictor.backbone_digest
    found = tuple(scores), tuple(masks), tuple(grids)
    return Prediction(version, digest, predictor.task, *found, digests=tuple(digests))


def _picture(version: AdapterVersion, image: Image) -> Pixels:
    if isinstance(image, np.ndarray):
        return image
    raise Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"version {version.number} of {version.adapter} looks at pictures, a volume was sent; send PNG, JPEG or DICOM",
    )


def _volume(version: AdapterVersion, image: Image) -> "DecodedVolume":
    if not isinstance(image, np.ndarray):
        return image
    raise Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"version {version.number} of {version.adapter} looks at volumes, a picture was sent; send NIfTI",
    )


def _mask(predictor: MaskPredictor, pixels: Pixels, boxes: Boxes) -> MaskAnswer:
    if boxes and takes_boxes(predictor):
        return predictor.predict_boxed(pixels, boxes)
    return predictor.predict_mask(pixels)


def decoded(data: bytes) -> Image:
    """One file that passed the quality gate: a picture's pixels [height, width, 3], or a volume.

    Raises UnreadableImageError or QualityError.
    """
    from continual.imaging import check_volume, decode_image, decode_volume, is_volume

    if not is_volume(data):
        return checked(decode_image(data).pixels)
    volume = decode_volume(data)
    check_volume(volume.values)
    return volume


def checked(pixels: Pixels) -> Pixels:
    """The same pixels, once the quality gate let them through; raises QualityError."""
    from continual.imaging import check_quality

    check_quality(pixels)
    return pixels
