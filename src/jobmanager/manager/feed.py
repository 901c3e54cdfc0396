"""The changes of runs and jobs, heard once for all listeners of the process.

A signal of the store says that something changed, and states of runs are compared then. So no change is missed that lasts, and
intermediate states of quick runs may be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta

from jobmanager.access.view import View
from jobmanager.clock import Clock
from jobmanager.errors import PayloadError, StoreError
from jobmanager.manager.listening import Change, Events
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.run import EPOCH, MICROSECOND, RunStatus, first_id
from jobmanager.stores.base import RunStore
from jobmanager.stores.changes import NOTICED_WITHIN, RunState, Signals
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import shown

logger = get_logger(__name__)

LOOK_EVERY = 1.0  # seconds, where only ends are announced
UNNOTICED_LOOK_EVERY = 0.05  # seconds, until every process that announces knows that this one listens
STOPS_WITHIN = 0.2
TRY_AGAIN = 0.25
IDLE = 5.0  # seconds after which the thread ends when nobody listens or waits
MOST = 5000  # states of one look; more runs at once are seen when the others have changed
NEWEST = 20_000  # runs that are looked through for what moved since a cursor
LATE = timedelta(seconds=30)  # a run may be on record so long after its id was made
CLOCKS_DIFFER = timedelta(seconds=5)


class Feed:
    """Hears of changes on one thread, wakes those that wait for a run, and gives listeners what changed. Any thread."""

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        namespace: str,
        wake: Callable[[Collection[str]], None],
        by_hand: bool,
    ) -> None:
        self._store = store
        self._clock = clock
        self._namespace = namespace
        self._wake = wake
        self.by_hand = by_hand
        """True on a clock that is moved by hand, where no thread may wait."""
        self._lock = threading.RLock()
        self._listeners: set[Events] = set()
        self._waiters = 0
        self._wanted_at = 0.0
        self._known: dict[str, RunState] = {}
        self._seq = 0
        self._thread: threading.Thread | None = None
        self._trouble = ThrottledLogger(logger)
        self.hears = False
        """True while signals of the store come in."""

    # ---------------------------------------------------------------- for those who listen or wait

    def listen(
        self, *, after: str | None, run: str | None, job: str | None, seen: View | None = None
    ) -> Events:
        """Return the changes from now on, or from a cursor on; with `run` its present state comes first."""
        since = None if after is None else _read_cursor(after)
        pump = self._look if self.by_hand else None
        with self._lock:
            if not self._listeners:
                self._begin()
            events = Events(
                run=run, job=job, seen=seen, began=after or self._cursor(), give_up=self._forget, pump=pump
            )
            self._listeners.add(events)
            self._give(list(self._so_far(since, run)), [events])
        self._attend()
        return events

    def wait_begins(self) -> None:
        """Wake waiters from now on, until as many waits have ended."""
        with self._lock:
            self._waiters += 1
        self._attend()

    def wait_ends(self) -> None:
        """Note the end of one wait."""
        with self._lock:
            self._waiters -= 1

    def stop(self, timeout: float) -> None:
        """End what all listeners iterate over, and the thread. Twice is safe; the next listener begins anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            for events in list(self._listeners):
                events.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _forget(self, events: Events) -> None:
        with self._lock:
            self._listeners.discard(events)

    # ---------------------------------------------------------------- the thread

    def _attend(self) -> None:
        if self.by_hand:
            return
        with self._lock:
            self._wanted_at = self._clock.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="jobmanager-feed", daemon=True)
                self._thread.start()

    def _is_wanted(self) -> bool:
        """Return whether the thread goes on; it ends some time after the last listener and the last wait."""
        with self._lock:
            if self._thread is not threading.current_thread():
                return False
            now = self._clock.monotonic()
            if self._listeners or self._waiters:
                self._wanted_at = now
            if now - self._wanted_at > IDLE:
                self._thread = None
            return self._thread is not None

    def _live(self) -> None:
        while self._is_wanted():
            try:
                with closing(self._store.changes.signals()) as signals:
                    self._trouble.over("changes are heard again")
                    self._follow(signals)
            except StoreError as error:
                self._trouble.warning("no signals, looking for changes every %g s: %s", TRY_AGAIN, error)
                self._look_anyway()
            except Exception:  # noqa: BLE001 - it is logged; the listeners of this process have no other thread
                self._trouble.error("hearing of changes failed, trying again", exc_info=True)
                self._clock.sleep(TRY_AGAIN)
            finally:
                self.hears = False

    def _look_anyway(self) -> None:
        self._clock.sleep(TRY_AGAIN)
        self._wake(())
        try:
            self._look()
        except StoreError as error:
            self._trouble.warning("changes cannot be read: %s", error)

    def _follow(self, signals: Signals) -> None:
        announces = self._store.changes.announces
        looked_at = self._clock.monotonic()
        noticed_at = looked_at + (NOTICED_WITHIN if announces else 0)
        self._look()  # after the signals begin, so that nothing falls between
        self._wake(())
        self.hears = True
        while self._is_wanted():
            unnoticed = (
                looked_at < noticed_at
            )  # so the last of these looks comes after all ends that were not announced
            pause = UNNOTICED_LOOK_EVERY if unnoticed else LOOK_EVERY
            named = signals.wait(min(pause, STOPS_WITHIN))
            now = self._clock.monotonic()
            if named:
                self._wake(named)
                self._compare_named(named)
            is_something = named is not None and not named
            if is_something or (announces and now - looked_at >= pause):
                if is_something or unnoticed:
                    self._wake(())
                self._look()
                looked_at = now

    # ---------------------------------------------------------------- comparing

    def _begin(self) -> None:
        """Take what is there as known: the first listener hears of what changes from now on."""
        self._seq = self._store.jobs.change_seq()
        states = self._store.changes.states(self._namespace, self._store.now() - LATE, most=MOST)
        self._known = {state.id: state for state in states}

    def _look(self) -> None:
        # Reading and giving are one step under the lock: a state that was read earlier must not come after a later one.
        with self._lock:
            if not self._listeners:
                return
            since = self._store.now() - LATE
            states = self._store.changes.states(self._namespace, since, most=MOST)
            found = {state.id for state in states}
            gone = [
                run_id
                for run_id, state in self._known.items()
                if not state.status.closed and run_id not in found
            ]
            if gone:
                states += self._store.changes.states_of(gone[-MOST:])
            self._give([*self._runs(states), *self._jobs()], list(self._listeners))
            oldest = first_id(since)
            self._known = {
                run_id: state
                for run_id, state in self._known.items()
                if run_id >= oldest or not state.status.closed
            }

    def _compare_named(self, run_ids: Collection[str]) -> None:
        with self._lock:
            if self._listeners:
                states = self._store.changes.states_of(run_ids)
                ours = [state for state in states if state.id in self._known or self._is_ours(state.job_id)]
                self._give(list(self._runs(ours)), list(self._listeners))

    def _is_ours(self, job_id: str) -> bool:
        row = self._store.jobs.get(job_id)
        return row is not None and row.namespace == self._namespace

    def _runs(self, states: Iterable[RunState]) -> Iterator[Change]:
        cursor = self._cursor()
        for state in states:
            if self._known.get(state.id) != state:
                self._known[state.id] = state
                yield _of_run(state, cursor)

    def _jobs(self) -> Iterator[Change]:
        seq = self._store.jobs.change_seq()
        if seq != self._seq:
            before, self._seq = self._seq, seq
            yield from self._jobs_since(before)

    def _jobs_since(self, seq: int) -> Iterator[Change]:
        cursor = self._cursor()
        for job in self._store.jobs.summaries(changed_since=seq):
            if job.namespace == self._namespace:
                yield Change(kind="job", id=job.id, job_id=job.id, status=job.state, cursor=cursor)

    def _so_far(self, since: tuple[datetime, int] | None, run: str | None) -> Iterator[Change]:
        cursor = self._cursor()
        if run is not None:
            yield from (_of_run(state, cursor) for state in self._store.changes.states_of([run]))
        elif since is not None:
            moment, seq = since
            moved = self._store.changes.moved_since(self._namespace, moment, newest=NEWEST)
            yield from (_of_run(state, cursor) for state in moved)
            yield from self._jobs_since(seq)

    def _give(self, changes: Sequence[Change], listeners: Collection[Events]) -> None:
        """Give each listener the changes of what it sees."""
        if not changes:
            return
        by_view = {view: self._seen(changes, view) for view in {events.seen for events in listeners}}
        for events in listeners:
            for change in by_view[events.seen]:
                events.put(change)

    def _seen(self, changes: Sequence[Change], view: View | None) -> Sequence[Change]:
        if view is None:
            return changes
        runs = self._store.changes.states_of([c.id for c in changes if c.kind == "run"], seen=view)
        jobs = self._store.jobs.rows(ids=[c.id for c in changes if c.kind == "job"], seen=view)
        seen = {("run", run.id) for run in runs} | {("job", job.id) for job in jobs}
        return [change for change in changes if (change.kind, change.id) in seen]

    def _cursor(self) -> str:
        moment = self._store.now() - CLOCKS_DIFFER
        return f"{(moment - EPOCH) // MICROSECOND:x}-{self._seq:x}"


def _of_run(state: RunState, cursor: str) -> Change:
    return Change(
        kind="run", id=state.id, job_id=state.job_id, status=RunStatus(state.status).value, cursor=cursor
    )


def _read_cursor(text: object) -> tuple[datetime, int]:
    """Return the moment and the number of a cursor; PayloadError for any other text."""
    micros, dash, seq = text.partition("-") if isinstance(text, str) else ("", "", "")
    try:
        if dash:
            return EPOCH + int(micros, 16) * MICROSECOND, int(seq, 16)
    except (ValueError, OverflowError):
        pass
    raise PayloadError(f"after={shown(text)} is no cursor: pass that of a change, or leave it out.")
