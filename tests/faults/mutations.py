"""The library with one mechanism removed: a pytest plugin that edits a module's source, or the SQL of pg_cron's backend, while it is loaded.

    JOBMANAGER_TEST_MUTATION=fence python -m pytest -p tests.faults.mutations tests/faults

must fail. The text to be removed must occur in the module, so that a mutation cannot outlive what it removes. One table per
theme; each mutation names the single test that notices it within seconds, for the gate tries them all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any


@dataclass(frozen=True)
class Mutation:
    """What is taken away, where, and which tests must notice.

    `module` is a dotted name, or the path of an SQL file beside the modules, such as `jobmanager/.../04_fire.sql`.
    """

    module: str
    old: str
    new: str
    tests: tuple[str, ...]
    on_a_server: bool = False


CALLED = "jobmanager.manager.called"
EXECUTOR = "jobmanager.execution.executor"
FAILURE_DETECTOR = "jobmanager.process.failure_detector"
MISSING = "jobmanager.ledger.missing_instants"
OUTCOME = "jobmanager.execution.outcome"
RECONCILIATION = "jobmanager.ledger.reconciliation"
RECORDER = "jobmanager.ledger.recorder"
STORE = "jobmanager.stores.sql.sqlite_runs"
SWEEP = "jobmanager.manager.sweep"
WRITES = "jobmanager.stores.sql.postgres_writes"

BACKOFF = "tests/unit/execution/test_retry_backoff.py::"
CATCH_UP = "tests/unit/ledger/test_catch_up_edges.py::"
CLOCKS = "tests/integration/test_outside_clocks.py::"
ENDS = "tests/unit/execution/test_ends_of_attempts.py::"
EVENTS = "tests/integration/test_events.py::"
INLINE = "tests/unit/execution/test_inline.py::"
LINE = "tests/unit/ledger/test_line.py::"
LOCALE = "tests/unit/test_context_locale.py::"
OUTCOMES = "tests/faults/test_unknown_outcomes.py::"
POSTGRES_CONTRACT = "tests/contract/test_postgres_store.py::TestPostgresStore::"
RACE = "tests/faults/test_killed_anywhere.py::test_of_many_processes_that_race_for_a_tick_exactly_one_wins[sqlite-4-200]"
REFUSED = "tests/unit/ledger/test_ticks_that_are_refused.py::"
SETTLING = "tests/unit/ledger/test_settling.py::"
SILENCE = "tests/unit/process/test_silent_processes.py::"
SLOTS = "tests/unit/execution/test_slots.py::"
SQLITE_CONTRACT = "tests/contract/test_stores.py::TestSqliteStore::"
STRETCHES = "tests/unit/ledger/test_redrive_of_a_stretch.py::"
SWEEP_AND_INSERT = "tests/integration/test_postgres_races.py::TestSweepAgainstOpening::"
THREE_HOURS = "tests/unit/schedule/test_three_hour_changes.py::"

SWITCHES = {
    "unique tick": Mutation(
        "jobmanager.stores.sql.tables",
        "c.job_id, c.scheduled_for, unique=True",
        "c.job_id, c.scheduled_for, unique=False",
        (RACE,),
    ),
    "fence": Mutation(
        STORE,
        "FENCE = \"id = ? AND owner = ? AND starts = ? AND status = 'running'\"",
        'FENCE = "id = ? AND ? IS NOT NULL AND ? IS NOT NULL"',
        (OUTCOMES + "test_the_end_of_a_run_that_was_taken_over_is_refused[sqlite]",),
    ),
    "sweep": Mutation(
        SWEEP,
        "        self._take_over()\n        self._end_forgotten()\n",
        "        return\n",
        (CATCH_UP + "test_a_hole_is_caught_up_when_no_later_instant_has_run",),
    ),
    "BEGIN IMMEDIATE": Mutation(
        "jobmanager.stores.sql.sqlite_database", 'execute("BEGIN IMMEDIATE")', 'execute("BEGIN")', (RACE,)
    ),
}
"""The four that the whole promise rests on: at every test run, the others in the full programme."""

OPENING = {
    "unique key": Mutation(
        "jobmanager.stores.sql.tables",
        """("holds", (c.concurrency_key,), "turn = 'holds'", True)""",
        """("holds", (c.concurrency_key,), "turn = 'holds'", False)""",
        (SQLITE_CONTRACT + "test_a_key_is_held_by_one_run",),
    ),
    "watermark guard": Mutation(
        STORE,
        "(run.announced or accounted_until < (micros(run.scheduled_for) or 0))",
        "True",
        (SQLITE_CONTRACT + "test_a_tick_at_or_before_the_watermark_is_refused",),
    ),
    "grace guard": Mutation(
        STORE,
        "now - self._grace < run.due_at <= now",
        "run.due_at <= now",
        (SQLITE_CONTRACT + "test_a_tick_later_than_the_grace_is_refused",),
    ),
    "due guard": Mutation(
        STORE,
        "now - self._grace < run.due_at <= now",
        "now - self._grace < run.due_at",
        (SQLITE_CONTRACT + "test_a_tick_before_its_time_is_refused",),
    ),
    "revision guard": Mutation(
        STORE,
        "(run.announced or schedule_rev == run.schedule_rev)",
        "True",
        (SQLITE_CONTRACT + "test_a_tick_of_another_revision_is_refused",),
    ),
    "alive guard": Mutation(
        STORE,
        "run.owner is not None and run.owner not in living",
        "False",
        (SQLITE_CONTRACT + "test_a_dead_process_opens_nothing_as_its_own",),
    ),
    "same id on repeat": Mutation(
        "jobmanager.ledger.group_commit",
        "                pause = min(pause * 2, LONGEST_PAUSE)\n",
        "                opens = [replace(run, id=run.id[:-4] + f'{n:04x}') for n, run in enumerate(opens, 0xA000)]\n",
        (
            OUTCOMES
            + "test_an_open_whose_answer_was_lost_after_the_commit_is_repeated_and_starts_once[sqlite-3]",
        ),
    ),
}
"""What refuses a tick in the guarded insert, and keeps a repeated one from being two."""

REFUSED_TICKS = {
    "watermark guard of the slow path": Mutation(
        RECORDER,
        "if instant <= txn.job.accounted_until:",
        "if False:",
        (REFUSED + "test_an_instant_from_before_the_job_was_declared_opens_nothing",),
    ),
    "revision guard of the slow path": Mutation(
        RECORDER,
        "if txn.job.schedule_rev != run.schedule_rev:",
        "if False:",
        (REFUSED + "test_a_tick_of_a_schedule_that_is_over_opens_nothing",),
    ),
    "grace of the slow path": Mutation(
        RECORDER,
        """        if run.due_at <= txn.now - self._grace:
            return OpenResult("late")
        if is_excluded""",
        "        if is_excluded",
        (REFUSED + "test_a_tick_is_on_time_for_less_than_the_grace",),
    ),
    "exclusion of the slow path": Mutation(
        RECORDER,
        """        if is_excluded(txn.job, instant):
            return _excluded(txn, run)
