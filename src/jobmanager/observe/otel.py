"""OpenTelemetry (extra `otel`, the API only): a span per attempt and step, and counts and times as metrics.

`JobManager(observers=[OpenTelemetry()])` uses the providers the application has set up; without an SDK all of it is a no-op.
"""

from __future__ import annotations

from datetime import datetime

from jobmanager.context import RunContext
from jobmanager.errors import MissingExtraError
from jobmanager.job import Job
from jobmanager.observe import lateness_of
from jobmanager.run import FAILED, Ending, Failure, Run, RunStatus
from jobmanager.schedule import Cron
from jobmanager.step import Step

try:
    from opentelemetry import context as telemetry_context
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError as error:
    raise MissingExtraError(
        "jobmanager.observe.otel needs the package opentelemetry-api. Install jobmanager-backends[otel].",
        extra="otel",
    ) from error

SCOPE = "jobmanager"

# The conventions for functions are "Development" and may be renamed: https://opentelemetry.io/docs/specs/semconv/faas/
TRIGGER, CRON, TIME, INVOCATION_ID = "faas.trigger", "faas.cron", "faas.time", "faas.invocation_id"
ERROR_TYPE = "error.type"
JOB, ATTEMPT, STATUS, REASON = (
    "jobmanager.job", "jobmanager.attempt", "jobmanager.status", "jobmanager.reason",
)  # fmt: skip
BACKEND, SCHEDULED_FOR, STARTED_BY, RETRY_AT = (
    "jobmanager.backend", "jobmanager.scheduled_for", "jobmanager.trigger", "jobmanager.retry_at",
)  # fmt: skip

STEP, STEP_KIND, STEP_STATUS, STEP_TRIES = (
    "jobmanager.step", "jobmanager.step.kind", "jobmanager.step.status", "jobmanager.step.tries",
)  # fmt: skip

Attributes = dict[str, str | int]


