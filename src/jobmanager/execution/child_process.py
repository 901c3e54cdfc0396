"""`isolation="process"`: the handler runs in a child process of its own, which may be killed without harm to this one.

This side starts the child, hears what it tells, passes requests to end on to it, and says how it ended. `child_main.py` is the child's side.
"""

from __future__ import annotations

import importlib.util
import logging
import pickle
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jobmanager.errors import ConfigurationError, MissingExtraError, RunCancelledError, UnsupportedError
from jobmanager.execution.around import Arounds
from jobmanager.execution.attempt import Attempt
from jobmanager.execution.child_main import CHILD_NAME, Assignment, work
from jobmanager.execution.child_messages import ChildMessageError, outcome_from, progress_from, receive, send
from jobmanager.execution.outcome import TIMEOUT_GRACE, Outcome, crashed, outcome_of
from jobmanager.job import Job
from jobmanager.registry import Handler

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from pebble import ProcessFuture

LOOK_EVERY = 0.1  # seconds


def check_machine(job: Job) -> None:
    """MissingExtraError or UnsupportedError if this machine cannot isolate the job as it asks for."""
    if job.isolation != "process":
        return
    if importlib.util.find_spec("pebble") is None:
        raise MissingExtraError(
            f"Job {job.id!r} asks for isolation='process', which needs the package pebble. "
            "Install jobmanager-backends[process].",
            extra="process",
        )
    if job.memory_limit is not None and sys.platform != "linux":
        raise UnsupportedError(
            f"Job {job.id!r} asks for memory_limit, which only Linux enforces; this is {sys.platform}. Leave it out."
        )


def check_handler(job: Job, handler: Handler, arounds: Arounds) -> None:
    """ConfigurationError if a child process could not find the handler, or take over the job and what surrounds its attempts."""
    if job.isolation != "process":
        return
    import_path(handler)
    try:
        pickle.dumps(_without_gate(job))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"Job {job.id!r} asks for isolation='process', but a child process cannot take it over: {error}. "
            "Name exceptions of module level in its retry policy, and plain values in its config."
        ) from error
    try:
        arounds.pickled()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"Job {job.id!r} asks for isolation='process', but a child process cannot take over around=: {error}. "
            "Give it functions of module level."
        ) from error


def import_path(handler: Handler) -> str:
    """Return the "module:function" by which another process finds the handler; ConfigurationError if there is none."""
    target = handler.target
    if isinstance(target, str):
        return target
    module = getattr(target, "__module__", None) or ""
    name = getattr(target, "__qualname__", "")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None or found != target or (module == "__main__" and not _main_is_a_file()):
        raise ConfigurationError(
            f"Handler {handler.key!r} runs in a child process, which cannot import it as '{module}:{name}'. "
            "Make it a function at the top of a module, or name it as 'package.module:function'."
        )
    return f"{module}:{name}"