""",
        "",
        ("tests/unit/ledger/test_excluded.py::test_an_excluded_tick_is_a_row_and_no_run",),
    ),
    "due guard of the slow path": Mutation(
        RECORDER,
        """        if run.due_at > txn.now:
            return OpenResult("early")
""",
        "",
        (REFUSED + "test_an_early_tick_starts_when_it_is_due",),
    ),
    "a stale tick reloads its job": Mutation(
        "jobmanager.execution.runner",
        "self._background.run_task_soon(FOLLOW_CHANGES)",
        "pass",
        (REFUSED + "test_a_tick_of_a_schedule_that_is_over_makes_the_process_read_the_new_one",),
    ),
}
"""What decides about a refused tick under its job's lock."""

LINES = {
    "nobody overtakes the line": Mutation(
        "jobmanager.ledger.overlap",
        "if queue.first is None:",
        "if queue.holder is None:",
        (LINE + "test_a_newcomer_of_queue_all_goes_behind_those_that_wait",),
    ),
    "the cap of a line": Mutation(
        "jobmanager.ledger.overlap",
        "len(queue.waiting) < txn.job.queue_cap",
        "len(queue.waiting) <= txn.job.queue_cap",
        (LINE + "test_no_more_wait_than_the_cap_though_nobody_holds_the_key",),
    ),
    "a pending holder makes way": Mutation(
        "jobmanager.ledger.overlap",
        "    if queue.holder.status is PENDING:\n        txn.supersede(queue.holder)\n        return run\n",
        "",
        (LINE + "test_a_newcomer_of_cancel_running_takes_the_place_of_a_holder_between_two_attempts",),
    ),
}
"""Who is next for a key."""

ACCOUNT = {
    "account": Mutation(
        SWEEP,
        "        self._account.settle_due()\n",
        "",
        (CATCH_UP + "test_a_hole_is_caught_up_when_no_later_instant_has_run",),
    ),
    "settle before change": Mutation(
        RECONCILIATION,
        "                self._close_revision(txn, end, becomes=after.state)\n",
        "",
        (
            "tests/behaviour/test_account.py::test_editing_the_schedule_settles_the_old_rule_and_fires_nothing",
        ),
    ),
    "latest unless a newer one ran": Mutation(
        MISSING,
        "[] if txn.opened_after(inside[-1]) else inside[-1:]",
        "inside[-1:]",
        (CATCH_UP + "test_a_hole_is_not_caught_up_when_a_later_instant_has_run",),
    ),
    "the catch-up window's edge": Mutation(
        MISSING,
        "if instant > txn.now - window]",
        "if instant >= txn.now - window]",
        (CATCH_UP + "test_the_window_begins_after_the_moment_so_long_ago",),
    ),
    "catch-up cap": Mutation(
        MISSING,
        "inside[-job.catch_up_cap :]",
        "inside",
        (CATCH_UP + "test_of_many_holes_the_newest_up_to_the_cap_are_caught_up",),
    ),
    "no redrive of a stretch": Mutation(
        RECONCILIATION,
        "if run.ticks != 1:",
        "if False:",
        (STRETCHES + "test_a_row_that_stands_for_many_instants_is_not_redriven",),
    ),
    "no backfill into a stretch": Mutation(
        "jobmanager.ledger.backfill",
        "if row.ticks > 1:",
        "if False:",
        (STRETCHES + "test_backfill_leaves_a_row_that_stands_for_many_instants",),
    ),
    "the account waits for the jitter": Mutation(
        RECONCILIATION,
        "max(txn.now - self._grace - txn.job.jitter, txn.job.accounted_until)",
        "max(txn.now - self._grace, txn.job.accounted_until)",
        (SETTLING + "test_a_tick_whose_jitter_is_longer_than_the_grace_is_left_to_come",),
    ),
    "the watermark never falls": Mutation(
        RECONCILIATION,
        "max(txn.now - self._grace - txn.job.jitter, txn.job.accounted_until)",
        "txn.now - self._grace - txn.job.jitter",
        (SETTLING + "test_what_was_accounted_for_stays_so_however_long_the_jitter",),
    ),
    "a change begins after the account": Mutation(
        RECONCILIATION,
        "max(txn.now, before.accounted_until, txn.newest_instant() or before.accounted_until)",
        "max(txn.now, txn.newest_instant() or txn.now)",
        (SETTLING + "test_a_change_after_the_clock_was_set_back_begins_where_the_account_ended[nothing-2]",),
    ),
    "a change begins after the newest row": Mutation(
        RECONCILIATION,
        "max(txn.now, before.accounted_until, txn.newest_instant() or before.accounted_until)",
        "max(txn.now, before.accounted_until)",
        (SETTLING + "test_a_change_after_the_clock_was_set_back_begins_where_the_account_ended[brought-6]",),
    ),
    "a stretch ends at a row": Mutation(
        MISSING,
        "sorted({bisect_left(instants, instant) for instant in covered} | {0, len(instants)})",
        "[0, len(instants)]",
        (SETTLING + "test_older_holes_are_folded_around_the_rows_between_them",),
    ),
}
"""What gives every instant one row, and makes up what the policy says."""

