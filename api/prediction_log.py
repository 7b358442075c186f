"""Keeps what versions said, so that labels that come later find it; knows nothing of HTTP or of labels.

Predictions are written by a thread of their own, many at once: an answer waits for no database, and goes out whether or
not what it said could be kept. What is still waiting when the process is killed, or finds no room, is lost.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from api.serving import Prediction as Answer
from continual.domain.errors import ContinualError
from continual.domain.predictions import NOBODYS, Prediction
from registry import Registry

MOST_WAITING = 10_000
MOST_AT_ONCE = 500
ATTEMPTS = 3
PAUSE_SECONDS = 1.0
CLOSE_SECONDS = 5.0
LOG = logging.getLogger(__name__)


class PredictionLog:
    """What waits to be kept, and the thread that keeps it; it starts with the first prediction."""

    def __init__(self, registry: Registry, most_waiting: int = MOST_WAITING) -> None:
        self._registry = registry
        self._waiting: queue.Queue[Prediction | None] = queue.Queue(most_waiting)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, answer: Answer, site: str | None) -> None:
        """Keep the scores of each picture of an answer under its content, no masks. Never waits, never fails."""
        now = datetime.now(UTC)
        version = answer.version
        lost = 0
        for digest, scores in zip(answer.digests, answer.scores, strict=True):
            said = Prediction(version.adapter, version.number, site or NOBODYS, digest, scores, now)
            if not all(map(math.isfinite, scores.values())):
                lost += 1
                continue
            try:
                self._waiting.put_nowait(said)
            except queue.Full:
                lost += 1
        if lost:
            LOG.warning(
                "%d predictions of %s are not kept: no room, or scores that are no numbers", lost, version.adapter
            )
        if answer.digests:
            self._start()

    def close(self) -> None:
        """Keep what waits, as far as a few seconds allow."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            try:
                self._waiting.put(None, timeout=CLOSE_SECONDS)
            except queue.Full:
                return
            thread.join(CLOSE_SECONDS)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="keep-predictions", daemon=True)
                self._thread.start()

    def _write(self) -> None:
        while True:
            batch, ended = self._next()
            self._add(batch)
            if ended:
                return

    def _next(self) -> tuple[list[Prediction], bool]:
        """What waits, at least one, and whether that was the end."""
        batch: list[Prediction] = []
        said = self._waiting.get()
        while said is not None:
            batch.append(said)
            if len(batch) == MOST_AT_ONCE:
                return batch, False
            try:
                said = self._waiting.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _of_known_sites(self, batch: Sequence[Prediction]) -> list[Prediction]:
        """Whoever asks may name any site: one that never had a sample is not kept, as if nobody had said."""
        sites = {NOBODYS, *self._registry.samples.sites()}
        return [said if said.site in sites else replace(said, site=NOBODYS) for said in batch]

    def _add(self, batch: list[Prediction]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._registry.predictions.add(self._of_known_sites(batch))
            except ContinualError as error:
                failure = str(error)
            except Exception as error:  # noqa: BLE001 (whatever a driver throws: the next predictions must be kept)
                failure = type(error).__name__
            else:
                return
            if attempt < ATTEMPTS:
                time.sleep(PAUSE_SECONDS)
        LOG.warning("%d predictions are not kept: %s", len(batch), failure)
