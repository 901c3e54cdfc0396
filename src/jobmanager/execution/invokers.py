"""How a handler is called: on a worker thread, on the event loop, or in a child process. Each returns an Outcome."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

from jobmanager.access.acting import act_for_nobody
from jobmanager.context import CancelCause, RunContext, current_run
from jobmanager.errors import HandlerNotFoundError, PayloadError
from jobmanager.execution.around import Arounds
from jobmanager.execution.attempt import Attempt
from jobmanager.execution.child_process import ChildProcesses
from jobmanager.execution.outcome import Outcome, end_forked_child, not_startable, outcome_of
from jobmanager.observe import Observer, tell_started
from jobmanager.registry import Handler

CauseOf = Callable[[BaseException], CancelCause | None]


class Invokers:
    """Call handlers, each in the way its job asks for. What a handler raises becomes an outcome, never an exception here."""

    def __init__(
        self,
        children: ChildProcesses,
        *,
        cause_of: CauseOf,
        observers: Sequence[Observer],
        arounds: Arounds,
    ) -> None:
        self._children = children
        self._arounds = arounds
        self._cause_of = cause_of
        self._observers = tuple(observers)

    def on_this_thread(self, attempt: Attempt) -> Outcome:
        """Call a plain function, in a copy of the thread's context variables."""
        context = attempt.context()
        call = _bound(attempt, context)
        if isinstance(call, Outcome):
            return call
        returned, raised = contextvars.copy_context().run(self._called, context, call)
        if attempt.is_forked:
            end_forked_child(attempt.run)
        cause = None if raised is None else self._cause_of(raised)
        if cause is not None:
            attempt.ask_to_end(cause)
            if not isinstance(raised, Exception):
                attempt.meant_for_the_process = raised
        return outcome_of(attempt, returned, raised)

    async def on_this_loop(self, attempt: Attempt) -> Outcome:
        """Await a coroutine function in the current task."""
        context = attempt.context(awaited=True)
        call = _bound(attempt, context)
        if isinstance(call, Outcome):
            return call
        current_run.set(context)
        act_for_nobody()
        if self._observers:
            tell_started(self._observers, context)
        returned, raised = None, None
        try:
            returned = await (self._arounds.awaited(context, call) if self._arounds else call())
        except BaseException as error:  # noqa: BLE001 - the handler's, to be recorded
            raised = error
        if attempt.is_forked:
            end_forked_child(attempt.run)
        return outcome_of(attempt, returned, raised)

    def in_a_child_process(self, attempt: Attempt, handler: Handler) -> Outcome:
        """Call the handler in a process of its own, and wait until that has ended."""
        return contextvars.copy_context().run(self._isolated, attempt, handler)

    def _called(self, context: RunContext, call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        current_run.set(context)
        act_for_nobody()
        if self._observers:
            tell_started(self._observers, context)
        try:
            return (self._arounds.call(context, call) if self._arounds else call()), None
        except BaseException as error:  # noqa: BLE001 - the handler's, to be recorded; it may not end the worker
            return None, error

    def _isolated(self, attempt: Attempt, handler: Handler) -> Outcome:
        tell_started(self._observers, attempt.context())
        return self._children.attempt(attempt, handler)


def _bound(attempt: Attempt, context: RunContext) -> Callable[[], Any] | Outcome:
    """Return the handler with its arguments; the outcome, if it cannot be called."""
    handler = attempt.handler
    try:
        if handler is None:
            raise HandlerNotFoundError(
                f"This process has no handler {attempt.job.handler!r}. "
                "Import the module that declares it before start()."
            )
        return handler.bound_to(context)
    except (HandlerNotFoundError, PayloadError) as error:
        return not_startable(error)