class OpenTelemetry:
    """Spans `run {job}` (CONSUMER) from a handler's call to its end, each the root of a trace that the handler's own spans join.

    Below them a span `step {name}` for each step that is over, from its beginning, which may lie in an earlier call. The span of a run that
    goes on after a rest links the one in which it came to rest, whichever process made it. Metrics: `jobmanager.step.duration`, `jobmanager.run.invocations`, `.errors`, `.timeouts`, `.duration`, `.queue_delay`, `.lateness` (seconds) and `.active`.
    The providers default to the global ones. One of it serves one manager or several.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._invocations = meter.create_counter("jobmanager.run.invocations", unit="{attempt}")
        self._errors = meter.create_counter("jobmanager.run.errors", unit="{attempt}")
        self._timeouts = meter.create_counter("jobmanager.run.timeouts", unit="{attempt}")
        self._duration = meter.create_histogram("jobmanager.run.duration", unit="s")
        self._queue_delay = meter.create_histogram("jobmanager.run.queue_delay", unit="s")
        self._lateness = meter.create_histogram("jobmanager.run.lateness", unit="s")
        self._active = meter.create_up_down_counter("jobmanager.run.active", unit="{attempt}")
        self._steps = meter.create_histogram("jobmanager.step.duration", unit="s")
        self._spans: dict[tuple[str, int], Span] = {}

    def started(self, context: RunContext) -> None:
        """Begin the span and make it the current one of the handler."""
        attributes = _about(context.run) | _about_job(context.job) | {BACKEND: context.backend}
        span = self._begin(context.run, context.started_at, attributes)
        self._spans[context.run_id, context.attempt] = span
        self._active.add(1, {JOB: context.job.id})
        # Not detached: it holds for this attempt's context alone, which ends with it.
        telemetry_context.attach(trace.set_span_in_context(span))

    def ended(self, ending: Ending, status: RunStatus | None) -> None:
        """End the span, or write one for an attempt whose handler was never called; count."""
        run = ending.run
        span = self._spans.pop((run.id, run.attempt), None)
        if span is None:
            span = self._begin(run, ending.started_at, _about(run))
        else:
            self._active.add(-1, {JOB: run.job_id})
        self._close(span, ending, status)
        self._count(ending, status)

    def resumed(self, run: Run, traceparent: str) -> None:
        """Have the span of the attempt link the one in which the run came to rest."""
        span = self._spans.get((run.id, run.attempt))
        if span is None:
            return
        _, trace_id, span_id, flags = traceparent.split("-")
        before = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))  # noqa: FBT003
        span.add_link(before)

    def step_ended(self, run: Run, step: Step) -> None:
        """Write the span of a step, below that of its attempt."""
        attempt = self._spans.get((run.id, run.attempt))
        root = telemetry_context.Context()
        span = self._tracer.start_span(
            f"step {step.name}",
            context=root if attempt is None else trace.set_span_in_context(attempt, root),
            attributes={
                JOB: run.job_id,
                STEP: step.name,
                STEP_KIND: step.kind,
                STEP_STATUS: step.status,
                STEP_TRIES: step.attempt,
            },
            start_time=_nanoseconds(step.started_at),
        )
        ended_at = step.ended_at or step.started_at
        if step.error is not None and step.status == "failed":
            span.set_attribute(ERROR_TYPE, _error_type(step.error))
            span.set_status(Status(StatusCode.ERROR, step.error.message))
        span.end(end_time=_nanoseconds(ended_at))
        about: Attributes = {JOB: run.job_id, STEP_KIND: step.kind, STEP_STATUS: step.status}
        self._steps.record((ended_at - step.started_at).total_seconds(), about)

    def _begin(self, run: Run, moment: datetime, attributes: Attributes) -> Span:
        return self._tracer.start_span(
            f"run {run.job_id}",
            # A run has no parent: what happened to be current where it was handed over has no part in it.
            context=telemetry_context.Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            start_time=_nanoseconds(moment),
        )

    def _close(self, span: Span, ending: Ending, status: RunStatus | None) -> None:
        span.set_attribute(STATUS, status or "refused")
        if ending.reason is not None:
            span.set_attribute(REASON, ending.reason)
        if ending.retry_at is not None:
            span.set_attribute(RETRY_AT, ending.retry_at.isoformat())
        failure = ending.error
        if failure is not None:
            span.set_attribute(ERROR_TYPE, _error_type(failure))
            seen = {"exception.type": failure.type or failure.kind, "exception.message": failure.message}
            if failure.traceback:
                seen["exception.stacktrace"] = failure.traceback
            span.add_event("exception", seen, timestamp=_nanoseconds(ending.finished_at))
        if ending.status is FAILED:
            span.set_status(Status(StatusCode.ERROR, failure.message if failure else None))
        span.end(end_time=_nanoseconds(ending.finished_at))

    def _count(self, ending: Ending, status: RunStatus | None) -> None:
        run, failure = ending.run, ending.error
        of_job: Attributes = {JOB: run.job_id}
        self._invocations.add(1, of_job | {STATUS: status or "refused", STARTED_BY: run.trigger})
        if ending.status is FAILED and failure is not None:
            self._errors.add(1, of_job | {ERROR_TYPE: _error_type(failure)})
            if failure.kind == "timeout":
                self._timeouts.add(1, of_job)
        self._duration.record((ending.finished_at - ending.started_at).total_seconds(), of_job)
        if run.attempt == 1:
            self._queue_delay.record((ending.started_at - run.due_at).total_seconds(), of_job)
            late = lateness_of(run.scheduled_for, ending.started_at)
            if late is not None:
                self._lateness.record(late, of_job)


def current_traceparent() -> str | None:
    """Return the current span as the header of W3C Trace Context; None outside of any span."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"


def _about(run: Run) -> Attributes:
    attributes: Attributes = {
        TRIGGER: "other" if run.trigger == "manual" else "timer",
        INVOCATION_ID: run.id,
        JOB: run.job_id,
        ATTEMPT: run.attempt,
        STARTED_BY: run.trigger,
    }
    if run.scheduled_for is not None:
        attributes[TIME] = attributes[SCHEDULED_FOR] = run.scheduled_for.isoformat()
    return attributes


def _about_job(job: Job) -> Attributes:
    return {CRON: job.schedule.expression} if isinstance(job.schedule, Cron) else {}


def _error_type(failure: Failure) -> str:
    """Return the exception's class, or our kind where there was none."""
    return failure.type if failure.kind == "exception" and failure.type else failure.kind


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1000
