"""A contract is worth something only if it notices: stores broken on purpose, each must be caught."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import FAILED, Ending, Run, RunStatus
from jobmanager.search import DeadLetters, FoundRuns, Mark, RunCounts, RunFilter
from jobmanager.step import Step
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.sql import sqlite_runs
from jobmanager.stores.sql.history import SqlHistory
from jobmanager.stores.sql.jobs import SqlJobs
from jobmanager.stores.sql.maintenance import SqlMaintenance
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.sql.processes import SqlProcesses
from jobmanager.stores.sql.requests import SqlRequestBook
from jobmanager.stores.sql.search import SqlSearch
from jobmanager.stores.sql.sqlite_runs import SqliteRuns
from jobmanager.stores.sql.statistics import SqlStatistics
from jobmanager.stores.sql.steps import SqlStepBook
from jobmanager.stores.sql.webhooks import SqlWebhooks
from jobmanager.stores.statistics import Cell
from jobmanager.stores.steps import StepWrite
from jobmanager.stores.values import AuditEntry, DueInstant, Instance, JobRow, JobStanding, Written
from jobmanager.stores.webhooks import WebhookRow
from jobmanager.testing import FakeClock, RunStoreContract, broken_promises

GRACE = timedelta(seconds=60)


class Broken:
    """What a facet is that was broken on purpose: it may use the rest of its store, which is sound."""

    store: MemoryStore


class ChecksLess(Broken, SqliteRuns):
    """A store whose guards can be told something else than the truth."""

    def _may_open(self, run: Run, job: Any, living: set[str], now: Any) -> bool:
        if job is None:
            return super()._may_open(run, job, living, now)
        told = {
            "id": job[0],
            "state": job[1],
            "revision": job[2],
            "watermark": job[3],
            "living": living,
            "now": now,
        }
        told.update(self.tell(run, told))
        seen = (told["id"], told["state"], told["revision"], told["watermark"])
        return super()._may_open(told.get("run", run), seen, told["living"], told["now"])

    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class NoRevisionGuard(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"revision": run.schedule_rev}


class NoWatermarkGuard(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"watermark": 0}


class NoDueGuard(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"now": max(truth["now"], run.due_at)}


class NoGraceGuard(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"now": min(truth["now"], run.due_at + timedelta(seconds=1))}


class GraceCountsFromTheInstant(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"run": replace(run, due_at=min(run.due_at, run.scheduled_for or run.due_at))}


class NoDeadlineGuard(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"run": replace(run, expires_at=None)}


class NoStateGuard(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"state": "active"}


class PausedMeansDisabled(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"state": "active" if truth["state"] == "active" else "disabled"}


class NoAliveGuard(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"living": {run.owner}}


class GuardsRunsByHandLikeTicks(ChecksLess):
    def tell(self, run: Run, truth: dict[str, Any]) -> dict[str, Any]:
        return {"run": replace(run, scheduled_for=run.scheduled_for or run.due_at)}


class WithoutIndex(MemoryStore):
    index: ClassVar[str]

    def install(self) -> None:
        super().install()
        with self.database.writing() as connection:
            connection.exec_driver_sql(f"DROP INDEX {self.index}")


class NoUniqueTick(WithoutIndex):
    index = "jobmanager_runs_tick"


class NoUniqueTurn(WithoutIndex):
    index = "jobmanager_runs_holds"


class NoUniqueIdempotencyKey(WithoutIndex):
    index = "jobmanager_runs_once"


class LooksFirst(SqliteRuns):
    """Asks whether the tick is taken, then inserts: between the two somebody else does the same."""

    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        taken = self.already_recorded(opens)
        time.sleep(0.0001)  # the processor is somebody else's now and then
        return super().write([run for run in opens if run.id not in taken], endings)


class LooksBeforeItLeaps(NoUniqueTick):
    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.runs = LooksFirst(self.database, GRACE)


class ForgetsWhatItAnswered(Broken, SqliteRuns):
    def _ours(self, connection: Any, runs: Sequence[Run]) -> list[tuple[Any, ...]]:
        return []


class HandsOutWhatHasEnded(Broken, SqliteRuns):
    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        written = super().write(opens, endings)
        return replace(written, opened={run.id for run in opens if self.store.history.run(run.id)})


class KeepsHalfAWrite(Broken, SqliteRuns):
    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        opened = super().write(opens, ()).opened if opens else ()
        return replace(super().write((), endings), opened=opened)


class OneBadTickSpoilsTheBatch(Broken, SqliteRuns):
    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        written = super().write(opens, endings)
        if len(written.opened) == len(opens):
            return written
        with self.database.writing() as connection:
            for run in opens:
                connection.exec_driver_sql("DELETE FROM jobmanager_runs WHERE id = ?", (run.id,))
        return replace(written, opened=())


class OneTwinIsEnough(Broken, SqliteRuns):
    def already_recorded(self, runs: Sequence[Run]) -> set[str]:
        return super().already_recorded(list({(run.job_id, run.scheduled_for): run for run in runs}.values()))


class CommitsWhatFailed(Broken, SqlJobs):
    """Locks, but does not roll back."""

    @contextmanager
    def lock(self, job_id: str) -> Iterator[JobTransaction]:
        failure = None
        with super().lock(job_id) as txn:
            try:
                yield txn
            except ZeroDivisionError as error:
                failure = error
        if failure is not None:
            raise failure


class ForgetsWhatIsClosed(Broken, SqlJobs):
    """Holds many jobs, and writes only what it is told to write at once."""

    @contextmanager
    def lock_many(self, runs: Sequence[Run]) -> Iterator[Mapping[str, JobTransaction]]:
        with super().lock_many(runs) as txns:
            yield txns
            for txn in txns.values():
                txn._known._closed.clear()  # type: ignore[attr-defined]


class ReadsBeforeItLocks(Broken, SqlJobs):
    @contextmanager
    def lock(self, job_id: str) -> Iterator[JobTransaction]:
        seen = self.get(job_id)
        time.sleep(0.001)
        with super().lock(job_id) as txn:
            if seen is not None:
                txn.job = seen
            yield txn


class LocksOnlyToWrite(Broken, SqlJobs):
    """Reads, lets go, and takes the lock again to write what was decided meanwhile."""

    @contextmanager
    def lock(self, job_id: str) -> Iterator[Any]:
        with super().lock(job_id) as txn:
            seen = txn.job
        decided = Decided(seen)
        yield decided
        with super().lock(job_id) as txn:
            txn.save(decided.job)


class Decided:
    def __init__(self, job: JobRow) -> None:
        self.job = job

    def save(self, job: JobRow) -> None:
        self.job = job


class InventsJobs(Broken, SqlJobs):
    @contextmanager
    def lock(self, job_id: str) -> Iterator[Any]:
        if self.get(job_id) is None:
            yield None
        else:
            with super().lock(job_id) as txn:
                yield txn


class ChangesGoUnnoticed(MemoryStore):
    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        database: Any = self.database
        database.next_change = lambda connection: self.jobs.change_seq()


class EverySettlementIsAChange(Broken, SqlJobs):
    @contextmanager
    def lock(self, job_id: str) -> Iterator[JobTransaction]:
        with super().lock(job_id) as txn:
            yield txn
            with self.writing_already() as connection:
                self.database.next_change(connection)

    @contextmanager
    def writing_already(self) -> Iterator[sa.Connection]:
        assert self.store.database._writer is not None
        yield self.store.database._writer


class SeedsOverwrite(Broken, SqlJobs):
    def add(self, rows: Sequence[JobRow]) -> None:
        super().add(rows)
        self.declare({row.id: row for row in rows})


class DeclaringResumes(Broken, SqlJobs):
    def declare(self, rows: Mapping[str, JobRow]) -> None:
        super().declare(rows)
        with self.database.writing() as connection:
            connection.exec_driver_sql("UPDATE jobmanager_jobs SET state = 'active'")


class InstallsWhenAsked(MemoryStore):
    def exists(self) -> bool:
        self.install()
        return super().exists()


class DisabledJobsAreDue(Broken, SqlJobs):
    def due(self, before: Any, limit: int) -> list[str]:
        due = [row for row in self.rows() if row.next_due_at and row.next_due_at <= before]
        return [row.id for row in sorted(due, key=lambda row: row.next_due_at)][:limit]


class CancelClosesWhatRuns(Broken, SqliteRuns):
    def cancel(self, run_id: str) -> Run:
        with self.database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE jobmanager_runs SET status = 'cancelled', reason = 'requested', turn = NULL, finished_at = due_at"
                " WHERE id = ? AND finished_at IS NULL",
                (run_id,),
            )
        return super().cancel(run_id)


class CancelLeavesTheKey(Broken, SqliteRuns):
    def cancel(self, run_id: str) -> Run:
        run = self.store.history.run(run_id)
        if run is not None and run.status is RunStatus.PENDING:
            return run
        return super().cancel(run_id)


class CancelsEverybodysRuns(Broken, SqliteRuns):
    def cancel_requests(self, owner: str) -> list[str]:
        return [
            run.id for run in self.store.history.runs() if run.cancel_requested_at and not run.status.closed
        ]


class AnybodysProgress(Broken, SqliteRuns):
    def note_progress(self, run: Run, progress: Any) -> None:
        stored = self.store.history.run(run.id)
        super().note_progress(stored or run, progress)


class LosesTheOrderOfLines(Broken, SqlHistory):
    def lines(self, run_id: str, *, after: int = 0) -> list[Any]:
        return super().lines(run_id, after=after)[::-1]


class LinesFromTheBeginning(Broken, SqlHistory):
    def lines(self, run_id: str, *, after: int = 0) -> list[Any]:
        return super().lines(run_id)


class NothingExpires(Broken, SqlMaintenance):
    def expire_pending(self) -> int:
        return 0


class NothingIsSeenTo(Broken, SqlMaintenance):
    def discard(self, run_id: str) -> Run:
        return self.store.history.run(run_id) or super().discard(run_id)


class BeatsWithoutSigns(Broken, SqlProcesses):
    def beat(self, instance_id: str, **signs: Any) -> bool:
        return super().beat(instance_id)


class TheDeadBeat(Broken, SqlProcesses):
    def beat(self, instance_id: str, **signs: Any) -> bool:
        super().beat(instance_id, **signs)
        return True


class BuriesWhoSpoke(Broken, SqlProcesses):
    def mark_dead(self, instance: Instance) -> bool:
        living = {each.id: each for each in self.living()}
        return instance.id in living and super().mark_dead(living[instance.id])


class TheDeadDeclare(Broken, SqlProcesses):
    declared: ClassVar[set[str]] = set()

    def register(self, instance: Instance, declares: Collection[str] = ()) -> None:
        super().register(instance, declares)

    def declared_by_living(self, namespace: str) -> set[str]:
        with self.database.reading() as connection:
            rows = connection.execute(sa.select(self.tables.declarations.c.job_ids)).scalars()
            return {job_id for job_ids in rows for job_id in job_ids}


class OldestFirst(Broken, SqlHistory):
    def runs(self, **which: Any) -> list[Run]:
        return super().runs(**which)[::-1]


class PagesOverlap(Broken, SqlHistory):
    def runs(self, *, before: str | None = None, **which: Any) -> list[Run]:
        runs = super().runs(before=before, **which)
        last = self.run(before) if before else None
        return [last, *runs[:-1]] if last and runs else runs


class TakesAnyEnd(Broken, SqlHistory):
    def run(self, run_id: str) -> Run | None:
        return next((run for run in self.runs(limit=1000) if run.id.endswith(run_id)), None)


class OnlyTheNewest(Broken, SqlHistory):
    def last_runs(self, job_ids: Collection[str]) -> dict[str, list[Run]]:
        return {job_id: runs[:1] for job_id, runs in super().last_runs(job_ids).items()}


class AddsEveryHour(Broken, SqlStatistics):
    def totals(self, namespace: str, since: int, until: int, **which: Any) -> list[Cell]:
        return super().totals(namespace, 0, until, **which)


class OpenInstantsHide(Broken, SqlHistory):
    def standings(self, namespace: str, **which: Any) -> dict[str, JobStanding]:
        found = super().standings(namespace, **which)
        newest = self.due_instants(found, limit=1)
        return {
            job_id: standing._replace(instant=next(iter(newest.get(job_id, ())), None))
            for job_id, standing in found.items()
        }


class CountsStartsByHand(Broken, SqlHistory):
    def due_instants(self, job_ids: Collection[str], **which: Any) -> dict[str, list[DueInstant]]:
        found = super().due_instants(job_ids, **which)
        by_hand = {
            job_id: [run for run in self.runs(job_id=job_id) if run.scheduled_for is None]
            for job_id in job_ids
        }
        return {
            job_id: [
                *(
                    DueInstant(run.id, run.opened_at, run.status, None, 1, None, None, None)
                    for run in by_hand[job_id]
                ),
                *cells,
            ]
            for job_id, cells in found.items()
        }


class FindsWhatWasSeenTo(Broken, SqlSearch):
    def runs(self, wanted: RunFilter, **which: Any) -> FoundRuns:
        return super().runs(
            replace(wanted, dead=False, statuses=[FAILED] if wanted.dead else wanted.statuses), **which
        )


class SkipsBetweenPages(Broken, SqlSearch):
    def runs(self, wanted: RunFilter, *, before: Mark | None = None, **which: Any) -> FoundRuns:
        found = super().runs(wanted, before=before, **which)
        return found if before is None else replace(found, runs=found.runs[1:])


class CountsHiddenRuns(Broken, SqlSearch):
    def counts(self, wanted: RunFilter, *, seen: View | None = None) -> RunCounts:
        return super().counts(wanted)


class GroupsByJobAlone(Broken, SqlSearch):
    def dead_letters(self, wanted: RunFilter, **which: Any) -> list[DeadLetters]:
        found = super().dead_letters(wanted, **which)
        return list({group.job_id: group for group in found}.values())


class CountsWhatNeverRan(Broken, SqlHistory):
    def metrics(self) -> Any:
        ended = [run for run in self.runs(limit=1000) if run.status.closed]
        return replace(super().metrics(), total_executions=len(ended))


class ForgetsStretches(Broken, SqlHistory):
    def run_for(self, job_id: str, instant: Any) -> Run | None:
        with self.store.jobs.lock(job_id) as txn:
            return txn.run_for(instant)


class PurgesWhatIsNotAccounted(Broken, SqlMaintenance):
    def purge(self, before: Any, **which: Any) -> int:
        for row in self.store.jobs.rows():
            with self.store.jobs.lock(row.id) as txn:
                txn.save(replace(row, accounted_until=before + timedelta(days=1)))
        return super().purge(before, **which)


class PurgeForgetsWhereHistoryBegins(Broken, SqlMaintenance):
    def purge(self, before: Any, **which: Any) -> int:
        rows = self.store.jobs.rows()
        purged = super().purge(before, **which)
        for row in rows:
            with self.store.jobs.lock(row.id) as txn:
                txn.save(replace(txn.job, history_from=row.history_from))
        return purged


class PurgeLeavesTheRest(Broken, SqlMaintenance):
    """Attempts stay when their run goes."""

    def purge(self, before: Any, **which: Any) -> int:
        table = self.tables.attempts
        with self.database.reading() as connection:
            kept = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
        purged = super().purge(before, **which)
        with self.database.writing() as connection:
            connection.execute(self.database.insert_ignoring(table), kept)
        return purged


class ForgetsWhoStillOwnsSomething(Broken, SqlMaintenance):
    def forget_dead(self, before: Any) -> int:
        with self.database.writing() as connection:
            dead = sa.delete(self.tables.instances).where(self.tables.instances.c.dead_at < before)
            return int(connection.execute(dead).rowcount)


class TakesFromTheLiving(Broken, SqlMaintenance):
    def take_over(self, notices_of: Any = None) -> list[Run]:
        with self.database.writing() as connection:
            connection.exec_driver_sql("UPDATE jobmanager_instances SET dead_at = seen_at")
        return super().take_over(notices_of)


class LeavesOrphans(Broken, SqlMaintenance):
    def take_over(self, notices_of: Any = None) -> list[Run]:
        return []


class SendsAgainAndAgain(Broken, SqliteRuns):
    def to_dispatch(self, namespace: str, limit: int, *, unknown: Collection[str] = ()) -> list[Run]:
        found = super().to_dispatch(namespace, limit, unknown=unknown)
        with self.database.writing() as connection:
            connection.execute(sa.update(self.tables.runs).values(dispatched_at=None))
        return found


class TrustsTheMessage(Broken, SqliteRuns):
    def to_dispatch(self, namespace: str, limit: int, *, unknown: Collection[str] = ()) -> list[Run]:
        sent = [run for run in self.store.history.runs() if run.dispatched_at]
        return [
            run
            for run in super().to_dispatch(namespace, limit, unknown=unknown)
            if run.id not in {other.id for other in sent}
        ]


class SendsPastTheLine(Broken, SqliteRuns):
    def _has_one_before(self, now: Any) -> sa.ColumnElement[bool]:
        return sa.false()


class KeepsVainMessages(Broken, SqliteRuns):
    def note_unclaimed(self, run_ids: Collection[str]) -> list[str]:
        return []


class EverybodyHasTheRole(Broken, SqlProcesses):
    def acquire_role(self, role: str, instance_id: str) -> bool:
        return True


class TheRoleStaysWithTheDead(Broken, SqlProcesses):
    def acquire_role(self, role: str, instance_id: str) -> bool:
        self.had = getattr(self, "had", {})
        return (
            super().acquire_role(role, instance_id) and self.had.setdefault(role, instance_id) == instance_id
        )


class TheLastEditCounts(Broken, SqlWebhooks):
    def put(self, row: WebhookRow, entry: AuditEntry) -> bool:
        there = self.get(row.namespace, row.key)
        return super().put(row if there is None else replace(row, rev=there.rev + 1), entry)


class ForgetsTheDeleted(Broken, SqlWebhooks):
    def rows(self, namespace: str, *, changed_since: int = -1) -> list[WebhookRow]:
        return [row for row in super().rows(namespace, changed_since=changed_since) if not row.deleted]


class KeepsStepsForAnybody(Broken, SqlStepBook):
    def record(self, writes: Sequence[StepWrite]) -> list[bool]:
        truth = [self.store.history.run(write.run.id) for write in writes]
        return super().record(
            [replace(write, run=run) for write, run in zip(writes, truth, strict=True) if run]
        )


class WritesStepsAnew(Broken, SqlStepBook):
    def _insert(self, connection: Any, steps: Sequence[Step]) -> None:
        for step in steps:
            table = self.tables.run_steps
            connection.execute(
                sa.delete(table).where(table.c.run_id == step.run_id, table.c.name == step.name)
            )
        super()._insert(connection, steps)


class BelievesTheDead(Broken, SqlRequestBook):
    def begin(self, key: str, turn: str, digest: str, *, keep: timedelta, cut: timedelta) -> Any:
        return super().begin(key, turn, digest, keep=keep, cut=keep)


class AnybodyFinishes(Broken, SqlRequestBook):
    def _of(self, key: str, turn: str) -> Any:
        return self.tables.requests.c.key == key


class SharesWebhooks(Broken, SqlWebhooks):
    def get(self, namespace: str, key: str) -> WebhookRow | None:
        return super().get("default", key)


BROKEN_STORES: Mapping[type[MemoryStore | Broken], str] = {
    TheLastEditCounts: "test_of_two_edits_of_one_revision_the_first_counts",
    ForgetsTheDeleted: "test_a_deleted_webhook_stays_to_be_noticed_and_makes_room",
    BelievesTheDead: "test_a_request_that_was_cut_loses_its_key",
    AnybodyFinishes: "test_while_a_request_is_under_way_its_key_is_taken",
    SharesWebhooks: "test_webhooks_of_one_namespace_are_no_others",
    SendsAgainAndAgain: "test_what_nobody_has_sent_is_to_be_sent_and_noted_as_sent",
    TrustsTheMessage: "test_a_message_that_must_be_lost_is_sent_again_and_then_after_twice_as_long",
    SendsPastTheLine: "test_none_of_a_line_is_sent_while_an_earlier_one_is_under_way",
    KeepsVainMessages: "test_a_message_whose_key_was_held_is_sent_again_when_it_is_free",
    EverybodyHasTheRole: "test_one_of_all_living_has_a_role",
    TheRoleStaysWithTheDead: "test_a_role_goes_over_when_whoever_had_it_is_gone",
    NoRevisionGuard: "test_a_tick_of_another_revision_is_refused",
    NoWatermarkGuard: "test_a_tick_at_or_before_the_watermark_is_refused",
    NoDueGuard: "test_a_tick_before_its_time_is_refused",
    NoGraceGuard: "test_a_tick_later_than_the_grace_is_refused",
    GraceCountsFromTheInstant: "test_lateness_counts_from_when_the_run_is_due",
    NoDeadlineGuard: "test_a_tick_past_its_deadline_is_refused",
    NoStateGuard: "test_a_tick_of_a_job_that_is_not_active_is_refused",
    PausedMeansDisabled: "test_a_paused_job_can_be_started_by_hand",
    NoAliveGuard: "test_a_dead_process_opens_nothing_as_its_own",
    GuardsRunsByHandLikeTicks: "test_a_run_by_hand_knows_no_revision_and_no_lateness",
    KeepsStepsForAnybody: "test_only_the_start_that_has_the_run_writes",
    WritesStepsAnew: "test_a_step_goes_on_from_try_to_try_and_a_kept_one_is_not_written_again",
    NoUniqueTick: "test_a_second_run_for_the_same_tick_is_refused",
    NoUniqueTurn: "test_a_key_is_held_by_one_run",
    NoUniqueIdempotencyKey: "test_an_idempotency_key_is_used_once_per_job",
    LooksBeforeItLeaps: "test_each_of_two_hundred_ticks_is_opened_by_one_of_eight_threads",
    ForgetsWhatItAnswered: "test_the_same_write_again_changes_nothing_and_answers_the_same",
    HandsOutWhatHasEnded: "test_a_run_that_has_ended_meanwhile_is_not_handed_out_to_be_executed_again",
    KeepsHalfAWrite: "test_a_write_with_a_row_that_cannot_be_kept_keeps_nothing",
    OneBadTickSpoilsTheBatch: "test_of_a_batch_the_refused_ones_do_not_hinder_the_others",
    OneTwinIsEnough: "test_refused_ticks_that_have_a_row_are_taken",
    ForgetsWhatIsClosed: "test_what_was_written_for_many_jobs_is_kept_together_or_not_at_all",
    CommitsWhatFailed: "test_what_a_raising_block_wrote_is_gone",
    ReadsBeforeItLocks: "test_one_thread_at_a_time_holds_a_job",
    LocksOnlyToWrite: "test_no_tick_is_opened_while_its_job_is_being_changed",
    NothingExpires: "test_a_tick_that_did_not_start_before_its_deadline_is_missed",
    NothingIsSeenTo: "test_a_failed_run_is_a_dead_letter_until_somebody_has_seen_to_it",
    BeatsWithoutSigns: "test_a_beat_tells_how_late_the_ticks_come",
    InventsJobs: "test_an_unknown_job_cannot_be_locked",
    ChangesGoUnnoticed: "test_the_change_counter_grows_with_every_change",
    EverySettlementIsAChange: "test_keeping_the_account_is_no_change",
    SeedsOverwrite: "test_adding_a_job_that_is_there_leaves_it_as_it_is",
    DeclaringResumes: "test_declaring_overwrites_policies_and_nothing_else",
    InstallsWhenAsked: "test_exists_creates_nothing",
    DisabledJobsAreDue: "test_only_open_jobs_are_due",
    CancelClosesWhatRuns: "test_a_running_run_is_asked_to_end",
    CancelLeavesTheKey: "test_a_pending_run_is_cancelled_at_once",
    CancelsEverybodysRuns: "test_an_owner_learns_which_of_its_running_runs_somebody_wants_to_end",
    AnybodysProgress: "test_a_late_writer_s_progress_is_not_kept",
    LosesTheOrderOfLines: "test_lines_come_back_in_their_order_and_from_a_position_on",
    LinesFromTheBeginning: "test_lines_come_back_in_their_order_and_from_a_position_on",
    TheDeadBeat: "test_who_said_good_bye_beats_no_more",
    BuriesWhoSpoke: "test_a_process_that_has_spoken_since_is_not_buried",
    TheDeadDeclare: "test_what_the_living_declare_is_what_is_declared",
    OldestFirst: "test_runs_come_newest_first",
    PagesOverlap: "test_pages_follow_each_other_without_gap_or_overlap",
    TakesAnyEnd: "test_an_end_that_two_runs_share_or_that_is_too_short_finds_none",
    OnlyTheNewest: "test_the_last_runs_of_a_job_are_its_newest_and_the_newest_that_was_executed",
    AddsEveryHour: "test_totals_add_the_hours_of_each_job_by_status",
    OpenInstantsHide: "test_a_job_stands_by_its_newest_settled_instant_and_by_what_runs",
    CountsStartsByHand: "test_the_due_instants_of_a_job_are_its_newest_rows_but_starts_by_hand",
    FindsWhatWasSeenTo: "test_a_search_finds_the_runs_that_its_filter_wants_the_newest_first",
    SkipsBetweenPages: "test_pages_of_a_search_follow_each_other_without_gap_or_overlap",
    CountsHiddenRuns: "test_a_search_shows_a_view_only_what_it_sees",
    GroupsByJobAlone: "test_dead_letters_with_the_same_first_line_stand_together",
    CountsWhatNeverRan: "test_only_what_was_executed_and_has_ended_is_counted",
    ForgetsStretches: "test_a_tick_is_answered_for_by_its_row_or_by_the_stretch_that_covers_it",
    PurgesWhatIsNotAccounted: "test_a_tick_that_is_not_accounted_for_is_kept",
    PurgeForgetsWhereHistoryBegins: "test_history_begins_after_the_newest_purged_tick_and_never_earlier_than_before",
    PurgeLeavesTheRest: "test_attempts_and_lines_go_with_their_run",
    ForgetsWhoStillOwnsSomething: "test_processes_long_dead_are_forgotten_with_what_only_they_declared",
    TakesFromTheLiving: "test_nothing_of_a_living_process_is_taken_over",
    LeavesOrphans: "test_a_run_whose_process_died_has_failed",
}

OWNER, STARTS, STATUS = " AND owner = ?", " AND starts = ?", " AND status = 'running'"
LINE = """
 AND (r.turn IS NOT 'waits' OR NOT EXISTS
   (SELECT 1 FROM jobmanager_runs h WHERE h.concurrency_key = r.concurrency_key AND h.turn = 'holds'))"""
OPEN_JOB = "(j.state IN ('active', 'paused') OR (? AND j.state = 'disabled'))"

BROKEN_STATEMENTS: Mapping[str, tuple[str, str, str, str]] = {
    "ends what another owns": (
        "END", OWNER, " AND ? <> ''", "test_another_owner_s_ending_does_not_count"),
    "ends another start": (
        "END", STARTS, " AND ? > 0", "test_a_late_writer_of_an_earlier_start_of_the_same_owner_is_refused"),
    "compares attempts": (
        "END", STARTS, " AND attempt = ?",
        "test_a_late_writer_of_an_earlier_start_of_the_same_owner_is_refused"),
    "ends the attempt after its own": (
        "END", STARTS, " AND ? > 0", "test_a_late_writer_cannot_end_the_attempt_after_its_own"),
    "ends what has ended": (
        "END", STATUS, "", "test_an_ended_run_stays_as_it_ended"),
    "keeps the key when it ends": (
        "END", "turn = NULL", "turn = turn", "test_a_key_is_free_when_its_holder_has_ended"),
    "retries what another owns": (
        "RETRY", OWNER, " AND ? <> ''", "test_a_late_writer_gets_no_other_attempt"),
    "retries another start": (
        "RETRY", STARTS, " AND ? > 0", "test_a_late_writer_gets_no_other_attempt"),
    "retries what is to be cancelled": (
        "RETRY", " AND cancel_requested_at IS NULL", "", "test_a_run_whose_cancel_was_requested_is_not_tried_again"),
    "retries for a closed job": (
        "RETRY", OPEN_JOB, "? IS NOT NULL", "test_a_run_whose_job_is_no_longer_open_is_not_tried_again"),
    "gives the key away at a retry": (
        "RETRY", "owner = NULL", "owner = NULL, turn = NULL", "test_a_run_keeps_its_key_until_its_last_attempt"),
    "claims for the dead": (
        "DECLARES", " AND dead_at IS NULL", "", "test_a_dead_or_unknown_process_gets_nothing"),
    "claims what others declare": (
        "CLAIMABLE", ":declares IS NULL OR", "1 OR", "test_a_process_gets_runs_of_the_jobs_it_declares_only"),
    "claims before its time": (
        "CLAIMABLE", "r.due_at <= :now", ":now > 0", "test_what_is_not_due_yet_stays"),
    "claims what was announced": (
        "CLAIMABLE", " AND r.accepted_at IS NOT NULL", "", "test_a_run_that_was_only_announced_is_not_claimed"),
    "claims by age alone": (
        "CLAIMABLE", "r.priority DESC, ", "", "test_priority_comes_first_then_age"),
    "claims by priority alone": (
        "CLAIMABLE", "r.due_at, r.id", "r.id DESC", "test_priority_comes_first_then_age"),
    "claims past the deadline": (
        "CLAIMABLE", "r.expires_at >= :now", ":now > 0", "test_a_tick_past_its_deadline_is_not_claimed"),
    "claims of any namespace": (
        "CLAIMABLE", "j.namespace = :namespace", ":namespace <> ''", "test_runs_of_another_namespace_are_left_alone"),
    "claims for closed jobs": (
        "CLAIMABLE", "j.state IN ('active', 'paused')", "1", "test_runs_of_a_job_that_is_not_open_are_not_claimed"),
    "claims what it does not know": (
        "CLAIMABLE", "NOT IN (SELECT value FROM json_each(:unknown))", "<> :unknown",
        "test_jobs_that_a_process_does_not_know_are_left_to_others"),
    "claims past the holder": (
        "CLAIMABLE", LINE, "", "test_a_run_that_waits_for_its_key_stays_while_somebody_holds_it"),
    "claims any run": (
        "CLAIMABLE_OF", "r.id IN (SELECT value FROM json_each(:run_ids))", "1",
        "test_one_run_can_be_claimed_by_its_id_if_it_could_be_claimed_at_all"),
    "forgets to count the attempt": (
        "CLAIM", "THEN 0 ELSE 1", "THEN 0 ELSE 0", "test_attempts_count_from_start_to_start"),
    "counts an interrupted attempt": (
        "CLAIM", "THEN 0 ELSE 1", "THEN 1 ELSE 1", "test_a_run_given_back_starts_again_with_the_same_attempt"),
    "keeps the reason of the pause": (
        "CLAIM", ", reason = NULL", "", "test_a_run_given_back_starts_again_with_the_same_attempt"),
    "forgets to count the start": (
        "CLAIM", "starts = starts + 1", "starts = max(starts, 1)", "test_attempts_count_from_start_to_start"),
    "begins by being taken": (
        "RETRY", "THEN 0 ELSE attempt", "THEN 1 ELSE attempt",
        "test_a_run_that_never_began_is_as_if_it_had_not_been_taken"),
    "never begins when it is interrupted": (
        "RETRY", "AND attempt = 1 AND NOT EXISTS", "OR 1 OR EXISTS",
        "test_a_run_that_was_interrupted_before_it_was_returned_has_begun"),
}  # fmt: skip


BROKEN_PAGES: Mapping[str, tuple[str, Callable[..., Any], str]] = {
    "nobody holds a key": (
        "holder", lambda txn, truth, key: None, "test_the_holder_is_the_run_whose_turn_it_is"),
    "a holder is whoever came last": (
        "holder", lambda txn, truth, key: txn._first(txn._runs.c.concurrency_key == key),
        "test_the_holder_is_the_run_whose_turn_it_is"),
    "the line is a crowd": (
        "waiting", lambda txn, truth, key: truth(key)[::-1], "test_due_runs_that_wait_for_a_key_stand_in_line"),
    "pending runs stay": (
        "close_pending", lambda txn, truth: None,
        "test_closing_what_is_pending_skips_first_attempts_of_ticks_and_cancels_the_rest"),
    "nobody is superseded": (
        "supersede", lambda txn, truth, run: None,
        "test_a_pending_run_can_be_superseded_and_a_running_one_cannot"),
    "nobody is asked": (
        "request_cancel", lambda txn, truth, run: None,
        "test_the_owner_of_a_running_run_is_asked_to_end_it_once"),
    "the first instant counts twice": (
        "instants", lambda txn, truth, after, until: truth(after - timedelta(seconds=1), until),
        "test_instants_are_those_of_the_job_s_rows_after_and_until"),
    "skipped counts as opened": (
        "opened_after", lambda txn, truth, instant: (txn.newest_instant() or instant) > instant,
        "test_a_later_tick_counts_as_opened_unless_it_is_skipped_missed_or_only_announced"),
    "a pause grows beyond the watermark": (
        "pause_row", lambda txn, truth: txn.run_for(txn.newest_instant()),
        "test_a_pause_row_beyond_the_watermark_does_not_grow"),
    "any row is a pause": (
        "pause_row", lambda txn, truth: txn.run_for(txn.newest_instant()),
        "test_the_pause_row_is_the_newest_row_if_it_is_one"),
    "a row does not grow": (
        "grow", lambda txn, truth, run: None, "test_growing_a_row_moves_its_ends_and_its_ticks"),
    "somebody always lived": (
        "was_alive", lambda txn, truth, instant: True,
        "test_somebody_was_alive_between_a_start_and_the_last_sign_of_life"),
    "only the living lived": (
        "was_alive", lambda txn, truth, instant: truth(instant) and bool(SqlProcesses(txn._database).living()),
        "test_a_process_that_died_since_was_alive_then"),
    "every process executes": (
        "executed_since",
        lambda txn, truth, seen: min((each.started_at for each in SqlProcesses(txn._database).living()), default=None),
        "test_a_job_is_executed_by_a_living_process_of_its_namespace_that_executes"),
    "strangers live": (
        "is_alive", lambda txn, truth, instance_id: True, "test_an_unknown_instance_counts_as_dead"),
    "everything can be inserted": (
        "insert", lambda txn, truth, run: truth(run) or True,
        "test_a_taken_id_tick_key_or_turn_is_not_inserted"),
    "keys are shared by all jobs": (
        "run_with_key", lambda txn, truth, key: txn._first(txn._runs.c.idempotency_key == key),
        "test_a_run_is_found_by_id_by_tick_and_by_key"),
    "a stretch is its last instant": (
        "range_over", lambda txn, truth, instant: txn.run_for(instant),
        "test_a_stretch_is_found_by_any_instant_it_covers"),
    "skipped counts as executed": (
        "last_ended", lambda txn, truth, count: [run for run in SqlHistory(txn._database).runs() if run.finished_at][:count],
        "test_the_last_ended_runs_are_those_that_were_executed"),
    "the old outcome is forgotten": (
        "reopen", lambda txn, truth, run, **how: truth(replace(run, error=None, attempt=0), **how),
        "test_a_reopened_run_is_pending_and_due_and_its_outcome_becomes_an_attempt"),
}  # fmt: skip


def with_broken_page(method: str, instead: Callable[..., Any]) -> type[Broken]:
    class BrokenPage(Broken, SqlJobs):
        @contextmanager
        def lock(self, job_id: str) -> Iterator[JobTransaction]:
            with super().lock(job_id) as txn:
                setattr(txn, method, partial(instead, txn, getattr(txn, method)))
                yield txn

    return BrokenPage


def with_facet(broken: type[Broken], clock: FakeClock) -> MemoryStore:
    """Return a sound store whose facet of this kind is the broken one."""
    store = MemoryStore(clock=clock)
    facets: list[Any] = [
        store.jobs,
        store.runs,
        store.processes,
        store.history,
        store.search,
        store.maintenance,
        store.statistics,
        store.webhooks,
        store.steps,
        store.requests,
    ]
    [facet] = [facet for facet in facets if issubclass(broken, type(facet))]
    facet.__class__ = broken
    facet.store = store
    return store


def store_contract(broken: type[MemoryStore | Broken]) -> RunStoreContract:
    class Checked(RunStoreContract):
        def make_store(self, clock: FakeClock, tmp_path: Path) -> MemoryStore:
            return broken(clock=clock) if issubclass(broken, MemoryStore) else with_facet(broken, clock)

    return Checked()


@pytest.mark.parametrize("broken", BROKEN_STORES, ids=lambda broken: broken.__name__)
def test_a_broken_store_is_caught(broken: type[MemoryStore | Broken]) -> None:
    name = BROKEN_STORES[broken]

    assert broken_promises(store_contract(broken), [name]) == [name]


@pytest.mark.parametrize("what", BROKEN_STATEMENTS)
def test_a_broken_statement_is_caught(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statement, condition, instead, name = BROKEN_STATEMENTS[what]
    text: str = getattr(sqlite_runs, statement)
    assert condition in text, f"{statement} reads differently now; break it anew"
    monkeypatch.setattr(sqlite_runs, statement, text.replace(condition, instead))

    assert broken_promises(store_contract(MemoryStore), [name]) == [name]


@pytest.mark.parametrize("what", BROKEN_PAGES)
def test_a_broken_page_is_caught(what: str) -> None:
    method, instead, name = BROKEN_PAGES[what]

    assert broken_promises(store_contract(with_broken_page(method, instead)), [name]) == [name]


def test_a_sound_store_is_not_accused() -> None:
    rows = [*BROKEN_STATEMENTS.values(), *BROKEN_PAGES.values()]
    names = {*BROKEN_STORES.values(), *(row[-1] for row in rows)}

    assert broken_promises(store_contract(MemoryStore), names) == []
