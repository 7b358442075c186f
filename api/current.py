"""Which version is current, answered fast and never stale; knows nothing of requests or routes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from api.schemas import Version
from continual.domain.adapters import CHAMPION
from registry import Registry


@dataclass(frozen=True, slots=True)
class CurrentAnswer:
    """A ready response body, the strong entity tag that names it, and the alias revision it was read at."""

    adapter: str
    revision: int
    etag: str
    body: bytes


class SharedReading:
    """Answers many simultaneous askers with one reading that began after each of them asked.

    So the answer is as fresh as if each had read alone, while sixteen askers cost one query and a slow database
    never blocks the event loop.
    """

    def __init__(self, read: Callable[[], int], thread: ThreadPoolExecutor) -> None:
        self._read = read
        self._thread = thread
        self._next: asyncio.Future[int] | None = None
        self._round: asyncio.Task[None] | None = None

    async def value(self) -> int:
        """The value, read after this call began; raises what the reading raises."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._round is None:
                self._round = asyncio.create_task(self._rounds())
        # Shielded: one asker who hangs up must not cancel the others' answer.
        return await asyncio.shield(self._next)

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (asked := self._next) is not None:
                self._next = None
                try:
                    value = await loop.run_in_executor(self._thread, self._read)
                except Exception as error:  # noqa: BLE001 - whatever it was, the askers must hear it
                    asked.set_exception(error)
                    asked.exception()
                else:
                    asked.set_result(value)
        finally:
            self._round = None


class CurrentAnswers:
    """The champion's answer per adapter, kept until any alias moves, in this process or another one."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="current")
        self._revision = SharedReading(registry.adapters.alias_revision, self._thread)
        self._answers: dict[str, CurrentAnswer] = {}

    async def answer(self, adapter: str) -> CurrentAnswer:
        """The answer for `adapter`, checked against the alias revision on every call; raises NotFoundError."""
        revision = await self._revision.value()
        kept = self._answers.get(adapter)
        if kept is not None and kept.revision == revision:
            return kept
        loop = asyncio.get_running_loop()
        # Read after the revision: at worst the body is newer than its label and is read once more.
        fresh = await loop.run_in_executor(self._thread, self._read, adapter, revision)
        self._answers[adapter] = fresh
        return fresh

    def close(self) -> None:
        """Let the reading thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self, adapter: str, revision: int) -> CurrentAnswer:
        version = self._registry.adapters.current(adapter, alias=CHAMPION)
        body = Version.of(version).model_dump_json().encode()
        return CurrentAnswer(adapter, revision, f'"{version.digest}-{version.number}"', body)