def _main_is_a_file() -> bool:
    """Return True if a spawned process finds what `__main__` defines: not at a prompt, and not in a package's `__main__.py`."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return hasattr(main, "__file__") if spec is None else not spec.name.endswith("__main__")


def _without_gate(job: Job) -> Job:
    """Return the job as the child needs it; whether it is enabled was decided here, often by a lambda."""
    return replace(job, enabled_when=True)


class ChildProcesses:
    """Runs attempts in child processes, one fresh process each. Any thread."""

    def __init__(self, *, capture_logs: bool, arounds: Arounds) -> None:
        self._capture_logs = capture_logs
        self._arounds = arounds

    def attempt(self, attempt: Attempt, handler: Handler) -> Outcome:
        """How the handler ended in a child process; waits until it did or was killed.

        On a clock moved by hand and on noop too: the child runs for real while that clock stands still.
        """
        try:
            return self._attempt(attempt, handler)
        except BaseException as error:  # noqa: BLE001 - no child could be started, or it answered nonsense: on record like a handler's
            return outcome_of(attempt, None, error)

    def _attempt(self, attempt: Attempt, handler: Handler) -> Outcome:
        # Here and not on top: importing jobmanager must not cost multiprocessing.
        from pebble import ProcessExpired, concurrent  # noqa: PLC0415

        from jobmanager.execution.child_context import spawning_context  # noqa: PLC0415

        assignment = Assignment(
            job=_without_gate(attempt.job),
            run=attempt.run,
            path=import_path(handler),
            backend=attempt.backend,
            started_at=attempt.started_at,
            capture_logs=self._capture_logs,
            levels=_levels(),
            arounds=self._arounds.pickled() if self._arounds else b"",
        )
        name = f"{CHILD_NAME} {attempt.job.id} {attempt.run.id} {attempt.run.attempt}"
        spawning = spawning_context()  # a fork would copy locks that our threads hold
        ours, theirs = spawning.Pipe()
        with ours:
            with theirs:
                # pebble 5.2 announces `mp_context`, reads `context` and ignores what it does not know: it would fork.
                start = concurrent.process(  # type: ignore[call-overload]
                    name=name, daemon=True, mp_context=spawning, context=spawning
                )(work)
                future = start(assignment, theirs)
            attempt.interrupted_by(partial(_kill, name))
            try:
                outcome = _listen(attempt, ours, future)
            except ChildMessageError:
                _kill(name)
                raise
            try:
                future.result()
                return outcome or crashed(attempt, _death(0))
            except ProcessExpired as error:
                if attempt.interrupted:
                    return outcome_of(attempt, None, RunCancelledError("killed"))
                return crashed(attempt, _death(error.exitcode))


def _listen(attempt: Attempt, pipe: Connection, future: ProcessFuture[None]) -> Outcome | None:
    """Take in what the child tells, and tell it of a request to end; return how the handler ended, if the child lives to say it."""
    told = None
    while True:
        try:
            if pipe.poll(LOOK_EVERY):
                outcome = _hear(attempt, pipe)
                if outcome is not None:
                    return outcome
            elif future.done() and not pipe.poll():  # what it told last may have come after the first look
                return None
            attempt.note_timeout()
            if attempt.seconds_over() >= TIMEOUT_GRACE.total_seconds():
                attempt.interrupt()  # the supervisor does, too, where there is one
            cause = attempt.stop
            if cause is not None and told is None:
                told = cause
                send(pipe, "end", cause)
            if cause == "lease":
                # Another process may start this run at any moment, and the store accepts nothing that this attempt writes.
                attempt.interrupt()
        except (EOFError, OSError):
            return None


def _hear(attempt: Attempt, pipe: Connection) -> Outcome | None:
    """Take in one message of the child; return the outcome with the last one."""
    match receive(pipe):
        case ["line", int() as level, str() as text]:
            attempt.add_line(level, text)
        case ["progress", fields]:
            attempt.progress = progress_from(fields)
        case ["lease_ok", int() as question]:
            send(pipe, "lease_ok", question, attempt.lease_ok())
        case ["done", fields]:
            return outcome_from(fields)
        case _:
            raise ChildMessageError("a child process sent a message of no known kind")
    return None


def _kill(name: str) -> None:
    import multiprocessing  # noqa: PLC0415

    for child in multiprocessing.active_children():
        if child.name == name:
            child.kill()


def _death(exitcode: int | None) -> str:
    """Return what an exit code says, in words."""
    if exitcode is None or exitcode >= 0:
        return f"the handler's process ended with exit code {exitcode} instead of an answer"
    try:
        by = signal.Signals(-exitcode).name
    except ValueError:
        by = f"signal {-exitcode}"
    hint = "; the machine may be out of memory, or it was killed by hand" if by == "SIGKILL" else ""
    return f"the handler's process was ended by {by}{hint}"


def _levels() -> dict[str, int]:
    """Return the levels set on loggers here, so that the child's handlers log what they would log here."""
    loggers = list(logging.root.manager.loggerDict.items())
    levels = {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger)}
    levels[""] = logging.root.level
    return {name: level for name, level in levels.items() if level != logging.NOTSET}
