"""The lease of a process: one heartbeat for everything it runs, and how long it may trust itself."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from jobmanager.beside_loop import beside_loop
from jobmanager.clock import Clock
from jobmanager.errors import StoreError
from jobmanager.process.bounded import ended_within
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.run import new_id
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import Instance
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

SHORTEST_PAUSE = 5.0  # seconds; a busy machine makes shorter ones
LOOK_EVERY = 0.1  # seconds between looks of a coroutine that waits for the lease
TRUST = 0.8  # of the lease: others wait for all of it before they mark this process dead


VitalSigns = Callable[[], tuple[datetime | None, float | None]]
"""The instant of the last tick and how late it came in seconds, told with each beat."""


class HeartbeatListener(Protocol):
    """What a beat means for others in this process. Called on the thread that beats."""

    def beat_accepted(self, own_id: str) -> None:
        """Act on a beat of this process that the store took."""

    def beat_failed(self) -> None:
        """Act on a beat that the store did not take."""

    def declared_dead(self) -> None:
        """Act on having been declared dead by another process."""


@dataclass(slots=True)
class LastTick:
    """The instant of the last tick that was delivered here, and how late it came in seconds; None before the first."""

    scheduled_for: datetime | None = None
    lag: float | None = None


class Heartbeat:
    """This process in the ledger. `id` owns its runs; it changes when the process was declared dead meanwhile.

    Death is judged by a counter that does not move, never by timestamps, so an outage of the store marks no process dead.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        namespace: str,
        length: timedelta,
        declares: Callable[[], tuple[Collection[str], Collection[str]]] = lambda: ((), ()),
        executes: bool = True,
        backend: str | None = None,
        listener: HeartbeatListener | None = None,
        vital_signs: VitalSigns = lambda: (None, None),
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
            backend=backend,
        )
        self._declares = declares
        self._registered = False
        self._trusted_until = float("-inf")
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._driven = False
        self._quiet = quiet or ThrottledLogger(logger)
        self._listener = listener
        self._vital_signs = vital_signs
        self.accepted_at = clock.monotonic()
        """When the store last accepted a beat (monotonic)."""
        self._turned_at = self.accepted_at, now
        self._lives_since: datetime | None = None

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
            self._store.processes.register(self._instance, *self._declares())

    def stop(self, timeout: float = 2.0) -> None:
        """Stop beating and deregister, so that no process has to wait for the lease to end. Twice is safe.

        Takes at most `timeout` seconds; a store that does not answer in that time notices by the lease.
        """
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout / 2)
        self._clock.release(self.beat)
        driven, self._driven = self._driven, False
        self._trusted_until = float("-inf")
        if self._registered:
            self._deregister(timeout / 2, here=driven)
        self._renew()

    def _deregister(self, timeout: float, *, here: bool) -> None:
        deregister = partial(self._store.processes.deregister, self.id)
        try:
            if here:
                deregister()
            elif not ended_within(timeout, deregister, name="deregister"):
                logger.warning(
                    "not deregistered within %.1f s; others notice in %.0f s", timeout, self._length
                )
        except StoreError as error:
            logger.warning("not deregistered, others notice in %.0f s: %s", self._length, error)

    def ok(self) -> bool:
        """Return True while no other process can have declared this one dead."""
        # A clock moved by hand jumps over the beats that a thread would have sent meanwhile.
        return (self._driven and self._registered) or self._clock.monotonic() < self._trusted_until

    def wait_until_ok(self) -> bool:
        """Hold until the next accepted beat; False if the process stops meanwhile."""
        if self._thread is None:
            return self.ok() or self.beat()
        with self._changed:
            while not self.ok() and not self._stopping.is_set():
                self._changed.wait(self._length / 4)  # the end of the process notifies no waiter
        return self.ok()

    async def until_ok(self) -> bool:
        """Wait in a coroutine for the next accepted beat, without a thread: an outage may last, and thousands may wait."""
        if self._thread is None:
            return await beside_loop(self.wait_until_ok)
        while not self.ok() and not self._stopping.is_set():  # noqa: ASYNC110 - beats come on a thread, which knows no loop
            await asyncio.sleep(LOOK_EVERY)
        return self.ok()

    def beat(self) -> bool:
        """Tell the store that this process lives. False if that failed, or if it was declared dead (then it has a new id)."""
        sent = self._clock.monotonic()
        self._note_pause(beating=False)
        try:
            return self._beat(sent)
        finally:
            self._note_pause(beating=True)

    def _note_pause(self, *, beating: bool) -> None:
        """Notice that the whole process stood still: it was stopped, or its machine was suspended, which stops one clock of two.

        What should have happened meanwhile is no fault of this process: to others it lives from now on. A store that does not reply
        holds up the beat only, so while `beating` nothing but the difference of the clocks counts.
        """
        monotonic, wall = self._turned_at
        self._turned_at = self._clock.monotonic(), self._clock.now()
        ran = self._turned_at[0] - monotonic
        passed = (self._turned_at[1] - wall).total_seconds()
        stood_still = passed - ran if beating else max(ran, passed)
        if (
            stood_still > max(self._length / 2, SHORTEST_PAUSE)
            and self._thread is not None
            and not self._driven
        ):
            logger.info("this process stood still for %.0f s", stood_still)
            self._lives_since = self._turned_at[1]

    def _beat(self, sent: float) -> bool:
        try:
            if not self._registered:
                # It lives from now on, not since it was built or last stopped: the account asks who lived when.
                now = self._clock.now()
                self._instance = replace(self._instance, started_at=now, seen_at=now)
                self._store.processes.register(self._instance, *self._declares())
                self._registered = True
            last_tick_at, lag = self._vital_signs()
            since = self._lives_since
            alive = self._store.processes.beat(
                self.id, last_tick_at=last_tick_at, lag_seconds=lag, lives_since=since
            )
        except StoreError as error:
            self._quiet.warning("heartbeat failed: %s", error)
            if self._listener:
                self._listener.beat_failed()
            return False
        self._quiet.over("heartbeat is back")
        if since is not None and self._lives_since == since:
            self._lives_since = None
        if alive:
            with self._changed:
                self._trusted_until = sent + TRUST * self._length
                self._changed.notify_all()
            self.accepted_at = sent
            if self._listener:
                self._listener.beat_accepted(self.id)
            return True
        logger.warning(
            "this process was declared dead (no beat for %.0f s); it goes on under a new id", self._length
        )
        self._renew()
        if self._listener:
            self._listener.declared_dead()
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
            except BaseException:
                logger.exception("heartbeat failed")


def living(store: RunStore, settings: Settings) -> list[Instance]:
    """Return the namespace's processes that beat within the lease, by the store's clock: for people and for waiting, never to mark one dead."""
    if not store.exists():
        return []
    oldest = store.now() - settings.lease
    return [
        instance
        for instance in store.processes.living()
        if instance.namespace == settings.namespace and instance.seen_at >= oldest
    ]
