"""The child's side of `isolation="process"`: imports the handler, calls it with a context linked to the parent, and reports how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobmanager.clock import SystemClock
from jobmanager.context import AttemptState, RunContext, current_run
from jobmanager.errors import HandlerNotFoundError, PayloadError
from jobmanager.execution import log_capture as capture
from jobmanager.execution.around import Arounds
from jobmanager.execution.child_messages import outcome_fields, progress_fields, receive, send
from jobmanager.execution.outcome import Outcome, end_forked_child, internal_error, not_startable, outcome_of
from jobmanager.job import Job
from jobmanager.ledger.bounding import bounded_failure, bounded_json
from jobmanager.ledger.redaction import Redactor
from jobmanager.registry import Handler
from jobmanager.run import Run
from jobmanager.validation.printable import get_logger

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

logger = get_logger(__name__)

CHILD_NAME = "jobmanager-handler"
TELL_EVERY = 0.25  # seconds
LONGEST_ANSWER = 1.0  # seconds
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The task of a child: the run and its job, where the handler is, and how the parent logs."""

    job: Job
    run: Run
    path: str
    backend: str
    started_at: datetime
    capture_logs: bool
    levels: Mapping[str, int]
    arounds: bytes
    """Pickled; nothing where there are none."""


def is_child() -> bool:
    """Return True in a process that exists for one handler, also while it imports the application: nothing may start there."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.current_process().name.startswith(CHILD_NAME)


def work(assignment: Assignment, pipe: Connection) -> None:
    """Call the handler and tell the parent how it ended. Called once, in the child's main thread."""
    _die_with_the_parent()
    # A signal handler in Python would wait for C code to return; the process that ends this one must not.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name, level in assignment.levels.items():
        logging.getLogger(name).setLevel(level)
    if assignment.capture_logs:
        capture.start()
    parent = ParentLink(pipe)
    attempt = ChildAttempt(assignment, parent)
    threading.Thread(target=parent.attend, args=(attempt,), name="jobmanager-parent", daemon=True).start()
    outcome = _answer(assignment, attempt)
    parent.tell_progress(attempt)
    parent.tell("done", outcome_fields(outcome))
    # What follows is the end of the process without its exit handlers: nothing printed or logged may be lost.
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _answer(assignment: Assignment, attempt: AttemptState) -> Outcome:
    context = RunContext(attempt)
    handler = Handler(assignment.job.handler, assignment.path)
    try:
        # First: the handler's module may need what the import of these sets up.
        arounds = Arounds.unpickled(assignment.arounds) if assignment.arounds else Arounds()
        function = handler.function
        arguments = handler.call_arguments(context)
    except (HandlerNotFoundError, PayloadError) as error:
        return not_startable(error)
    except Exception as error:  # noqa: BLE001 - whatever the handler's module raises is on record
        return outcome_of(attempt, None, error)
    current_run.set(context)
    returned, raised = None, None
    owner_pid = os.getpid()
    try:
        with _MemoryLimit(assignment.job.memory_limit):
            call = partial(function, **arguments)
            if arounds and handler.is_known_coroutine:
                returned = asyncio.run(arounds.awaited(context, call))
            else:
                returned = arounds.call(context, partial(_result_of, call)) if arounds else _result_of(call)
    except BaseException as error:  # noqa: BLE001 - the handler's, to be recorded
        raised = error
    if os.getpid() != owner_pid:
        end_forked_child(assignment.run)
    try:
        outcome = outcome_of(attempt, returned, raised)
    except BaseException as error:  # noqa: BLE001 - the exception's own code; the parent must hear of an outcome
        outcome = internal_error(error)
    failure = bounded_failure(outcome.error, hide=Redactor().text)
    return replace(outcome, output=_portable(outcome.output), error=failure)


def _result_of(call: Callable[[], Any]) -> Any:
    returned = call()
    # By its type: asyncio takes a generator for one, and asks a proxy for its class.
    return asyncio.run(returned) if issubclass(type(returned), Coroutine) else returned


def _portable(output: Any) -> Any:
    """Return the output as plain JSON values, so that it reaches the parent whatever it was; the recorder hides known secrets there."""
    redactor = Redactor()
    return bounded_json(output, hide=redactor.text, is_secret=redactor.is_secret)


class _MemoryLimit:
    """Inside, allocations beyond `limit` MiB more than are taken now raise MemoryError.

    No generator: contextlib would write to attributes of the handler's exception, which may refuse that.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._before: tuple[int, int] | None = None

    def __enter__(self) -> None:
        if self._limit is None:
            return
        import resource  # noqa: PLC0415 - not on every system

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        self._before = _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = taken + self._limit * MIB
        resource.setrlimit(
            resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import resource  # noqa: PLC0415 - not on every system

            resource.setrlimit(resource.RLIMIT_AS, self._before)


def _die_with_the_parent() -> None:
    """On Linux also where the handler never lets our thread see that the pipe closed."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415

    set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


class ParentLink:
    """The process that started this one, at the other end of the pipe. Any thread may tell it something."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.RLock()
        self._answers: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._questions = 0

    def tell(self, *message: object) -> None:
        """Send a message; a parent that is gone is noticed by `attend`."""
        with self._lock, contextlib.suppress(OSError):
            send(self._pipe, *message)

    def tell_progress(self, attempt: AttemptState) -> None:
        # Taken and sent in one: what another thread just took must not be overtaken by the last word.
        with self._lock:
            progress = attempt.take_progress()
            if progress is not None:
                self.tell("progress", progress_fields(progress))

    def lease_ok(self) -> bool:
        """Return what the parent replies; False if it does not reply within a second."""
        with self._asking:
            self._questions += 1
            self.tell("lease_ok", self._questions)
            try:
                while True:
                    question, answer = self._answers.get(timeout=LONGEST_ANSWER)
                    if question == self._questions:
                        return answer
            except queue.Empty:
                return False

    def attend(self, attempt: AttemptState) -> None:
        """Tell progress, hear requests to end, and end this process with its parent."""
        try:
            while True:
                if self._pipe.poll(TELL_EVERY):
                    self._hear(attempt)
                self.tell_progress(attempt)
        except (EOFError, OSError):
            os._exit(1)

    def _hear(self, attempt: AttemptState) -> None:
        match receive(self._pipe):
            case "end", cause:
                attempt.ask_to_end(cause)
            case "lease_ok", question, answer:
                self._answers.put((question, answer))


class ChildAttempt(AttemptState):
    """The attempt in a child process: its log lines go to the parent at once, so that a crash loses none."""

    __slots__ = ("_parent",)

    def __init__(self, assignment: Assignment, parent: ParentLink) -> None:
        super().__init__(
            assignment.job,
            assignment.run,
            clock=SystemClock(),
            lease_ok=parent.lease_ok,
            keep_lines=assignment.capture_logs,
            backend=assignment.backend,
        )
        self.started_at = assignment.started_at
        self.started_mono = self._clock.monotonic()
        self._parent = parent

    def add_line(self, level: int, text: str) -> None:
        super().add_line(level, text)
        for _, kept, line in self.cut_lines():
            self._parent.tell("line", kept, line)