ATTEMPTS = {
    "lent slot": Mutation(
        "jobmanager.execution.claiming",
        "lent = slot.lend() if queued or due else None",
        "lent = None",
        (INLINE + "test_a_handler_that_waits_on_a_clock_moved_by_hand_has_what_it_waits_for_executed",),
    ),
    "place of a lent slot": Mutation(
        "jobmanager.execution.slots",
        "self.in_flight += self._end_loans_of(slot)",
        "self._end_loans_of(slot)",
        (SLOTS + "test_held_slots_without_those_that_share_a_place_are_in_flight_after_any_steps",),
    ),
    "backoff factor": Mutation(
        "jobmanager.job",
        "self.base * self.factor ** min(attempt - 1, 64)",
        "self.base",
        (BACKOFF + "test_each_delay_is_the_factor_times_the_one_before_up_to_the_longest",),
    ),
    "longest backoff": Mutation(
        "jobmanager.job",
        "min(attempt - 1, 64), self.max_delay)",
        "min(attempt - 1, 64), 1e9)",
        (BACKOFF + "test_each_delay_is_the_factor_times_the_one_before_up_to_the_longest",),
    ),
    "backoff jitter": Mutation(
        "jobmanager.job",
        "seconds * (1 + self.jitter * random.random())",
        "seconds",
        (BACKOFF + "test_jitter_lengthens_each_delay_by_a_share_of_its_own",),
    ),
    "RetryLater counts its attempt": Mutation(
        OUTCOME,
        "raised.delay if _may_go_on(attempt) else None",
        "raised.delay if attempt.run.attempt <= attempt.run.max_attempts else None",
        (BACKOFF + "test_retry_later_makes_no_more_attempts_than_the_policy_gives",),
    ),
    "job-open guard": Mutation(
        STORE,
        "(j.state IN ('active', 'paused') OR (? AND j.state = 'disabled'))",
        "(j.state <> 'nothing' OR ?)",
        (SQLITE_CONTRACT + "test_a_run_whose_job_is_no_longer_open_is_not_tried_again",),
    ),
    "locale of the payload": Mutation(
        "jobmanager.context",
        'self.payload.get("locale")',
        "None",
        (LOCALE + "test_the_payload_decides_then_the_job_and_then_it_is_english",),
    ),
    "locale of the job": Mutation(
        "jobmanager.context",
        "self.job.locale or ",
        "",
        (LOCALE + "test_the_payload_decides_then_the_job_and_then_it_is_english",),
    ),
    "one attempt too many": Mutation(
        OUTCOME,
        "return attempt.run.attempt < attempt.run.max_attempts",
        "return attempt.run.attempt <= attempt.run.max_attempts",
        (BACKOFF + "test_an_error_makes_no_more_attempts_than_the_policy_gives",),
    ),
    "a request to end that was not seen": Mutation(
        OUTCOME,
        "if cause is not None and (raised is not None or attempt.stop_seen):",
        "if cause is not None:",
        (ENDS + "test_what_becomes_of_a_run_that_was_asked_to_end[returned_unseen-succeeded-None-None]",),
    ),
    "on_crash at the end of the process": Mutation(
        OUTCOME,
        """while the handler ran"
    again = attempt.job.retry.on_crash and _may_go_on(attempt)""",
        """while the handler ran"
    again = _may_go_on(attempt)""",
        (ENDS + "test_a_run_that_the_end_of_the_process_cuts_goes_on_elsewhere_if_it_may",),
    ),
    "a duration by the monotonic clock": Mutation(
        OUTCOME,
        "finished_at=attempt.started_at + timedelta(0, elapsed)",
        "finished_at=clock.now()",
        (ENDS + "test_a_run_takes_as_long_as_it_takes_though_the_clock_is_set_meanwhile",),
    ),
}
"""How often a run is tried, when, and what its handler is told."""

