"""The scheduler for `celery beat -S jobmanager.backends.celery:Scheduler`. As many beats as you like: the store decides who wins a tick.

What the application has in its own `beat_schedule` goes on beside ours, in one of all beats at a time.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import celery.beat
from celery import Celery

from jobmanager.backends.celery.backend import LONGEST_SLEEP
from jobmanager.backends.celery.worker import backend_of
from jobmanager.validation.printable import get_logger

if TYPE_CHECKING:
    from jobmanager.backends.celery.backend import CeleryBackend

logger = get_logger(__name__)

NATIVE_ROLE = "celery-native"
ASK_FOR_ROLE_EVERY = 5.0


class Scheduler(celery.beat.Scheduler):  # type: ignore[misc]  # celery has no types
    """Ticks through the manager's timetable; touches neither store nor broker in `tick`.

    Celery makes one for its banner first (`lazy`), which connects to nothing.
    """

    max_interval = LONGEST_SLEEP

    def __init__(self, app: Celery, *args: Any, max_interval: float | None = None, **kwargs: Any) -> None:
        self._ticking = False
        self._native: NativeEntries | None = None
        wanted = min(max_interval or LONGEST_SLEEP, LONGEST_SLEEP)
        super().__init__(app, *args, max_interval=wanted, **kwargs)

    @property
    def _backend(self) -> CeleryBackend:
        return backend_of(self.app)

    def setup_schedule(self) -> None:
        """Come up; an outage of the store is waited out behind, a wrong configuration raises."""
        # Held until we are up: at a signal Celery's handler asks for the scheduler, and would make another in the middle of this.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            self._backend.begin_beat()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        self.install_default_entries(self.data)
        self.merge_inplace(self.app.conf.beat_schedule)
        if self.data:
            self._native = NativeEntries(self.app, self._backend)
            self._native.start()
            names = ", ".join(sorted(self.data))
            logger.info("%d entries of the application's own beat_schedule go on: %s", len(self.data), names)

    def tick(self, *_: Any, **__: Any) -> float:
        self._ticking = True
        try:
            return min(self._backend.tick(), self.max_interval)
        finally:
            self._ticking = False

    def should_sync(self) -> bool:
        return False

    def close(self) -> None:
        """Leave this process. Celery calls this twice at a signal, first in the middle of whatever `tick` does."""
        if self._ticking:
            return
        if self._native is not None:
            self._native.stop()
        self._backend.end_beat()
        super().close()

    @property
    def info(self) -> str:
        return "    . jobs -> the store of jobmanager"


class NativeEntries:
    """The application's own `beat_schedule`, by Celery's own scheduler, as long as this beat holds the role."""

    def __init__(self, app: Celery, backend: CeleryBackend) -> None:
        self._app = app
        self._backend = backend
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_time, name="jobmanager-native", daemon=True)

    def start(self) -> None:
        """Keep time in a thread of its own: sending waits for the broker, and ours must not wait with it."""
        self._thread.start()

    def stop(self) -> None:
        """End with what is being sent now; twice is safe."""
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join(2)

    def _keep_time(self) -> None:
        while not self._stopping.is_set():
            if not self._has_role():
                self._stopping.wait(ASK_FOR_ROLE_EVERY)
                continue
            # A fresh one: what was due while another beat had the role was that one's.
            self._keep_time_until_lost(celery.beat.Scheduler(self._app, max_interval=LONGEST_SLEEP))

    def _keep_time_until_lost(self, scheduler: celery.beat.Scheduler) -> None:
        logger.info("this beat sends the application's own beat_schedule")
        while not self._stopping.is_set() and self._has_role():
            wait: float = 0.0
            for _ in range(100):  # one entry per call; then look again whether we still may
                wait = scheduler.tick()
                if wait:
                    break
            self._stopping.wait(min(wait, LONGEST_SLEEP))
        scheduler.close()

    def _has_role(self) -> bool:
        try:
            return self._backend.acquire_role(NATIVE_ROLE)
        except Exception as error:  # noqa: BLE001 - a process that cannot ask has no right to send
            logger.debug("cannot ask who sends the native entries: %s", error)
            return False
