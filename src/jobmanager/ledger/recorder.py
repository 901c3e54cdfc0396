"""The only writer of runs: opens, ends and bounds what is written. What two processes race for is settled in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from jobmanager.errors import PayloadError
from jobmanager.ledger.bounding import MAX_JSON, MAX_MESSAGE, bounded_failure, bounded_json, bounded_text
from jobmanager.ledger.group_commit import GroupCommit
from jobmanager.ledger.missing_instants import is_excluded
from jobmanager.ledger.outages import Outages
from jobmanager.ledger.overlap import (
    OpenResult,
    apply_overlap,
    as_waiting,
    excluded_run,
    missed_deadline,
    unstarted,
)
from jobmanager.ledger.redaction import Redactor
from jobmanager.run import (
    FAILED,
    PENDING,
    RUNNING,
    Ending,
    Failure,
    LogLine,
    Progress,
    Run,
    RunStatus,
    check_transition,
)
from jobmanager.stores.base import RunStore
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.values import Note, Written
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import unkeepable_within

logger = get_logger(__name__)


class EndListener(Protocol):
    """Hears on the writer's thread what became of each ending; may only hand on."""

    def ended(self, ending: Ending, status: RunStatus | None) -> None:
        """Go on with what was written; the status is None if the fence refused it: another start of the run has it now."""

    def end_lost(self, ending: Ending) -> None:
        """Go on with what the store cannot keep, not even that the attempt ended; the sweep ends the run then."""