PROCESSES = {
    "lease_ok": Mutation(
        EXECUTOR,
        "self._heartbeat.ok() or self._heartbeat.wait_until_ok()",
        "True",
        (OUTCOMES + "test_a_process_whose_heartbeat_fails_starts_no_handler_after_its_lease[sqlite]",),
    ),
    "owner before the handler": Mutation(
        EXECUTOR,
        "if not trusted or run.owner != self._heartbeat.id:",
        "if not trusted:",
        ("tests/unit/execution/test_lost_ownership.py",),
    ),
    "takeover": Mutation(
        SWEEP,
        "        self._take_over()\n",
        "",
        (SILENCE + "test_runs_of_a_dead_process_are_taken_over",),
    ),
    "self-check": Mutation(
        SWEEP,
        "        self._end_forgotten()\n",
        "",
        (OUTCOMES + "test_a_run_of_ours_that_nobody_here_knows_is_ended_and_tried_again",),
    ),
    "watching": Mutation(
        FAILURE_DETECTOR,
        "            self._first_seen.clear()\n        self._last_beat",
        "            pass\n        self._last_beat",
        (SILENCE + "test_whoever_slept_for_half_a_lease_watches_from_the_beginning",),
    ),
    "a whole lease of silence": Mutation(
        FAILURE_DETECTOR,
        "return now - since > self._length",
        "return now - since > self._length / 2",
        (SILENCE + "test_a_silent_process_is_dead_after_more_than_a_lease",),
    ),
    "watching after an outage": Mutation(
        FAILURE_DETECTOR,
        "            self.forget()\n            return",
        "            return",
        (SILENCE + "test_after_an_outage_of_its_own_a_process_watches_from_the_beginning[living]",),
    ),
}
"""Who is dead, and what becomes of its runs."""

CALENDAR = {
    "a change of three hours": Mutation(
        "jobmanager.schedule.calendar",
        "<= LARGEST_SHIFT",
        "< LARGEST_SHIFT",
        (THREE_HOURS + "test_a_time_that_three_skipped_hours_swallowed_fires_at_their_end",),
    ),
    "a change of three hours outside": Mutation(
        "jobmanager.schedule.wakeup",
        "<= LARGEST_SHIFT // 60",
        "< LARGEST_SHIFT // 60",
        (THREE_HOURS + "test_a_ticker_outside_wakes_at_the_end_of_three_skipped_hours",),
    ),
}
"""Which instants a schedule has."""

ON_POSTGRES = {
    "fence on PostgreSQL": Mutation(
        WRITES,
        "r.id = v.id AND r.owner = v.owner AND r.starts = v.starts AND r.status = 'running'",
        "r.id = v.id",
        (POSTGRES_CONTRACT + "test_another_owner_s_ending_does_not_count",),
        on_a_server=True,
    ),
    "share of the job's lock": Mutation(
        WRITES,
        "\n   FOR SHARE OF j\n",
        "\n",
        (SWEEP_AND_INSERT + "test_a_sweep_waits_for_an_insert_that_has_not_committed_and_then_sees_its_row",),
        on_a_server=True,
    ),
    "watermark guard on PostgreSQL": Mutation(
        WRITES,
        "AND j.accounted_until < t.scheduled_for",
        "",
        (POSTGRES_CONTRACT + "test_a_tick_at_or_before_the_watermark_is_refused",),
        on_a_server=True,
    ),
    "revision guard on PostgreSQL": Mutation(
        WRITES,
        "AND j.schedule_rev = t.schedule_rev",
        "",
        (POSTGRES_CONTRACT + "test_a_tick_of_another_revision_is_refused",),
        on_a_server=True,
    ),
    "alive guard on PostgreSQL": Mutation(
        WRITES,
        "AND (t.owner IS NULL OR EXISTS (SELECT FROM jobmanager.instances i WHERE i.id = t.owner AND i.dead_at IS NULL))",
        "",
        (POSTGRES_CONTRACT + "test_a_dead_process_opens_nothing_as_its_own",),
        on_a_server=True,
    ),
    "a listener looks until it is noticed": Mutation(
        "jobmanager.manager.feed",
        "looked_at + (NOTICED_WITHIN if announces else 0)",
        "looked_at",
        (
            EVENTS
            + "test_a_listener_that_began_a_moment_ago_hears_of_an_end_that_was_not_announced[postgres]",
        ),
        on_a_server=True,
    ),
    "ends are announced only to listeners": Mutation(
        "jobmanager.stores.sql.postgres_signals",
        "WHERE NOT pg_catalog.pg_try_advisory_xact_lock(%s, %s)",
        "WHERE %s + %s > 0",
        (EVENTS + "test_nothing_is_announced_while_nobody_listens",),
        on_a_server=True,
    ),
    "a session that listens is noticed": Mutation(
        "jobmanager.stores.sql.postgres_signals",
        'self._driver.execute("SELECT pg_catalog.pg_advisory_lock_shared(%s, %s)", LISTENING)',
        "pass",
        (POSTGRES_CONTRACT + "test_an_announcement_says_whether_a_listener_was_there",),
        on_a_server=True,
    ),
    "rolled back is repeated": Mutation(
        "jobmanager.stores.sql.postgres_link",
        """    "40": "a concurrent transaction was in the way; it is tried again.",\n""",
        "",
        (OUTCOMES + "test_what_postgresql_rolls_back_for_a_while_is_repeated_and_runs_once[40001]",),
        on_a_server=True,
    ),
}
"""Guards that only the other database's statements show."""

PUBLISHER = "jobmanager.backends.celery.publisher"
MESSAGES = "tests/integration/test_celery_messages.py::"
SQL = "jobmanager/backends/pg_cron/sql/"
IN_SQL = "tests/integration/test_pg_cron_guards.py::"
TRANSPORTS = "tests/integration/test_pg_cron_transports.py::"
BYTES = "tests/integration/test_pg_cron_answer_bytes.py::"
GAPS = "tests/integration/test_pg_cron_plan_gaps.py::"

