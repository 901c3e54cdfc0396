"""The ends of this process, told to the processes that wait for them, where the store does not notice changes by itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from jobmanager.errors import StoreError
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.stores.base import RunStore
from jobmanager.stores.changes import NOTICED_WITHIN
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

PAUSE = 0.025  # seconds between two announcements: under load one tells of many ends
MOST_KEPT = 10_000


class Announcer:
    """One thread that announces, behind the runs and never in their way. Nothing depends on it: who waits looks from time to time.

    While no process listens the store is asked once in NOTICED_WITHIN, however many runs end.
    """

    def __init__(self, store: RunStore, monotonic: Callable[[], float], *, threaded: bool) -> None:
        self._store = store
        self._monotonic = monotonic
        self._wanted = threaded and store.changes.announces
        self._ended: deque[str] = deque(maxlen=MOST_KEPT)
        self._unheard_until = float("-inf")
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ThrottledLogger(logger)

    def note(self, run_id: str) -> None:
        """Announce soon that the run has ended, which is on record. Any thread; returns at once."""
        if not self._wanted or self._monotonic() < self._unheard_until:
            return
        self._ended.append(run_id)
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def stop(self, timeout: float) -> None:
        """Announce what is noted, and end the thread; twice is safe. A note after it begins another."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        self._wake.set()
        if thread is not None:
            thread.join(timeout)

    def _start(self) -> None:
        self._stopping = stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._live, args=(stopping,), name="jobmanager-announcer", daemon=True
        )
        self._thread.start()

    def _live(self, stopping: threading.Event) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._announce()
            if stopping.wait(PAUSE):
                return

    def _announce(self) -> None:
        ended: list[str] = []
        while self._ended:
            ended.append(self._ended.popleft())
        asked_at = self._monotonic()
        if not ended or asked_at < self._unheard_until:
            return
        try:
            heard = self._store.changes.announce(ended)
        except StoreError as error:
            self._trouble.warning("ends are not announced, who waits for them looks for them: %s", error)
        else:
            if not heard:
                self._unheard_until = asked_at + NOTICED_WITHIN
