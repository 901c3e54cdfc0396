"""The library with one mechanism removed: a pytest plugin that edits a module's source while it is imported.

    JOBMANAGER_TEST_MUTATION=fence python -m pytest -p tests.faults.mutations tests/faults

must fail. The text to be removed must occur in the module, so that a mutation cannot outlive what it removes.
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
    """What is taken away, where, and which tests must notice."""

    module: str
    old: str
    new: str
    tests: tuple[str, ...]
    on_a_server: bool = False


STORE = "jobmanager.stores.sql.sqlite"
RACE = "tests/faults/test_killed_anywhere.py::test_of_many_processes_that_race_for_a_tick_exactly_one_wins[sqlite-4-200]"
SQLITE_CONTRACT = "tests/contract/test_stores.py::TestSqliteStore::"
OUTCOMES = "tests/faults/test_unknown_outcomes.py::"
MODEL = ("tests/faults/test_ledger_model.py",)

SWITCHES = {
    "unique tick": Mutation(
        "jobmanager.stores.sql.tables",
        "c.job_id, c.scheduled_for, unique=True",
        "c.job_id, c.scheduled_for, unique=False",
        (RACE,),
    ),
    "fence": Mutation(
        STORE,
        "FENCE = \"id = ? AND owner = ? AND attempt = ? AND status = 'running'\"",
        'FENCE = "id = ? AND ? IS NOT NULL AND ? IS NOT NULL"',
        (OUTCOMES + "test_the_end_of_a_run_that_was_taken_over_is_refused[sqlite]",),
    ),
    "sweep": Mutation(
        "jobmanager.manager.sweep",
        "        self._take_over()\n        self._end_forgotten()\n",
        "        return\n",
        (
            OUTCOMES + "test_a_run_of_ours_that_nobody_here_knows_is_ended_and_tried_again",
            "tests/behaviour/test_account.py",
        ),
    ),
    "BEGIN IMMEDIATE": Mutation(STORE, 'execute("BEGIN IMMEDIATE")', 'execute("BEGIN")', (RACE,)),
}
"""The four that the whole promise rests on."""

GUARDS = {
    "unique key": Mutation(
        "jobmanager.stores.sql.tables",
        """("holds", (c.concurrency_key,), "turn = 'holds'", True)""",
        """("holds", (c.concurrency_key,), "turn = 'holds'", False)""",
        ("tests/contract/test_stores.py",),
    ),
    "watermark guard": Mutation(
        STORE,
        "(run.announced or accounted_until < (micros(run.scheduled_for) or 0))",
        "True",
        (SQLITE_CONTRACT + "test_a_tick_at_or_before_the_watermark_is_refused",),
    ),
    "grace guard": Mutation(STORE, "now - self._grace < run.due_at <= now", "run.due_at <= now", MODEL),
    "due guard": Mutation(
        STORE, "now - self._grace < run.due_at <= now", "now - self._grace < run.due_at", MODEL
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
        ("tests/contract/test_stores.py",),
    ),
    "lease_ok": Mutation(
        "jobmanager.execution.executor",
        "trusted = self._lease.ok() or self._lease.wait_until_ok()",
        "trusted = True",
        (OUTCOMES + "test_a_process_whose_heartbeat_fails_starts_no_handler_after_its_lease[sqlite]",),
    ),
    "takeover": Mutation(
        "jobmanager.manager.sweep",
        "        self._take_over()\n",
        "",
        ("tests/faults/test_dead_processes.py", "-k", "sqlite and killed"),
    ),
    "self-check": Mutation(
        "jobmanager.manager.sweep",
        "        self._end_forgotten()\n",
        "",
        (OUTCOMES + "test_a_run_of_ours_that_nobody_here_knows_is_ended_and_tried_again",),
    ),
    "account": Mutation("jobmanager.manager.sweep", "        self._account.settle_due()\n", "", MODEL),
    "settle before change": Mutation(
        "jobmanager.ledger.reconciliation",
        "                self._close_revision(txn, end, becomes=after.state)\n",
        "",
        MODEL,
    ),
    "watching": Mutation(
        "jobmanager.process.failure_detector",
        "            self._first_seen.clear()\n        self._last_beat",
        "            pass\n        self._last_beat",
        (OUTCOMES + "test_after_an_outage_for_everybody_nobody_is_buried",),
    ),
    "same id on repeat": Mutation(
        "jobmanager.ledger.group_commit",
        "                pause = min(pause * 2, LONGEST_PAUSE)\n",
        "                opens = [replace(run, id=run.id[:-4] + f'{n:04x}') for n, run in enumerate(opens, 0xA000)]\n",
        (OUTCOMES + "test_an_open_whose_answer_was_lost_after_the_commit_is_repeated_and_starts_once",),
    ),
    "job-open guard": Mutation(
        STORE,
        " AND EXISTS (SELECT 1 FROM jobmanager_jobs j WHERE j.id = job_id AND j.state IN ('active', 'paused'))",
        "",
        ("tests/faults/test_changes.py", "-k", "sqlite and deleted and goes_on"),
    ),
    "catch-up cap": Mutation(
        "jobmanager.ledger.missing_instants",
        "inside[-job.catch_up_cap :]",
        "inside",
        (
            "tests/faults/test_clocks.py::test_a_step_of_the_clock_starts_no_tick_twice_and_leaves_none_without_a_row",
        ),
    ),
}
"""Each other guard, by hand and in the full programme."""

WRITES = "jobmanager.stores.sql.postgres_writes"
RACES = "tests/integration/test_postgres_races.py"
CONTRACT = "tests/contract/test_postgres_store.py"

ON_POSTGRES = {
    "fence on PostgreSQL": Mutation(
        WRITES,
        "r.id = v.id AND r.owner = v.owner AND r.attempt = v.attempt AND r.status = 'running'",
        "r.id = v.id",
        (OUTCOMES + "test_the_end_of_a_run_that_was_taken_over_is_refused[postgres]",),
        on_a_server=True,
    ),
    "share of the job's lock": Mutation(
        WRITES, "\n   FOR SHARE OF j\n", "\n", (RACES, "-k", "Sweep"), on_a_server=True
    ),
    "watermark guard on PostgreSQL": Mutation(
        WRITES, "AND j.accounted_until < t.scheduled_for", "", (CONTRACT,), on_a_server=True
    ),
    "revision guard on PostgreSQL": Mutation(
        WRITES, "AND j.schedule_rev = t.schedule_rev", "", (CONTRACT,), on_a_server=True
    ),
    "alive guard on PostgreSQL": Mutation(
        WRITES,
        "AND (t.owner IS NULL OR EXISTS (SELECT FROM jobmanager.instances i WHERE i.id = t.owner AND i.dead_at IS NULL))",
        "",
        (CONTRACT,),
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

TABLES = {"SWITCHES": SWITCHES, "GUARDS": GUARDS, "ON_POSTGRES": ON_POSTGRES}
MUTATIONS = {name: mutation for table in TABLES.values() for name, mutation in table.items()}


def source_of(module: str) -> str:
    """The text of a module that is not to be executed; its packages are."""
    spec = find_spec(module)
    assert spec is not None, f"there is no module {module} any more"
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


class _Mutating(SourceFileLoader):
    mutation: Mutation

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname) or ""
        if self.mutation.old not in source:
            raise RuntimeError(f"{fullname} has no {self.mutation.old!r} any more: mend the mutation")
        return self.source_to_code(source.replace(self.mutation.old, self.mutation.new).encode(), self.path)


class _Finder(MetaPathFinder):
    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutation.module:
            return None
        spec: Any = PathFinder.find_spec(fullname, path, target)
        spec.loader = _Mutating(fullname, spec.origin)
        spec.loader.mutation = self._mutation
        return spec


def apply() -> None:
    """Remove what JOBMANAGER_TEST_MUTATION names, for every import from now on."""
    name = os.environ.get("JOBMANAGER_TEST_MUTATION")
    if name:
        mutation = MUTATIONS[name]
        assert mutation.module not in sys.modules, f"{mutation.module} is loaded already"
        sys.meta_path.insert(0, _Finder(mutation))


apply()
