"""Reports to other systems how runs go: the seam here, OpenTelemetry in `otel.py`, Prometheus in `prometheus.py`. Only an application that uses one of the two imports it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from jobmanager.context import RunContext
from jobmanager.run import Ending, Run, RunStatus
from jobmanager.step import Step
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)


class Observer(Protocol):
    """Gets every attempt that this process makes: `JobManager(observers=[...])`. Both methods must be quick.

    What they raise is logged and changes no run. For one attempt `started` comes before `ended`, which alone comes for an
    attempt whose handler was never called.
    """

    def started(self, context: RunContext) -> None:
        """Note that the handler is about to be called, in this thread or task: context variables set here hold inside it."""
        ...

    def ended(self, ending: Ending, status: RunStatus | None) -> None:
        """Note that the end is on record, without secrets. On the writer's thread, with runs waiting behind.

        `status` is how the run goes on: pending, if another attempt follows. None: refused, another process owns the run by now.
        """
        ...


@runtime_checkable
class StallObserver(Protocol):
    """An observer that also hears of the watchdog: one that has this method is called once when a thing begins to stand still."""

    def stalled(self, kind: str) -> None:
        """Count a symptom of this kind, one of `jobmanager.process.health.KINDS`; must be quick, on the watchdog's thread."""
        ...


@runtime_checkable
class StepObserver(Protocol):
    """An observer that also gets the steps of runs: one that has this method is called once for each step that is over."""

    def step_ended(self, run: Run, step: Step) -> None:
        """Note that the step is over and on record; must be quick, in the handler's thread. With `step.error`, it failed."""
        ...


@runtime_checkable
class RestObserver(Protocol):
    """An observer that also hears where a run came to rest: one that has this method is called when the run goes on, in any process."""

    def resumed(self, run: Run, traceparent: str) -> None:
        """Note the span in which the run came to rest; must be quick, in the handler's thread at its first step."""
        ...


def tell_resumed(observers: Sequence[StepObserver], run: Run, traceparent: str) -> None:
    """Call each observer that wants to hear of rests; one that fails is logged."""
    for observer in observers:
        if isinstance(observer, RestObserver):
            try:
                observer.resumed(run, traceparent)
            except Exception:
                logger.exception("observer %s failed", type(observer).__name__)


def tell_step_ended(observers: Sequence[StepObserver], run: Run, step: Step) -> None:
    """Call each observer; one that fails is logged."""
    for observer in observers:
        try:
            observer.step_ended(run, step)
        except Exception:
            logger.exception("observer %s failed", type(observer).__name__)


def tell_stalled(observers: Sequence[Observer], kind: str) -> None:
    """Call each observer that wants to hear of the watchdog; one that fails is logged."""
    for observer in observers:
        if isinstance(observer, StallObserver):
            try:
                observer.stalled(kind)
            except Exception:
                logger.exception("observer %s failed", type(observer).__name__)


def tell_started(observers: Sequence[Observer], context: RunContext) -> None:
    """Call each observer; one that fails is logged."""
    for observer in observers:
        try:
            observer.started(context)
        except BaseException:
            logger.exception("observer %s failed", type(observer).__name__)


def tell_ended(observers: Sequence[Observer], ending: Ending, status: RunStatus | None) -> None:
    """Call each observer; one that fails is logged."""
    for observer in observers:
        try:
            observer.ended(ending, status)
        except BaseException:
            logger.exception("observer %s failed", type(observer).__name__)


def lateness_of(scheduled_for: datetime | None, started_at: datetime | None) -> float | None:
    """Return the seconds from the instant of a tick to its start; None for a start by hand, or before it started."""
    if scheduled_for is None or started_at is None:
        return None
    return (started_at - scheduled_for).total_seconds()


def traceparent() -> str | None:
    """Return the current span as the header of W3C Trace Context; None where this process uses no OpenTelemetry."""
    otel = sys.modules.get(f"{__name__}.otel")
    header: str | None = None if otel is None else otel.current_traceparent()
    return header