class Recorder:
    """Writes runs through group commit, and decides under the job's lock what a refused one becomes."""

    def __init__(
        self, store: RunStore, commits: GroupCommit, *, grace: timedelta, redactor: Redactor
    ) -> None:
        self.store = store
        self.redactor = redactor
        self._commits = commits
        self._grace = grace
        self._listener: EndListener
        self.on_notice: Callable[[], object] = _nothing
        """Called after a notice was written: it may be sent now."""

    @property
    def outages(self) -> Outages:
        """When the store took no writes."""
        return self._commits.outages

    # ---------------------------------------------------------------- opening

    def open(
        self,
        runs: Sequence[Run],
        then: Callable[[list[Run], list[Run], Written], None],
        *,
        write_inline: bool = False,
    ) -> None:
        """Open runs in one guarded insert; `then(opened, refused, written)` follows on the writer's thread."""

        def committed(written: Written) -> None:
            opened = [run for run in runs if run.id in written.opened]
            refused = (
                [] if len(opened) == len(runs) else [run for run in runs if run.id not in written.opened]
            )
            then(opened, refused, written)

        self._commits.open(runs, committed, write_inline=write_inline)

    def decide(self, run: Run, note: Note | None = None) -> OpenResult:
        """Decide under the job's lock what a refused run becomes: docs/internals/ledger.md#what-a-refused-tick-becomes.

        `note` makes the entry of the audit, which is written if that opens the run.
        """
        with self.store.jobs.lock(run.job_id) as txn:
            result = self._decided(txn, run)
            if note is not None and result.finding == "opened" and result.run is not None:
                txn.audit(note(None, result.run))
            return result

    def decide_many(self, runs: Sequence[Run]) -> dict[str, OpenResult]:
        """Decide in one transaction under the locks of all their jobs; return what became of each run of a job that is there, by id."""
        with self.store.jobs.lock_many(runs) as txns:
            return {run.id: self._decided(txns[run.job_id], run) for run in runs if run.job_id in txns}

    def _decided(self, txn: JobTransaction, run: Run) -> OpenResult:
        row = txn.run_for(run.scheduled_for) if run.scheduled_for else None
        if row is not None and row.status is PENDING and row.announced:
            return self._accepted(txn, row, run)
        return self._answer(txn, run, row) or self._apply_overlap(txn, run)

    def _accepted(self, txn: JobTransaction, row: Run, run: Run) -> OpenResult:
        """Return what becomes of an announced row: its tick counts, whatever has happened to the schedule since."""
        run = replace(run, id=row.id, opened_at=row.opened_at, accepted_at=txn.now)
        if not txn.job.open:
            txn.close_pending()
            return OpenResult("disabled")
        if txn.job.state == "paused" or run.due_at <= txn.now - self._grace:
            return OpenResult("late")
        if run.owner is not None and not txn.is_alive(run.owner):
            return OpenResult("dead")
        txn.delete_unaccepted([row.id])
        if is_excluded(txn.job, run.instant):
            return _excluded(txn, run)
        if run.expires_at is not None and run.expires_at < txn.now:
            txn.insert(missed_deadline(run, txn.now))
            return OpenResult("deadline")
        if run.due_at > txn.now:
            run = as_waiting(run) if run.turn else unstarted(run)
        return self._apply_overlap(txn, run)

    def _apply_overlap(self, txn: JobTransaction, run: Run) -> OpenResult:
        return apply_overlap(txn, run, held_up=self.outages.at(run.opened_at))

    def _answer(self, txn: JobTransaction, run: Run, row: Run | None) -> OpenResult | None:
        """Return what refuses the run, or opened it before; `row` is what its tick has already."""
        mine = row if row is not None and row.id == run.id else None
        if row is None and run.scheduled_for is None:
            mine = txn.get(run.id)
        if mine is not None:
            return OpenResult("duplicate" if run.announced else "opened", mine)
        if run.idempotency_key is not None:
            earlier = txn.run_with_key(run.idempotency_key)
            if earlier is not None:
                return OpenResult("duplicate", earlier)
        if run.scheduled_for is not None:
            finding = self._tick_finding(txn, run, run.scheduled_for, row)
            if finding is not None:
                return finding
        if not txn.job.open:
            return OpenResult("disabled")
        if run.owner is not None and not txn.is_alive(run.owner):
            return OpenResult("dead")
        return None

    def _tick_finding(
        self, txn: JobTransaction, run: Run, instant: datetime, row: Run | None
    ) -> OpenResult | None:
        if row is not None:
            return OpenResult("duplicate", row)
        if txn.job.schedule_rev != run.schedule_rev:
            return OpenResult("stale")
        if txn.job.state != "active":
            return OpenResult("paused" if txn.job.state == "paused" else "disabled")
        if instant <= txn.job.accounted_until:
            return OpenResult("accounted")
        if run.due_at > txn.now:
            return OpenResult("early")
        if run.due_at <= txn.now - self._grace:
            return OpenResult("late")
        if is_excluded(txn.job, instant):
            return _excluded(txn, run)
        if run.expires_at is not None and run.expires_at < txn.now:
            txn.insert(missed_deadline(run, txn.now))
            return OpenResult("deadline")
        return None

    # ---------------------------------------------------------------- ending

    def end(self, ending: Ending, *, write_inline: bool = False) -> None:
        """Close an attempt with the fence, as `presentable` made it; the listener hears of it on the writer's thread."""
        check_transition(RUNNING, ending.status if ending.retry_at is None else PENDING)
        self._commits.end(ending, write_inline=write_inline)

    def report_ends_to(self, listener: EndListener) -> None:
        """Have this told of every ending from now on. Once, before the first one."""
        self._listener = listener
        self._commits.tell_ends_to(self._ended)

    def _ended(self, ending: Ending, written: Written) -> None:
        run = ending.run
        if run.id in written.errors:
            text = "job=%s run_id=%s its end is not on record; the sweep ends it: %s"
            logger.warning(text, run.job_id, run.id, written.errors[run.id])
            self._listener.end_lost(ending)
        else:
            self._listener.ended(ending, written.ended.get(run.id))
            if ending.notices:
                self.on_notice()

    def presentable(self, ending: Ending) -> Ending:
        """Return the ending bounded and without secrets; code of the handler's own classes may run here, and may raise nothing."""
        if ending.output is None and ending.error is None and not ending.lines:
            return ending
        try:
            return self._bounded_parts(ending)
        except BaseException as error:  # noqa: BLE001 - values of the handler's own classes, whose code runs here
            text = f"what the handler returned cannot be recorded: {type(error).__name__}"
            return replace(
                ending,
                status=FAILED,
                output=None,
                lines=(),
                retry_at=None,
                error=Failure(kind="internal", type=type(error).__name__, message=text),
            )

    def _bounded_parts(self, ending: Ending) -> Ending:
        return replace(
            ending,
            output=bounded_json(ending.output, hide=self.redactor.text, is_secret=self.redactor.is_secret),
            error=bounded_failure(ending.error, hide=self.redactor.text),
            lines=self.redacted(ending.lines),
            progress=None if ending.progress is None else self.redacted_progress(ending.progress),
        )

    def redacted_progress(self, progress: Progress) -> Progress:
        """Return the same progress, its message bounded and without secrets."""
        if not progress.message:
            return progress
        return replace(progress, message=bounded_text(progress.message, MAX_MESSAGE, hide=self.redactor.text))

    def redacted(self, lines: Sequence[LogLine]) -> tuple[LogLine, ...]:
        """Return the same lines without secrets."""
        return tuple(LogLine(line.at, line.level, self.redactor.text(line.text)) for line in lines)


def _excluded(txn: JobTransaction, run: Run) -> OpenResult:
    skipped = excluded_run(run, txn.now)
    txn.insert(skipped)
    return OpenResult("skipped", skipped)


def _nothing() -> None:
    """Stand in for who sends notifications, where nobody does."""


def checked_payload(payload: Any) -> Any:
    """Return the payload if it is a JSON object of at most 64 KiB; PayloadError otherwise."""
    if payload is None:
        return None
    if not isinstance(payload, dict) or not all(isinstance(key, str) for key in payload):
        raise PayloadError(f"A payload is a dict with text keys, not {type(payload).__name__}.")
    try:
        size = len(json.dumps(payload, allow_nan=False))
        unkeepable = unkeepable_within(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"The payload is not JSON: {error}. Pass ids and plain values.") from error
    if size > MAX_JSON:
        raise PayloadError(
            f"The payload has {size:,} bytes, more than 65,536 (64 KiB). Pass an id and let the handler load the rest."
        )
    if unkeepable:
        raise PayloadError(f"The payload contains {unkeepable}, which no store can keep. Leave it out.")
    return payload
