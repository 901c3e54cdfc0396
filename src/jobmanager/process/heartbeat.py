"""The lease of a process: one heartbeat for everything it runs, and how long it may trust itself."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta

from jobmanager.clock import Clock
from jobmanager.errors import StoreError
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.run import new_id
from jobmanager.settings import Settings
from jobmanager.stores.base import Instance, RunStore

logger = logging.getLogger(__name__)

TRUST = 0.8  # of the lease: others wait for all of it before they bury us


class Heartbeat:
    """This process in the ledger. `id` owns its runs; it changes when the process was declared dead meanwhile.

    Death is judged by a counter that does not move, never by timestamps, so an outage of the store kills nobody.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        namespace: str,
        length: timedelta,
        declares: Collection[str] = (),
        executes: bool = True,
        quiet: ThrottledLogger | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._length = length.total_seconds()
        now = clock.now()
        self._instance = Instance(
            id=new_id(now),
            namespace=namespace,
            host=socket.gethostname(),
            pid=os.getpid(),
            executes=executes,
            started_at=now,
            seen_at=now,
        )
        self._declares = declares
        self._registered = False
        self._trusted_until = float("-inf")
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._driven = False
        self._quiet = quiet or ThrottledLogger(logger)
        self.vital_signs: Callable[[], tuple[datetime | None, float | None]] = lambda: (None, None)
        """When the last tick came and how late it was, in seconds; told with each beat."""
        self.on_beat: Callable[[str], None] = lambda _: None
        """Called with our id after each accepted beat, on the beating thread."""
        self.on_silence: Callable[[], None] = lambda: None
        """Called after a beat that failed."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called after this process learned that it was declared dead, on the beating thread."""

    @property
    def id(self) -> str:
        return self._instance.id

    @property
    def namespace(self) -> str:
        return self._instance.namespace

    def start(self, *, executes: bool = True) -> None:
        """Register and beat from now on; an unreachable store is tried again with every beat. Twice is once, but for `executes`.

        `executes` False: others must not wait for this process to take pending runs.
        """
        if self._thread is not None or self._driven:
            if executes and not self._instance.executes:
                self._instance = replace(self._instance, executes=True)
                self.announce()
            return
        self._instance = replace(self._instance, executes=executes)
        self._stopping.clear()
        self._driven = self._clock.drive(None, self.beat)
        self.beat()
        if not self._driven:
            self._thread = threading.Thread(target=self._beat_on, name="jobmanager-lease", daemon=True)
            self._thread.start()

    def announce(self) -> None:
        """Tell the others what this process declares and does now; before the first beat there is nothing to tell."""
        if self._registered:
            self._store.register(self._instance, self._declares)

    def stop(self) -> None:
        """Stop beating and say good-bye, so that nobody has to wait for the lease to end. Twice is safe."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(2)
        self._clock.release(self.beat)
        self._driven = False
        self._trusted_until = float("-inf")
        try:
            if self._registered:
                self._store.deregister(self.id)
        except StoreError as error:
            logger.warning("good-bye not recorded, others will notice in %.0f s: %s", self._length, error)
        self._renew()

    def ok(self) -> bool:
        """True while nobody can have declared this process dead."""
        # A clock moved by hand jumps over the beats that a thread would have sent meanwhile.
        return (self._driven and self._registered) or self._clock.monotonic() < self._trusted_until

    def wait_until_ok(self) -> bool:
        """Hold until the next accepted beat; False if the process stops meanwhile."""
        if self._thread is None:
            return self.ok() or self.beat()
        with self._changed:
            self._changed.wait_for(lambda: self.ok() or self._stopping.is_set())
        return self.ok()

    def beat(self) -> bool:
        """Tell the store that this process lives. False if that failed, or if it was declared dead (then it has a new id)."""
        sent = self._clock.monotonic()
        try:
            if not self._registered:
                # It lives from now on, not since it was built or last stopped: the account asks who lived when.
                now = self._clock.now()
                self._instance = replace(self._instance, started_at=now, seen_at=now)
                self._store.register(self._instance, self._declares)
                self._registered = True
            last_tick_at, lag = self.vital_signs()
            alive = self._store.beat(self.id, last_tick_at=last_tick_at, lag_seconds=lag)
        except StoreError as error:
            self._quiet.warning("heartbeat failed: %s", error)
            self.on_silence()
            return False
        self._quiet.over("heartbeat is back")
        if alive:
            with self._changed:
                self._trusted_until = sent + TRUST * self._length
                self._changed.notify_all()
            self.on_beat(self.id)
            return True
        logger.warning(
            "this process was declared dead (no beat for %.0f s); it goes on under a new id", self._length
        )
        self._renew()
        self.on_lost()
        return False

    def _renew(self) -> None:
        now = self._clock.now()
        self._instance = replace(
            self._instance, id=new_id(now), pid=os.getpid(), started_at=now, seen_at=now, beats=0
        )
        self._registered = False

    def _beat_on(self) -> None:
        while not self._stopping.wait(self._length / 4):
            try:
                self.beat()
            except Exception:
                logger.exception("heartbeat failed")


def living(store: RunStore, settings: Settings) -> list[Instance]:
    """The namespace's processes that beat within the lease, by the store's clock: for people and for waiting, never to bury."""
    if not store.exists():
        return []
    oldest = store.now() - settings.lease
    return [
        instance
        for instance in store.instances()
        if instance.namespace == settings.namespace and instance.seen_at >= oldest
    ]
