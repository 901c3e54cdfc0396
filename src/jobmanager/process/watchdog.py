"""The watchdog of a process: a thread that waits for no other and says when the process stands still.

It compares the next due instant with the clock, and handlers that began with runs that were taken. What stands still for the grace
and one sweep is logged once, with the stacks of our threads, and counted; with JOBMANAGER_WATCHDOG=exit the process then ends, so that its
supervisor starts another. The thread reads plain attributes only; reading the store and logging happen on threads of their own.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from jobmanager.clock import Clock
from jobmanager.process.health import Limits, ProcessJudgement, Symptom, SymptomKind, Vitals
from jobmanager.run import Tick
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

EXIT_CODE = 70
LOOK_EVERY = 5.0
PATIENCE_WITH_LOGS = 5.0
DEEPEST = 12
OUR_THREADS = ("jobmanager-", "APScheduler")

Mode = Literal["log", "exit", "off"]
Lasting = Mapping[SymptomKind, tuple[Symptom, float]]


class DeliveryTimer:
    """Delivers ticks, and knows since when the oldest delivery has not returned. Any thread."""

    def __init__(self, deliver: Callable[[Sequence[Tick]], None], clock: Clock) -> None:
        self._deliver = deliver
        self._clock = clock
        self._begun: dict[int, float] = {}

    def __call__(self, ticks: Sequence[Tick]) -> None:
        """Deliver the ticks."""
        thread = threading.get_ident()
        self._begun[thread] = self._clock.monotonic()
        try:
            self._deliver(ticks)
        finally:
            self._begun.pop(thread, None)

    @property
    def since(self) -> float | None:
        """When the oldest delivery began that has not returned, on the monotonic clock; None if there is none."""
        return min(tuple(self._begun.values()), default=None)


class Watchdog:
    """Judges this process, on its own thread and for any caller. `start` and `stop` by the manager; the rest by any thread.

    `vitals` must take no lock that a waiting thread may hold; it returns None while nothing is to be judged. `read_ledger` returns
    what the store shows, within a bound of its own; it is asked once in each sweep's time. `on_stall` is called once for
    each symptom's episode.
    """

    def __init__(
        self,
        vitals: Callable[[], Vitals | None],
        *,
        limits: Limits,
        clock: Clock,
        mode: Mode = "log",
        read_ledger: Callable[[], Iterable[Symptom]] = tuple,
        on_stall: Callable[[SymptomKind], None] = lambda _: None,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._vitals = vitals
        self._limits = limits
        self._clock = clock
        self._mode = mode
        self._read_ledger = read_ledger
        self._on_stall = on_stall
        self._end = end
        self._lock = threading.Lock()  # held for microseconds: nothing waits and nothing logs under it
        self._judgement = ProcessJudgement(limits)
        self._found: Lasting = {}
        self._reported: set[SymptomKind] = set()
        self._ledger_read_at = float("-inf")
        self._of_the_ledger: list[Symptom] = []
        self._reading: threading.Thread | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------- for those who ask

    def look(self) -> list[Symptom]:
        """Return what stands still in this process now."""
        vitals = self._vitals()
        with self._lock:
            self._found = self._judgement.judge(vitals, self._clock.monotonic())
            return [symptom for symptom, _ in _causes(self._found).values()]

    def stalled_since(self) -> datetime | None:
        """Return since when this process has not brought or begun what it should, as of the last look; None if it does."""
        lasted = [lasted for symptom, lasted in _causes(self._found).values() if symptom.fatal]
        return self._clock.now() - timedelta(seconds=max(lasted)) if lasted else None

    # ---------------------------------------------------------------- its thread

    def start(self) -> None:
        """Watch from now on; twice is once."""
        if self._mode == "off" or self._thread is not None:
            return
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, args=(self._stopping,), name="jobmanager-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Watch no more, and wait at most `timeout` seconds for a look that is under way; twice is safe."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._found, self._reported = {}, set()

    def _watch(self, stopping: threading.Event) -> None:
        every = min(LOOK_EVERY, self._limits.patience.total_seconds() / 4)
        while not stopping.wait(every):
            try:
                self.act()
            except Exception:  # noqa: BLE001 - the watchdog goes on, whatever it meets
                _log_elsewhere(lambda: logger.exception("the watchdog met an error; it goes on"))

    def act(self) -> None:
        """Look once; report what is new and what is over, and end the process if that is set and would help."""
        found = [*self.look(), *self._ledger_symptoms()]
        new = [symptom for symptom in found if symptom.failing and symptom.kind not in self._reported]
        kinds = {symptom.kind for symptom in found if symptom.failing}
        over = self._reported - kinds
        self._reported = kinds
        if over:
            _log_elsewhere(lambda: logger.info("watchdog: over: %s", ", ".join(sorted(over))))
        if not new:
            return
        stacks = stacks_of_our_threads()
        for symptom in new:
            self._on_stall(symptom.kind)
        ends = self._mode == "exit" and any(symptom.fatal for symptom in new)
        _log_elsewhere(lambda: _report(new, stacks, ends=ends))
        if ends:
            self._end(EXIT_CODE)

    def _ledger_symptoms(self) -> list[Symptom]:
        """Return what the last reading of the store showed; a new one is begun once a sweep, and never waited for."""
        now = self._clock.monotonic()
        reading = self._reading
        due = now - self._ledger_read_at >= self._limits.sweep.total_seconds()
        if due and (reading is None or not reading.is_alive()):
            self._ledger_read_at = now
            self._reading = threading.Thread(target=self._read, name="jobmanager-watchdog-read", daemon=True)
            self._reading.start()
        return list(self._of_the_ledger)

    def _read(self) -> None:
        try:
            self._of_the_ledger = list(self._read_ledger())
        except Exception as error:  # noqa: BLE001 - that the store is away is the heartbeat's to say
            logger.debug("the watchdog could not read the store: %s", error)


def _causes(found: Lasting) -> Lasting:
    """Return the symptoms without those that merely follow from a store that is away."""
    if "store_silent" not in found:
        return found
    follow = ("timetable_stuck", "not_begun", "background_stuck")
    return {kind: found[kind] for kind in found if kind not in follow}


def _report(new: Sequence[Symptom], stacks: str, *, ends: bool) -> None:
    for symptom in new:
        logger.error("watchdog: %s: %s do: %s", symptom.kind, symptom.text, symptom.fix)
    logger.error("watchdog: the threads of this process:\n%s", stacks)
    if ends:
        logger.critical(
            "watchdog: this process ends with code %d, for its supervisor to restart it", EXIT_CODE
        )
        for handler in (*logging.root.handlers, *logging.getLogger("jobmanager").handlers):
            handler.flush()


def _log_elsewhere(log: Callable[[], None]) -> None:
    """Log on another thread, and wait for it for some seconds: a handler's lock may be held by what stands still."""
    thread = threading.Thread(target=log, name="jobmanager-watchdog-log", daemon=True)
    thread.start()
    thread.join(PATIENCE_WITH_LOGS)


def stacks_of_our_threads() -> str:
    """Return where each of our threads is: files, lines and functions, no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    shown = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - there is no other way to see them
        name = names.get(ident) or ""
        if name.startswith(OUR_THREADS) and not name.startswith("jobmanager-watchdog"):
            shown.append(f"{name}:\n{''.join(traceback.format_stack(frame)[-DEEPEST:])}")
    return "\n".join(sorted(shown)) or "none of our threads lives\n"