BACKENDS = {
    "priority of a message": Mutation(
        PUBLISHER,
        "return min(max(4 + priority, 0), 9) if self._amqp else min(max(6 - 3 * priority, 0), 9)",
        "return min(max(4 - priority, 0), 9) if self._amqp else min(max(6 + 3 * priority, 0), 9)",
        (MESSAGES + "test_the_higher_priority_comes_first[redis]",),
        on_a_server=True,
    ),
    "priority of a message in AMQP": Mutation(
        PUBLISHER,
        "min(max(4 + priority, 0), 9)",
        "min(max(4 - priority, 0), 9)",
        (MESSAGES + "test_the_higher_priority_comes_first[rabbitmq]",),
        on_a_server=True,
    ),
    "no time limit on a group": Mutation(
        PUBLISHER,
        "time_limit=first.time_limit if len(group) == 1 else None",
        "time_limit=first.time_limit",
        (MESSAGES + "test_only_a_message_of_one_run_has_a_time_limit",),
    ),
    "groups of one kind": Mutation(
        PUBLISHER,
        "(message.queue, message.priority, message.time_limit)",
        "message.queue",
        (MESSAGES + "test_a_group_holds_runs_of_one_queue_priority_and_limit",),
    ),
    "runs that are refused are kept": Mutation(
        PUBLISHER,
        "if isinstance(error, self._refusals):",
        "if False:",
        (
            MESSAGES
            + "test_a_redis_that_refuses_is_told_once_and_gets_everything_when_it_takes_messages_again[full]",
        ),
        on_a_server=True,
    ),
    "a reply of RabbitMQ is waited for": Mutation(
        PUBLISHER,
        "            producer.channel.basic_qos(0, 0, a_global=False)\n",
        "            pass\n",
        (
            MESSAGES
            + "test_a_rabbitmq_that_refuses_is_told_once_and_gets_everything_when_it_takes_messages_again[no right to write]",
        ),
        on_a_server=True,
    ),
    "queues declared again": Mutation(
        PUBLISHER,
        "        self._declared.clear()\n",
        "",
        (MESSAGES + "test_a_queue_that_was_deleted_is_declared_again_on_a_new_connection",),
        on_a_server=True,
    ),
    "flush of a script": Mutation(
        "jobmanager.backends.celery.backend",
        "            self._publisher.flush(FLUSH_WITHIN)\n",
        "            pass\n",
        (MESSAGES + "test_what_a_script_starts_is_sent_before_its_next_line",),
        on_a_server=True,
    ),
    "watermark moved by fire": Mutation(
        SQL + "04_fire.sql",
        "SET accounted_until = greatest(j.accounted_until, last.tick),\n      next_due_at",
        "SET next_due_at",
        (IN_SQL + "test_fire_moves_the_account_to_the_last_instant_it_announced",),
        on_a_server=True,
    ),
    "watermark never moved back by fire": Mutation(
        SQL + "04_fire.sql",
        "accounted_until = greatest(j.accounted_until, last.tick)",
        "accounted_until = coalesce(last.tick, j.accounted_until)",
        (IN_SQL + "test_fire_takes_no_account_back",),
        on_a_server=True,
    ),
    "only active jobs announced": Mutation(
        SQL + "04_fire.sql",
        "AND j.state = 'active'\n",
        "\n",
        (IN_SQL + "test_a_job_that_is_not_active_is_not_announced[fire-paused]",),
        on_a_server=True,
    ),
    "only jobs of an application that is called announced": Mutation(
        SQL + "04_fire.sql",
        """       AND EXISTS (SELECT FROM jobmanager.active_tickers t WHERE t.namespace = j.namespace
         AND (_http IS NULL OR (t.transport = 'http') = _http))\n""",
        "",
        (IN_SQL + "test_an_application_that_keeps_its_own_time_is_not_announced",),
        on_a_server=True,
    ),
    "an entry announces its own job": Mutation(
        SQL + "04_fire.sql",
        "       AND (_entry IS NULL OR jobmanager.entry_name(j.id) = _entry)\n",
        "",
        (IN_SQL + "test_an_entry_announces_its_own_job_alone",),
        on_a_server=True,
    ),
    "an entry announces for those that it calls": Mutation(
        SQL + "04_fire.sql",
        "\n         AND (_http IS NULL OR (t.transport = 'http') = _http))",
        ")",
        (TRANSPORTS + "test_one_entry_announces_nothing_for_applications_that_it_does_not_call",),
        on_a_server=True,
    ),
    "every pass calls by http": Mutation(
        SQL + "05_sweep.sql",
        "    CALL jobmanager.call_by_http();\n    EXIT",
        "    EXIT",
        (
            TRANSPORTS
            + "test_of_the_two_entries_at_a_full_minute_whichever_is_held_up_the_tick_is_called_for[sweep-http-runs]",
        ),
        on_a_server=True,
    ),
    "an entry that fires elsewhere is made anew": Mutation(
        SQL + "06_entries.sql",
        " OR NOT o.active OR o.place <> '';",
        " OR NOT o.active;",
        ("tests/integration/test_pg_cron_moved.py::test_a_dump_restored_on_another_server_fires_there",),
        on_a_server=True,
    ),
    "no plan leaves a job due": Mutation(
        SQL + "04_fire.sql",
        "CASE WHEN jobmanager.lacks_plan(last.schedule) THEN coalesce(last.tick, last.next_due_at) END",
        "NULL",
        (GAPS + "test_what_moved_away_is_parked_and_stays_due",),
        on_a_server=True,
    ),
    "no plan parks a job": Mutation(
        SQL + "04_fire.sql",
        "SELECT id, 'plan_exhausted' FROM last WHERE following IS NULL",
        "SELECT id, 'plan_exhausted' FROM last WHERE false AND following IS NULL",
        (GAPS + "test_a_plan_that_ends_leaves_the_job_at_its_last_instant",),
        on_a_server=True,
    ),
    "an edit without a plan leaves a job due": Mutation(
        SQL + "07_jobs.sql",
        "jobmanager.next_due(NEW.schedule, moment, NEW.accounted_until)",
        "jobmanager.next_tick(NEW.schedule, moment)",
        (GAPS + "test_a_schedule_edited_in_sql_is_due_at_once_and_never_fires_by_the_old_plan",),
        on_a_server=True,
    ),
    "a job without an instant is settled": Mutation(
        "jobmanager.stores.sql.jobs",
        "if len(found) < limit:",
        "if len(found) < limit < 0:",
        (SQLITE_CONTRACT + "test_a_job_that_lost_its_next_instant_is_due_after_the_others",),
    ),
    "no call past the holder of a key": Mutation(
        SQL + "05_sweep.sql",
        """(r.turn IS DISTINCT FROM 'waits' OR NOT EXISTS (
         SELECT FROM jobmanager.runs h WHERE h.concurrency_key = r.concurrency_key AND h.turn = 'holds'))""",
        "true",
        (IN_SQL + "test_a_waiting_run_is_not_called_for_while_another_holds_its_key",),
        on_a_server=True,
    ),
    "no call before a run is due": Mutation(
        SQL + "05_sweep.sql",
        "AND r.due_at <= _now AND j.state",
        "AND j.state",
        (IN_SQL + "test_a_run_that_waits_for_its_retry_is_not_called_for",),
        on_a_server=True,
    ),
    "no call for a disabled job": Mutation(
        SQL + "05_sweep.sql",
        " AND j.state IN ('active', 'paused')\n",
        "\n",
        (IN_SQL + "test_no_run_of_a_disabled_job_is_called_for",),
        on_a_server=True,
    ),
    "pause between two calls": Mutation(
        SQL + "05_sweep.sql",
        "       AND (rc.next_call_at IS NULL OR rc.next_call_at <= _now)\n",
        "",
        (IN_SQL + "test_a_run_that_was_just_called_for_is_not_called_for_again",),
        on_a_server=True,
    ),
    "only unaccepted runs closed": Mutation(
        SQL + "05_sweep.sql",
        "WHERE r.status = 'pending' AND r.accepted_at IS NULL AND j.id = r.job_id",
        "WHERE r.status = 'pending' AND j.id = r.job_id",
        (IN_SQL + "test_only_what_was_never_accepted_is_closed_as_missed",),
        on_a_server=True,
    ),
    "only late runs closed": Mutation(
        SQL + "05_sweep.sql",
        "     AND r.due_at < _now - j.catch_up_window_seconds * interval '1 second'\n",
        "",
        (IN_SQL + "test_only_what_was_never_accepted_is_closed_as_missed",),
        on_a_server=True,
    ),
    "first outcome of a call": Mutation(
        SQL + "05_sweep.sql",
        "WHERE id = _call AND outcome IS NULL",
        "WHERE id = _call",
        (IN_SQL + "test_a_call_keeps_the_first_outcome_that_it_got",),
        on_a_server=True,
    ),
    "answers kept as text": Mutation(
        SQL + "05_sweep.sql",
        "detail = CASE WHEN _outcome <> 'accepted' THEN jobmanager.readable(_detail) END",
        "detail = CASE WHEN _outcome <> 'accepted' THEN left(_detail, 300) END",
        (BYTES + "test_every_answer_is_labelled_and_kept_as_text",),
        on_a_server=True,
    ),
    "one bad answer ends no pass": Mutation(
        SQL + "05_sweep.sql",
        "    PERFORM jobmanager.label_answer(c.id, r.created - c.sent_at, r.status_code, r.timed_out, r.error_msg, r.content, _now)",
        "    PERFORM jobmanager.label(c.id, jobmanager.outcome_of(c.id, r.created - c.sent_at, r.status_code, r.timed_out, r.error_msg,"
        " r.content), r.status_code, coalesce(r.error_msg, r.content), _now)",
        (BYTES + "test_one_answer_that_cannot_be_worked_with_ends_no_pass",),
        on_a_server=True,
    ),
    "retired key erased": Mutation(
        SQL + "03_keys.sql",
        "SET retired_at = clock_timestamp(), bearer = NULL, ipad = '', opad = ''\n",
        "SET retired_at = clock_timestamp()\n",
        (IN_SQL + "test_nothing_of_a_retired_key_is_kept",),
        on_a_server=True,
    ),
    "key from before the Vault erased": Mutation(
        SQL + "03_keys.sql",
        "gone AS (UPDATE jobmanager.signing_keys k SET retired_at = clock_timestamp(), bearer = NULL, ipad = '', opad = ''",
        "gone AS (UPDATE jobmanager.signing_keys k SET retired_at = clock_timestamp()",
        (IN_SQL + "test_nothing_of_a_key_from_before_the_vault_is_kept",),
        on_a_server=True,
    ),
    "only own keys retired": Mutation(
        SQL + "03_keys.sql",
        "   WHERE k.namespace = _namespace AND k.retired_at IS NULL\n     AND k.id <",
        "   WHERE k.retired_at IS NULL\n     AND k.id <",
        (IN_SQL + "test_a_key_of_another_application_is_not_retired",),
        on_a_server=True,
    ),
}
"""Guards of Celery's messages, and those that the database's own code holds."""

