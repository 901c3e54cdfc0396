"""`Events`, the changes that one listener gets: an iterator for threads and for coroutines, bounded, with a clear end."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from jobmanager.access.view import View
from jobmanager.errors import SlowListenerError

MOST_WAITING = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A run or job as it is now, after it changed. `status` is that of the run, or the state of the job.

    `cursor` says where to go on: `jobs.events(after=cursor)` repeats the changes of some seconds and leaves out none.
    """

    kind: Literal["run", "job"]
    id: str
    job_id: str
    status: str
    cursor: str


class Events:
    """The changes of runs and jobs, for one listener: `for change in events` or `async for change in events`.

    It ends when the manager stops and with `close()`, and in SlowListenerError when 1,000 changes wait to be taken. Any thread may
    close it; one thread or task may iterate.
    """

    def __init__(
        self,
        *,
        run: str | None,
        job: str | None,
        seen: View | None = None,
        began: str | None = None,
        give_up: Callable[[Events], None],
        pump: Callable[[], None] | None,
    ) -> None:
        self._run = run
        self._job = job
        self.seen: View | None = None if seen is None or seen.is_whole else seen
        """The view of the listener; None for all."""
        self._give_up = give_up
        self._pump = pump
        self._waiting: deque[Change] = deque()
        self._changed = threading.Condition()
        self._tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._ended = False
        self._last: str | None = began
        self._dropped = False

    # ---------------------------------------------------------------- for the listener

    def take(self, timeout: float | None = None) -> Change | None:
        """Return the next change; None if none comes within so many seconds, or no more will come at all."""
        if self._pump is not None:
            self._pump_if_empty()
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._ended, 0 if self._pump is not None else timeout
            )
            return self._next()

    @property
    def cursor(self) -> str | None:
        """The cursor of the last change that was taken; before one was, of the moment when listening began."""
        return self._last

    @property
    def ended(self) -> bool:
        """True once no more changes will come."""
        return self._ended and not self._waiting

    def close(self) -> None:
        """Listen no more: iterating ends. Twice is safe."""
        self._give_up(self)
        self.end()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        change = self.take()
        if change is None:
            raise StopIteration
        return change

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if self._pump is not None:
            await asyncio.to_thread(self._pump_if_empty)
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                change = self._next()
                if change is not None:
                    return change
                if self._ended or self._pump is not None:
                    raise StopAsyncIteration
                future = loop.create_future()
                self._tasks.append((loop, future))
            await future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- for the feed

    def put(self, change: Change) -> None:
        """Let the listener have the change, if it asked for such; of a listener that takes none too many are not kept."""
        if self._run not in (None, change.id) or self._job not in (None, change.job_id):
            return
        with self._changed:
            if self._ended:
                return
            if len(self._waiting) >= MOST_WAITING:
                self._dropped = self._ended = True
                self._waiting.clear()
            else:
                self._waiting.append(change)
            self._wake()
        if self._dropped:
            self._give_up(self)

    def end(self) -> None:
        """Let the listener take what waits, and end then. Twice is safe."""
        with self._changed:
            self._ended = True
            self._wake()

    def _next(self) -> Change | None:
        if self._dropped:
            raise SlowListenerError(
                f"{MOST_WAITING:,} changes waited for a listener of jobs.events(), which was given up. Take them faster, or "
                f"listen again with after={self._last!r}.",
                cursor=self._last,
            )
        if not self._waiting:
            return None
        change = self._waiting.popleft()
        self._last = change.cursor
        return change

    def _pump_if_empty(self) -> None:
        """On a clock that is moved by hand nothing changes by itself: look once whether something has."""
        if not self._waiting and self._pump is not None:
            self._pump()

    def _wake(self) -> None:
        self._changed.notify_all()
        tasks, self._tasks = self._tasks, []
        for loop, future in tasks:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
