"""Waiting for a run: a live bar in a terminal, a line per change in a pipe; executed here if no other process does."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, Self

from jobmanager.cli.output.failures import FailedError
from jobmanager.cli.session import Session
from jobmanager.clock import SystemClock
from jobmanager.errors import WaitTimeoutError
from jobmanager.present.phrases import distance, tail

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager
    from jobmanager.run import Run

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY = timedelta(seconds=0.2)


class Display(Protocol):
    """Shows the progress of a run."""

    def show(self, run: Run, remark: str) -> None:
        """Show the run as it is now, and what it waits for."""
        ...


def watch(here: Session, manager: JobManager, run: Run, limit: timedelta | None) -> Run:
    """Wait for the run and return it. Past `limit` raise FailedError; the run goes on, unless it is executed here.

    Ctrl-C: a run that is executed here is asked to end, and the second Ctrl-C leaves at once; otherwise only the watching ends.
    """
    vigil = _Vigil(manager, run.id, limit)
    try:
        with _terminable(), _quiet(), _display(here, run) as display:
            try:
                return vigil.keep(display)
            except KeyboardInterrupt:
                # It may have come while the run was being taken.
                vigil.here = vigil.here or manager.is_executed_here(run.id)
                if not vigil.here:
                    raise FailedError(
                        f"No longer watching; run {tail(run.id)} goes on.",
                        hint=f"`jobmanager logs {tail(run.id)} -f` follows it, `jobmanager cancel {tail(run.id)}` ends it.",
                    ) from None
                manager.cancel(run.id)
                try:
                    return vigil.let_end(display)
                except KeyboardInterrupt:
                    manager.stop(timedelta(0))  # records it as failed (shutdown)
                    raise
    finally:
        if vigil.here:
            manager.stop()


class _Vigil:
    """One wait. `here` turns true when this process executes the run."""

    def __init__(self, manager: JobManager, run_id: str, limit: timedelta | None) -> None:
        self.here = False
        self._manager = manager
        self._run_id = run_id
        self._limit = limit
        self._until = None if limit is None else SystemClock().monotonic() + limit.total_seconds()

    def keep(self, display: Display) -> Run:
        while True:
            self.here = self._manager.execute_here(self._run_id) or self.here
            run = self._look(display)
            if run is not None:
                return run
            if self._until is not None and SystemClock().monotonic() >= self._until:
                return self._give_up(display)

    def let_end(self, display: Display) -> Run:
        """Wait for a run that was asked to end, as long as a stop would."""
        until = SystemClock().monotonic() + self._manager.settings.drain_seconds
        while SystemClock().monotonic() < until:
            run = self._look(display)
            if run is not None:
                return run
        self._manager.stop(timedelta(0))  # records it as failed (shutdown)
        self.here = False
        return self._manager.run(self._run_id)

    def _look(self, display: Display) -> Run | None:
        """Return the run if it has ended; otherwise show it."""
        try:
            return self._manager.wait(self._run_id, LOOK_EVERY)
        except WaitTimeoutError:
            run = self._manager.run(self._run_id)
            display.show(run, self._remark(run))
            return None

    def _remark(self, run: Run) -> str:
        if run.status.value == "running":
            return run.progress.message if run.progress else "here" if self.here else ""
        now = self._manager.store.now()
        if run.due_at > now:
            return (
                f"attempt {run.next_attempt} {distance(run.due_at, now)}"
                if run.attempt
                else f"due {distance(run.due_at, now)}"
            )
        executors = self._manager.executors(run.job_id)
        return (
            f"waiting for {executors[0].host} pid {executors[0].pid}" if executors else "waiting for its turn"
        )

    def _give_up(self, display: Display) -> Run:
        length = f"{self._limit.total_seconds():g} s" if self._limit else ""
        if self.here:
            self._manager.cancel(self._run_id)
            return self.let_end(display)
        end = tail(self._run_id)
        raise FailedError(
            f"Run {end} has not ended within {length}; it goes on.",
            hint=f"`jobmanager logs {end} -f` follows it, `jobmanager cancel {end}` ends it.",
        )


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal as Ctrl-C: a run that is executed here must not stay running in the record."""

    def on_signal(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, on_signal)
        for number in ENDING_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's loggers about the run: the display shows its progress, and its own lines are kept with it."""
    root = logging.getLogger()
    levels = {
        logging.getLogger(name): logging.CRITICAL
        for name in ("jobmanager.execution.executor", "jobmanager.execution.runner")
    }
    if not root.handlers:
        levels[root] = logging.INFO
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


@contextmanager
def _display(here: Session, run: Run) -> Iterator[Display]:
    if here.as_json:
        yield _Silence()
    elif not here.console.is_terminal:
        yield _Lines(here)
    else:
        with _Bar(here, run) as bar:
            yield bar


class _Silence:
    def show(self, run: Run, remark: str) -> None:
        """Show nothing: only the end is printed."""


class _Lines:
    """Prints a line whenever the status changes."""

    def __init__(self, here: Session) -> None:
        self._here = here
        self._told = ""

    def show(self, run: Run, remark: str) -> None:
        line = f"{run.status.value} {tail(run.id)} {run.job_id}"
        if line != self._told:
            self._told = line
            self._here.print(f"{line} {remark}".rstrip())


class _Bar:
    """Shows a spinner, the job, a bar, how many of how many, the message, the time."""

    def __init__(self, here: Session, run: Run) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        narrow = here.console.width < 72
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[job]}", markup=True),
            *(() if narrow else (TextColumn("{task.fields[run]}", style="dim"),)),
            BarColumn(bar_width=12 if narrow else 24),
            TextColumn("{task.fields[amount]}", justify="right"),
            TextColumn(
                "{task.fields[remark]}",
                markup=False,
                style="dim",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            TimeElapsedColumn(),
            console=here.console,
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task(
            "", total=None, job=run.job_id, run=tail(run.id), amount=run.status.value, remark=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, run: Run, remark: str) -> None:
        done = run.progress
        amount = run.status.value
        if done is not None:
            amount = f"{done.processed:,}/{done.total:,}" if done.total else f"{done.processed:,}"
        self._progress.update(
            self._task,
            total=done.total if done else None,
            completed=done.processed if done else 0,
            amount=amount,
            remark=remark,
        )