CALLS = {
    "early calls held": Mutation(
        CALLED,
        "may_be_held=due_in <= hold",
        "may_be_held=False",
        (CLOCKS + "test_at_most_so_many_calls_wait_in_a_process",),
    ),
    "nearer instant": Mutation(
        CALLED,
        "return last is None or due_at - now <= now - last",
        "return True",
        (CLOCKS + "test_a_repeated_call_of_a_frequent_job_is_no_early_one",),
    ),
    "late calls answered with what they opened": Mutation(
        CALLED,
        'if run.trigger == "catch_up" and run.opened_at >= now',
        "if run.opened_at > now",
        (CLOCKS + "test_a_late_call_runs_all_that_it_opened",),
    ),
    "pending runs before the tick": Mutation(
        CALLED,
        "self._execute(self._open_runs(job_id), until)",
        "_ = until",
        (CLOCKS + "test_an_attempt_that_follows_later_is_made_by_the_next_call_before_its_own_instant",),
    ),
    "other jobs worked off": Mutation(
        CALLED,
        "while self._clock.monotonic() < until and self._claims.claim_one_here():",
        "while False:",
        (CLOCKS + "test_a_call_works_off_what_is_due_of_other_jobs",),
    ),
    "kill switch for calls": Mutation(
        "jobmanager.manager.host",
        "        self._check_switch()\n",
        "",
        (
            "tests/behaviour/test_kill_switch.py::test_what_waits_when_the_switch_is_set_goes_on_when_it_is_not",
        ),
    ),
}
"""What keeps the calls of outside clocks from being lost, and the switch that stops them."""

