"""Group commit: one writer thread takes everything that waits and makes it one transaction.

No artificial delay: a batch is what came while the last one was being written. The store decides what a write means.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from jobmanager.cheap import cheap
from jobmanager.clock import Clock
from jobmanager.errors import BackPressureError, StoreError, StoreUnavailableError
from jobmanager.ledger.outages import Outages
from jobmanager.process.throttled_log import ThrottledLogger, ThrottledLogs
from jobmanager.run import FAILED, Ending, Failure, Run
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import Written
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

BOUND = 10_000
LONGEST_PAUSE = 2.0


@cheap
@dataclass(frozen=True, slots=True)
class _Opening:
    runs: Sequence[Run]
    then: Callable[[Written], None]


class GroupCommit:
    """Durable writes of runs, many per fsync.

    `open` and `end` may be called by any thread. What follows is called by the writer's, after the commit, and must only hand on:
    `then(written)` for an opening, and for an ending what `tell_ends_to` named.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        threaded: bool,
        quiet: ThrottledLogger | None = None,
        outages: Outages | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._threaded = threaded
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._openings: list[_Opening] = []
        self._endings: list[Ending] = []
        self._idle = False
        """True while the writer waits for work."""
        self._ended: Callable[[Ending, Written], None] = _no_listener
        self._committing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._given_up = threading.Event()
        self._quiet = quiet or ThrottledLogger(logger)
        self.outages = outages or Outages(clock)
        """When the store took no writes."""
        self._refusals = ThrottledLogs(logger)  # the store may refuse every tick of a job

    def tell_ends_to(self, ended: Callable[[Ending, Written], None]) -> None:
        """Have this called for each ending, once it is known what became of it. Before the first one is given."""
        self._ended = ended

    def open(
        self, runs: Sequence[Run], then: Callable[[Written], None], *, write_inline: bool = False
    ) -> None:
        """Open runs soon, then call `then`. BackPressureError if too much waits.

        `write_inline` says that nothing else is in flight, or that the caller waits for it: then the caller's thread writes, if
        the writer does not at that moment, and saves the way to it.
        """
        if not self._threaded:
            self._commit([_Opening(runs, then)], ())
            return
        if write_inline and self._written_here(runs, (), then):
            return
        if len(self._openings) + len(self._endings) >= BOUND:
            raise BackPressureError(
                f"{BOUND:,} writes wait for {self._store.url}; try again when the store keeps up."
            )
        with self._lock:
            self._wake_writer()
            self._openings.append(_Opening(runs, then))

    def end(self, ending: Ending, *, write_inline: bool = False) -> None:
        """End an attempt soon. It is always taken, as it frees room; `write_inline` as for `open`."""
        if not self._threaded:
            self._commit((), [ending])
            return
        if write_inline and self._written_here((), [ending], partial(self._ended, ending)):
            return
        with self._lock:
            self._wake_writer()
            self._endings.append(ending)

    @property
    def is_writing(self) -> bool:
        """True while a batch is with the store."""
        return self._committing.locked()

    def stop(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` seconds, and end the thread; twice is safe."""
        until = self._clock.monotonic() + timeout
        # A write on its caller's own thread may be under way, and what it opened still has to be ended.
        if self._committing.acquire(timeout=timeout):
            self._committing.release()
        with self._lock:
            thread, self._thread = self._thread, None
            self._idle = False
            self._work.notify_all()
        if thread is not None:
            thread.join(max(0.0, until - self._clock.monotonic()))
            self._given_up.set()

    # ---------------------------------------------------------------- who writes

    def _written_here(
        self, opens: Sequence[Run], endings: Sequence[Ending], then: Callable[[Written], None]
    ) -> bool:
        """Write on this thread, unless something waits or is being written; False leaves it to the writer."""
        if self._openings or self._endings or not self._committing.acquire(blocking=False):
            return False
        began = self._clock.now()
        try:
            written = self._store.runs.write(opens, endings)
        except StoreError as error:
            # The writer repeats it: the same rows with the same ids are harmless.
            self.outages.note(began, opens, error)
            self._quiet.warning("store away, 1 write waits: %s", error)
            return False
        except Exception as error:  # noqa: BLE001 - a value that no column takes: the writer finds out which
            logger.debug("a write is left to the writer: %s", error)
            return False
        else:
            then(written)
            return True
        finally:
            self._committing.release()

    def _wake_writer(self) -> None:
        """See to it that the writer looks at what waits; under the lock."""
        if self._idle:
            self._idle = False
            self._work.notify()
        elif self._thread is None:
            self._given_up.clear()
            thread = threading.Thread(target=self._write_all, name="jobmanager-writer", daemon=True)
            thread.start()
            self._thread = thread

    def _write_all(self) -> None:
        me = threading.current_thread()
        try:
            while self._write_what_came(me):
                pass
        finally:  # also where a log handler ended the thread: the next write starts another
            with self._lock:
                if self._thread is me:
                    self._thread, self._idle = None, False

    def _write_what_came(self, me: threading.Thread) -> bool:
        """Wait for work and write it; False once this thread is to end."""
        with self._lock:
            while not (self._openings or self._endings):
                if self._thread is not me:
                    return False
                self._idle = True
                self._work.wait()
            openings, self._openings = self._openings, []
            endings, self._endings = self._endings, []
        with self._committing:
            try:
                self._commit(openings, endings)
            except BaseException:
                logger.exception(
                    "%d writes are lost; the sweep accounts for them", len(openings) + len(endings)
                )
        return True

    def _commit(self, openings: Sequence[_Opening], endings: Sequence[Ending]) -> None:
        opens = [run for opening in openings for run in opening.runs]
        try:
            written = self._write_until_it_holds(opens, endings)
        except StoreError:
            raise
        except Exception as error:  # every write is told of its fate, whatever happens here
            logger.exception("%d writes are lost; the sweep accounts for them", len(opens) + len(endings))
            written = Written(errors=dict.fromkeys(_ids(opens, endings), error))
        for opening in openings:
            self._tell(opening.then, written)
        for ending in endings:
            self._tell(self._ended, ending, written)

    def _tell(self, then: Callable[..., None], *what: object) -> None:
        """Tell one caller what became of its write; what that raises is kept from the others."""
        try:
            then(*what)
        except BaseException as error:
            if not self._threaded and not isinstance(error, Exception):
                raise
            logger.exception("after a commit")

    def _write_until_it_holds(
        self, opens: Sequence[Run], endings: Sequence[Ending], *, outcome_stripped: bool = False
    ) -> Written:
        """Repeat the same batch while the store is away; its unique keys and fences make that harmless.

        `outcome_stripped`: there is nothing left to take away from what the store may refuse.
        """
        pause = 0.05
        began, trouble = self._clock.now(), None
        while True:
            try:
                written = self._store.runs.write(opens, endings)
            except StoreUnavailableError as error:
                if not self._threaded:
                    raise
                trouble = error
                self.outages.note(began, opens, error)
                self._quiet.warning("store away, %d writes wait: %s", len(opens) + len(endings), error)
                if self._given_up.wait(pause):
                    return Written(errors=dict.fromkeys(_ids(opens, endings), error))
                pause = min(pause * 2, LONGEST_PAUSE)
            except Exception as error:  # noqa: BLE001 - one bad row must not take its neighbours along
                if outcome_stripped:
                    run = endings[0].run
                    text = "job=%s run_id=%s its end is not on record; the sweep ends it"
                    self._refusals.of(f"{run.job_id} lost").error(text, run.job_id, run.id, exc_info=True)
                    return Written(errors={endings[0].run.id: error})
                return self._write_apart(opens, endings, error)
            else:
                if trouble is not None:
                    self.outages.note(began, opens, trouble)
                self._quiet.over("store is back")
                return written

    def _write_apart(self, opens: Sequence[Run], endings: Sequence[Ending], error: Exception) -> Written:
        """Halve the batch until the row that the store cannot keep stands alone."""
        if len(opens) + len(endings) == 1:
            return self._without(opens, endings, error)
        middle = len(opens) // 2
        cut = len(endings) // 2
        if len(opens) == 1:
            middle = 1
        first = self._write_until_it_holds(opens[:middle], endings[:cut])
        second = self._write_until_it_holds(opens[middle:], endings[cut:])
        return Written(
            {*first.opened, *second.opened},
            {**first.ended, **second.ended},
            {**first.errors, **second.errors},
        )

    def _without(self, opens: Sequence[Run], endings: Sequence[Ending], error: Exception) -> Written:
        if opens:
            text, run = "job=%s run_id=%s cannot be recorded: %s", opens[0]
            self._refusals.of(f"{run.job_id} start").error(text, run.job_id, run.id, error)
            return Written(errors={opens[0].id: error})
        ending = endings[0]
        text, run = "job=%s run_id=%s end cannot be recorded as it is: %s", ending.run
        self._refusals.of(f"{run.job_id} end").error(text, run.job_id, run.id, error)
        without_outcome = replace(
            ending,
            status=FAILED,
            output=None,
            progress=None,
            lines=(),
            notices=(),
            error=Failure(
                kind="exception",
                type=type(error).__name__,
                message=f"the outcome could not be stored: {error}"[:500],
            ),
        )
        return self._write_until_it_holds((), [without_outcome], outcome_stripped=True)


def _no_listener(_ending: Ending, _written: Written) -> None:
    """Stand in for a listener where there is none."""


def _ids(opens: Sequence[Run], endings: Sequence[Ending]) -> list[str]:
    return [*(run.id for run in opens), *(ending.run.id for ending in endings)]
