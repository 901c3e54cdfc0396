"""A move from any backend to any other, by one variable and a restart: every instant has one row, and none is started twice."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("celery", reason="needs celery: pip install celery")

from tests.effort import examples

from jobmanager import JobManager, Run, RunContext, RunStatus, Settings
from jobmanager.backends.base import Backend
from jobmanager.backends.celery import CeleryBackend
from jobmanager.backends.celery.application import make_app
from jobmanager.backends.celery.publisher import Message
from jobmanager.backends.local import LocalBackend
from jobmanager.backends.noop import NoopBackend
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TICKS = examples(200, sample=40)


class BeatAndWorker(CeleryBackend):
    """A beat and a worker in this process, on a clock moved by hand: what is sent is executed at once."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(make_app("memory://"), clock=clock)
        self._publisher.put = self._execute_now  # type: ignore[method-assign]

    def begin(self) -> None:
        self._keeps_time_here = True
        self.timetable.replace(self._scheduled)
        self.timetable.begin()
        self._clock.drive(self.timetable.top, self.tick)  # type: ignore[arg-type]

    def _execute_now(self, message: Message) -> None:
        self.execute([message.run_id])

    def stop(self, timeout: timedelta) -> None:
        self._clock.release(self.tick)  # type: ignore[arg-type]
        self._deliver = None


class Move:
    """Processes that follow each other on one store and one clock, and what their handlers started."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(START)
        self.started: list[datetime] = []
        self._url = f"sqlite:///{folder}/jobs.db"

    @contextmanager
    def process(self, backend: str) -> Iterator[JobManager]:
        """A process with this backend, from its start to its stop."""
        made: dict[str, Any] = {
            "noop": NoopBackend,
            "local": lambda: LocalBackend(clock=self.clock),
            "celery": lambda: BeatAndWorker(self.clock),
        }
        chosen: Backend = made[backend]()
        jobs = JobManager(Settings(database_url=self._url), backend=chosen, clock=self.clock)
        jobs.add_job("second", self._note, every=1, overlap="allow", catch_up="none")
        jobs.start()
        if isinstance(chosen, BeatAndWorker):
            chosen.begin()
        yield jobs
        jobs.stop()

    def _note(self, context: RunContext) -> None:
        assert context.scheduled_for is not None
        self.started.append(context.scheduled_for)

    def keep(self, backend: str, ticks: int) -> None:
        """Let a process with this backend live for so many seconds."""
        with self.process(backend):
            for _ in range(ticks):
                self.clock.advance(SECOND)

    def account(self) -> list[Run]:
        """The rows of all instants, after the account was settled."""
        with self.process("local") as jobs:
            self.clock.advance(minutes=3)
            return [run for run in jobs.runs("second", limit=1000) if run.scheduled_for]


def instants_of(run: Run) -> Sequence[datetime]:
    assert run.scheduled_for is not None
    first = run.first_for or run.scheduled_for
    return [first + SECOND * number for number in range(run.ticks)]


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(("noop", "local", "celery"), 2)))
def test_a_move_loses_no_instant_and_starts_none_twice(tmp_path: Path, before: str, after: str) -> None:
    """Fails if the backend that follows opens an instant again, or takes one for granted that the other never brought."""
    move = Move(tmp_path)
    move.keep("local", 1)
    began = move.clock.now()
    move.keep(before, TICKS // 2)
    handed_over = move.clock.now()
    move.keep(after, TICKS // 2)
    ended = move.clock.now()
    rows = move.account()

    expected = {began + SECOND * number for number in range(1, TICKS + 1)}
    recorded = Counter(instant for run in rows for instant in instants_of(run))
    assert {instant: recorded[instant] for instant in expected} == dict.fromkeys(expected, 1)
    assert max(Counter(move.started).values()) == 1
    kept = [
        (start, end)
        for backend, start, end in ((before, began, handed_over), (after, handed_over, ended))
        if backend != "noop"
    ]
    wanted = {instant for instant in expected if any(start < instant <= end for start, end in kept)}
    assert wanted <= set(move.started)
    succeeded = {run.scheduled_for for run in rows if run.status is RunStatus.SUCCEEDED}
    assert wanted <= succeeded