VISIBLE = "jobmanager.stores.sql.visible"
GUARDING = "jobmanager.manager.guarding"
SEES = "tests/behaviour/test_permissions.py::"
KEYS = "tests/behaviour/test_keys.py::"

PRINCIPALS = {
    "system jobs are for administrators": Mutation(
        VISIBLE,
        '*(["system"] if seen.system else [])',
        '"system"',
        (SQLITE_CONTRACT + "test_each_question_about_runs_has_the_same_answer_for_a_view",),
    ),
    "runs of other scopes": Mutation(
        VISIBLE,
        "if seen.scopes is not None and not whole:",
        "if False:",
        (SQLITE_CONTRACT + "test_each_question_about_runs_has_the_same_answer_for_a_view",),
    ),
    "sums over other scopes": Mutation(
        VISIBLE,
        "if not whole or seen.scopes is None",
        "if True",
        (SQLITE_CONTRACT + "test_counts_under_a_limited_view_leave_out_what_they_would_tell",),
    ),
    "one namespace": Mutation(
        VISIBLE,
        "c.namespace == seen.namespace, ",
        "",
        (SQLITE_CONTRACT + "test_jobs_are_seen_by_their_visibility_and_namespace",),
    ),
    "a change needs its permission": Mutation(
        GUARDING,
        "check_permission(principal, action, permission)",
        "pass",
        (SEES + "test_each_method_that_writes_needs_its_permission[cancel]",),
    ),
    "refusals on record": Mutation(
        GUARDING,
        "    parts.store.audit.write(entry)\n",
        "",
        (SEES + "test_refused_attempts_are_audited_with_the_reason[sqlite]",),
    ),
    "handlers act for nobody": Mutation(
        "jobmanager.execution.invokers",
        "        act_for_nobody()\n",
        "",
        (SEES + "test_a_handler_acts_for_nobody_whoever_started_its_run[sqlite]",),
    ),
    "no key beyond its maker": Mutation(
        "jobmanager.manager.keys",
        "if lacking or wider:",
        "if False:",
        (KEYS + "test_nobody_gives_a_key_more_than_he_has",),
    ),
    "an end of a key": Mutation(
        "jobmanager.access.keys",
        "and (self.expires_at is None or now < self.expires_at)",
        "",
        (KEYS + "test_a_key_ends_at_its_end",),
    ),
}
"""Who may do and see what."""

PAGES_ACCESS = "tests/security/test_pages_access.py::"
NO_OTHER_SITE = PAGES_ACCESS + "test_a_page_of_another_site_and_a_form_without_its_token_change_nothing"
PERMITTED = PAGES_ACCESS + "test_each_route_serves_those_with_its_permission_and_nobody_else"

PAGES = {
    "a form of another site": Mutation(
        "jobmanager.web.origin",
        'site in (["same-origin"], ["none"])',
        "True",
        (NO_OTHER_SITE + "[POST /jobs/{job_id}/run]",),
    ),
    "a form without its token": Mutation(
        "jobmanager.web.pages.rendering",
        "if not is_token(form.get(FIELD), request.cookies.get(COOKIE)):",
        "if False:",
        (NO_OTHER_SITE + "[POST /jobs/{job_id}/run]",),
    ),
    "a question for those who may act": Mutation(
        "jobmanager.web.pages.job_actions",
        "        check_page(request, permission)\n",
        "",
        (PERMITTED + "[POST /jobs/{job_id}/disable]",),
    ),
    "a recent sign-in": Mutation(
        "jobmanager.web.recent",
        "abs(age) <= allowed",
        "True",
        (PAGES_ACCESS + "test_what_destroys_needs_a_recent_login[POST /jobs/{job_id}/delete]",),
    ),
    "a read-only dashboard": Mutation(
        "jobmanager.web.pages.rendering",
        "if changes and site_of(request).read_only:",
        "if False:",
        (PAGES_ACCESS + "test_a_read_only_dashboard_changes_nothing[POST /jobs/{job_id}/pause]",),
    ),
    "pages kept by what a visitor sees": Mutation(
        "jobmanager.web.pages.board",
        "return principal.may(ADMIN), scopes",
        "return None",
        (PAGES_ACCESS + "test_a_page_is_the_same_as_where_the_hidden_does_not_exist[/jobs]",),
    ),
    "findings about the runs of other scopes": Mutation(
        "jobmanager.doctor",
        "if is_limited and check in _OF_RUNS:",
        "if False:",
        (PAGES_ACCESS + "test_an_administrator_of_scopes_is_not_told_what_becomes_of_runs",),
    ),
}
"""Who is shown what on the pages, and whose forms are taken."""

