"""Group commit: one writer thread takes everything that waits and makes it one transaction.

No artificial delay: a batch is what came while the last one was being written. The store decides what a write means.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
class _Item:
    opens: Sequence[Run]
    endings: Sequence[Ending]
    then: Callable[[Written], None]


class GroupCommit:
    """Durable writes of runs, many per fsync.

    `submit` may be called by any thread; `then` is called by the writer's, after the commit, and must only hand on.
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
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._committing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._given_up = threading.Event()
        self._quiet = quiet or ThrottledLogger(logger)
        self.outages = outages or Outages(clock)
        """When the store took no writes."""
        self._refusals = ThrottledLogs(logger)  # the store may refuse every tick of a job

    def submit(
        self,
        opens: Sequence[Run],
        endings: Sequence[Ending],
        then: Callable[[Written], None],
        *,
        write_inline: bool = False,
    ) -> None:
        """Write soon, then call `then`. BackPressureError if too much waits; endings are always taken, they free room.

        `write_inline` says that nothing else is in flight, or that the caller waits for it: then the caller's thread writes, if
        the writer does not at that moment, and saves the way to it.
        """
        item = _Item(opens, endings, then)
        if not self._threaded:
            self._commit([item])
            return
        if write_inline and self._queue.empty() and self._committing.acquire(blocking=False):
            began = self._clock.now()
            try:
                written = self._store.runs.write(opens, endings)
            except StoreError as error:
                # The writer repeats it: the same rows with the same ids are harmless.
                self.outages.note(began, opens, error)
                self._quiet.warning("store away, 1 write waits: %s", error)
            except Exception as error:  # noqa: BLE001 - a value that no column takes: the writer finds out which
                logger.debug("a write is left to the writer: %s", error)
            else:
                then(written)
                return
            finally:
                self._committing.release()
        if opens and self._queue.qsize() >= BOUND:
            raise BackPressureError(
                f"{BOUND:,} writes wait for {self._store.url}; try again when the store keeps up."
            )
        self._ensure_thread()
        self._queue.put(item)

    @property
    def is_writing(self) -> bool:
        """True while a batch is with the store."""
        return self._committing.locked()

    def stop(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` seconds, and end the thread; twice is safe."""
        # A write on its caller's own thread may be under way, and what it opened still has to be ended.
        if self._committing.acquire(timeout=timeout):
            self._committing.release()
        with self._starting:  # one that is not started yet cannot be waited for
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout)
            self._given_up.set()

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._given_up.clear()
                    self._thread = threading.Thread(
                        target=self._write_all, name="jobmanager-writer", daemon=True
                    )
                    self._thread.start()

    def _write_all(self) -> None:
        stopping = False
        while not stopping:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < BOUND:
                batch.append(self._queue.get_nowait())
            stopping = None in batch
            with self._committing:
                try:
                    self._commit([item for item in batch if item is not None])
                except BaseException:
                    logger.exception("%d writes are lost; the sweep accounts for them", len(batch))

    def _commit(self, batch: Sequence[_Item]) -> None:
        if not batch:
            return
        opens = [run for item in batch for run in item.opens]
        endings = [ending for item in batch for ending in item.endings]
        try:
            written = self._write_until_it_holds(opens, endings)
        except StoreError:
            raise
        except Exception as error:  # every write is told of its fate, whatever happens here
            logger.exception("%d writes are lost; the sweep accounts for them", len(batch))
            written = Written(errors=dict.fromkeys(_ids(opens, endings), error))
        for item in batch:
            try:
                item.then(written)
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
            error=Failure(
                kind="exception",
                type=type(error).__name__,
                message=f"the outcome could not be stored: {error}"[:500],
            ),
        )
        return self._write_until_it_holds((), [without_outcome], outcome_stripped=True)


def _ids(opens: Sequence[Run], endings: Sequence[Ending]) -> list[str]:
    return [*(run.id for run in opens), *(ending.run.id for ending in endings)]