SSRF = "tests/security/test_ssrf.py::"
SENT = "tests/behaviour/test_webhooks.py::"
STORED_WEBHOOKS = "tests/behaviour/test_stored_webhooks.py::"

WEBHOOKS = {
    "an address is checked after its look-up": Mutation(
        "jobmanager.webhooks.lookup",
        "        reachable.check(target, address)\n",
        "        pass\n",
        (SSRF + "test_a_name_with_a_single_inner_address_is_refused[addresses0]",),
    ),
    "a ping of a stored job is checked": Mutation(
        "jobmanager.notify.pings",
        "self._addresses_of(ping.url, self._within) if ping.checked else ()",
        "()",
        ("tests/behaviour/test_pings.py::test_a_name_with_an_inner_address_is_not_connected_to",),
    ),
    "a webhook that is gone is switched off": Mutation(
        "jobmanager.webhooks.handler",
        "if response.status == GONE and",
        "if False and",
        (STORED_WEBHOOKS + "test_410_gone_switches_a_stored_webhook_off_until_it_is_edited",),
    ),
    "a name is looked up once": Mutation(
        "jobmanager.webhooks.connection",
        "                    str(address), self._target.port, share,",
        "                    self._target.host, self._target.port, share,",
        (SSRF + "test_a_name_that_is_rebound_after_the_check_has_no_effect",),
    ),
    "IPv6 outside of its global part": Mutation(
        "jobmanager.webhooks.addresses",
        "address not in _GLOBAL_IPV6",
        "False",
        ("tests/unit/webhooks/test_addresses.py::test_both_ends_of_a_network_are_judged_alike[4000::/2]",),
    ),
    "the time for the whole request": Mutation(
        "jobmanager.webhooks.connection",
        "return self._stream.read(max_bytes, self._deadline.left())",
        "return self._stream.read(max_bytes, 0.5)",
        (SENT + "test_no_receiver_takes_longer_than_the_time_for_the_whole_request[drips its body]",),
    ),
    "64 KiB of an answer": Mutation(
        "jobmanager.webhooks.sender",
        "        if len(read) > MOST_READ:\n",
        "        if False:\n",
        (SENT + "test_of_a_gigabyte_64_kib_are_read[endless]",),
    ),
    "a secret for one receiver": Mutation(
        "jobmanager.webhooks.encryption",
        'if whole["receiver"] != receiver:',
        "if False:",
        (STORED_WEBHOOKS + "test_a_receiver_that_was_changed_in_the_database_gets_no_secret",),
    ),
    "no variable for operators": Mutation(
        "jobmanager.manager.hooking",
        "if webhook.auth is not None and webhook.auth.env is not None:",
        "if False:",
        (STORED_WEBHOOKS + "test_the_environment_belongs_to_code",),
    ),
}
"""Where a webhook goes, for how long, and with which secret."""

TABLES = {
    "PRINCIPALS": PRINCIPALS,
    "PAGES": PAGES,
    "WEBHOOKS": WEBHOOKS,
    "SWITCHES": SWITCHES,
    "CALLS": CALLS,
    "OPENING": OPENING,
    "REFUSED_TICKS": REFUSED_TICKS,
    "LINES": LINES,
    "ACCOUNT": ACCOUNT,
    "ATTEMPTS": ATTEMPTS,
    "PROCESSES": PROCESSES,
    "CALENDAR": CALENDAR,
    "ON_POSTGRES": ON_POSTGRES,
    "BACKENDS": BACKENDS,
}
MUTATIONS = {name: mutation for table in TABLES.values() for name, mutation in table.items()}


def source_of(module: str) -> str:
    """The text of a module that is not to be executed, though its packages are; or of an SQL file beside the modules."""
    if module.endswith(".sql"):
        package, _, path = module.partition("/")
        return Path(find_spec(package).submodule_search_locations[0], path).read_text(encoding="utf-8")  # type: ignore[union-attr,index]  # it is a package
    spec = find_spec(module)
    assert spec is not None, f"there is no module {module} any more"
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


# The module that reads the SQL files, and what makes it read another text.
SCHEMA = "jobmanager.backends.pg_cron.schema"
OTHER_SCRIPT = """

_script = script


def script():
    return _script().replace({old!r}, {new!r})
"""


class _Mutating(SourceFileLoader):
    mutation: Mutation

    def get_code(self, fullname: str) -> CodeType:
        mutation = self.mutation
        source = self.get_source(fullname) or ""
        text = source if mutation.module == fullname else source_of(mutation.module)
        if mutation.old not in text:
            raise RuntimeError(f"{mutation.module} has no {mutation.old!r} any more: mend the mutation")
        mutated = text.replace(mutation.old, mutation.new)
        if mutation.module != fullname:
            mutated = source + OTHER_SCRIPT.format(old=text, new=mutated)
        return self.source_to_code(mutated.encode(), self.path)


class _Finder(MetaPathFinder):
    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _module_of(self._mutation):
            return None
        spec: Any = PathFinder.find_spec(fullname, path, target)
        spec.loader = _Mutating(fullname, spec.origin)
        spec.loader.mutation = self._mutation
        return spec


def _module_of(mutation: Mutation) -> str:
    return SCHEMA if mutation.module.endswith(".sql") else mutation.module


def apply() -> None:
    """Remove what JOBMANAGER_TEST_MUTATION names, for every import from now on."""
    name = os.environ.get("JOBMANAGER_TEST_MUTATION")
    if name:
        mutation = MUTATIONS[name]
        assert _module_of(mutation) not in sys.modules, f"{_module_of(mutation)} is loaded already"
        sys.meta_path.insert(0, _Finder(mutation))


apply()
