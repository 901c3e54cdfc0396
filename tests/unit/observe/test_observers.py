"""Observers: log fields, OpenTelemetry spans and metrics. What they do changes no run."""

import logging
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jobmanager import JobManager, NonRetryable, Retry, RunStatus, Settings
from jobmanager.errors import MissingExtraError
from jobmanager.observe.otel import OpenTelemetry
from jobmanager.observe.prometheus import Prometheus
from jobmanager.testing import FakeClock, run_due

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Telemetry:
    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.observer = OpenTelemetry(tracer_provider=self.provider, meter_provider=self.meters)

    def spans(self):
        return self._exporter.get_finished_spans()

    def points(self, name):
        found = {
            metric.name: metric.data.data_points
            for resource in self._reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        return {tuple(sorted(point.attributes.items())): point for point in found.get(name, [])}


@pytest.fixture
def telemetry():
    made = Telemetry()
    yield made
    made.provider.shutdown()
    made.meters.shutdown()


@pytest.fixture
def settings(tmp_path):
    return Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db")


@pytest.fixture
def jobs(settings, telemetry):
    manager = JobManager(settings, observers=[telemetry.observer])
    yield manager
    manager.stop(drain=1)


def ended(jobs, function, *payloads, **policies):
    """The last of these runs, one after the other, once everybody was told of its end."""
    jobs.add_job("work", function, **policies)
    jobs.start()
    for payload in payloads or (None,):
        run = jobs.wait(jobs.trigger_job("work", payload).id, 10)
    jobs.stop(drain=1)  # the store knows of an end a moment before the observers do
    return run


# ---------------------------------------------------------------- log fields


@pytest.mark.parametrize("isolated", [False, True])
def test_log_records_about_a_run_carry_the_same_fields(settings, caplog, isolated):
    clock = FakeClock(NOON)
    jobs = JobManager(settings, clock=clock)
    caplog.set_level(logging.INFO, logger="jobmanager")
    options = {"isolation": "process"} if isolated else {}
    jobs.add_job(
        "work", "json:loads", every=60, config={"s": "not json"}, retry=Retry(max_attempts=2), **options
    )
    with jobs:
        clock.advance(minutes=1, seconds=10)
    run = jobs.runs("work")[-1]

    about = [record for record in caplog.records if getattr(record, "run_id", None) == run.id]
    assert [record.levelname for record in about] == ["WARNING", "ERROR"]
    for record, attempt in zip(about, (1, 2), strict=True):
        assert (record.job, record.backend, record.attempt) == ("work", "local", attempt)
        assert record.scheduled_for == "2026-03-01T12:01:00+00:00"
        assert "job=work run_id=" in record.getMessage()


def test_what_a_handler_logs_carries_them_too(settings, caplog):
    jobs = JobManager(settings)

    ended(jobs, lambda context: context.log.warning("look"))

    record = next(record for record in caplog.records if "look" in record.getMessage())
    assert (record.job, record.backend, record.scheduled_for) == ("work", "local", None)


# ---------------------------------------------------------------- the seam


def test_an_observer_that_fails_changes_no_run(settings, caplog):
    class Broken:
        def started(self, context):
            raise RuntimeError("no")

        ended = started

    jobs = JobManager(settings, observers=[Broken()])
    run = ended(jobs, lambda: "done")

    assert run.output == "done"
    assert caplog.text.count("observer Broken failed") == 2


def test_without_the_extra_the_module_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "jobmanager.observe.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(MissingExtraError, match=r"jobmanager-backends\[otel\]"):
        import jobmanager.observe.otel  # noqa: F401


# ---------------------------------------------------------------- spans


def test_a_run_is_a_span_with_what_is_known_of_it(settings, telemetry):
    clock = FakeClock(NOON)
    jobs = JobManager(settings, clock=clock, observers=[telemetry.observer])
    jobs.add_job("work", lambda: None, cron="* * * * *")
    with jobs:
        clock.advance(minutes=1)

    (span,) = telemetry.spans()
    run = jobs.runs("work")[0]
    assert (span.name, span.kind, span.parent) == ("run work", SpanKind.CONSUMER, None)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "faas.trigger": "timer",
        "faas.cron": "* * * * *",
        "faas.time": "2026-03-01T12:01:00+00:00",
        "faas.invocation_id": run.id,
        "jobmanager.job": "work",
        "jobmanager.attempt": 1,
        "jobmanager.backend": "local",
        "jobmanager.trigger": "schedule",
        "jobmanager.scheduled_for": "2026-03-01T12:01:00+00:00",
        "jobmanager.status": "succeeded",
    }
    assert span.start_time == run.started_at.timestamp() * 1e9
    assert span.end_time == run.finished_at.timestamp() * 1e9


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_what_the_handler_traces_belongs_to_its_run(jobs, telemetry, kind):
    tracer = telemetry.provider.get_tracer("application")

    def work():
        tracer.start_span("inside").end()

    async def work_async():
        work()

    with tracer.start_as_current_span("request"):
        ended(jobs, work if kind == "thread" else work_async)

    spans = {span.name: span for span in telemetry.spans()}
    assert spans["run work"].parent is None
    assert spans["inside"].parent.span_id == spans["run work"].context.span_id


def test_nothing_of_a_span_is_left_in_the_worker(jobs, telemetry):
    current = []
    ended(jobs, lambda: current.append(trace.get_current_span().get_span_context().trace_id), {}, {})

    assert 0 not in current
    assert len(set(current)) == 2
    assert not telemetry.observer._spans


def test_every_attempt_is_a_span_and_a_failed_one_says_why(jobs, telemetry):
    def fails(password: str):
        raise ConnectionError("password=hunter22 refused")

    run = ended(jobs, fails, {"password": "x"}, retry=Retry(max_attempts=2, base=0))

    first, second = telemetry.spans()
    assert run.status is RunStatus.FAILED
    assert [span.attributes["jobmanager.status"] for span in (first, second)] == ["pending", "failed"]
    assert [span.attributes["jobmanager.attempt"] for span in (first, second)] == [1, 2]
    assert "jobmanager.retry_at" in first.attributes
    assert second.attributes["error.type"] == "ConnectionError"
    assert second.status.status_code is StatusCode.ERROR
    (event,) = second.events
    assert event.attributes["exception.type"] == "ConnectionError"
    assert "fails" in event.attributes["exception.stacktrace"]
    assert "hunter22" not in str(event.attributes) + str(second.status.description)


def test_an_attempt_whose_handler_was_never_called_is_a_span_too(jobs, telemetry):
    run = ended(jobs, "nowhere:at_all")

    (span,) = telemetry.spans()
    assert (run.error.kind, span.attributes["error.type"]) == ("handler_missing", "handler_missing")


# ---------------------------------------------------------------- metrics


def test_runs_are_counted_and_timed(jobs, telemetry):
    def work(how: str):
        if how == "fail":
            raise NonRetryable("no")

    ended(jobs, work, {"how": "fail"}, {"how": "work"}, {"how": "work"})

    invocations = telemetry.points("jobmanager.run.invocations")
    job = ("jobmanager.job", "work")
    by_hand = ("jobmanager.trigger", "manual")
    assert {key: point.value for key, point in invocations.items()} == {
        (job, ("jobmanager.status", "failed"), by_hand): 1,
        (job, ("jobmanager.status", "succeeded"), by_hand): 2,
    }
    errors = telemetry.points("jobmanager.run.errors")
    assert {key: point.value for key, point in errors.items()} == {(("error.type", "NonRetryable"), job): 1}
    assert telemetry.points("jobmanager.run.duration")[job,].count == 3
    assert telemetry.points("jobmanager.run.queue_delay")[job,].count == 3
    assert telemetry.points("jobmanager.run.lateness") == {}
    assert telemetry.points("jobmanager.run.active")[job,].value == 0


def test_what_runs_now_is_counted_as_active(jobs, telemetry):
    inside, let_out = threading.Event(), threading.Event()

    def work():
        inside.set()
        let_out.wait(10)

    jobs.add_job("work", work)
    jobs.start()
    run = jobs.trigger_job("work")
    inside.wait(10)
    active = telemetry.points("jobmanager.run.active")
    let_out.set()
    jobs.wait(run.id, 10)

    assert [point.value for point in active.values()] == [1]


def test_a_tick_has_a_lateness(settings, telemetry):
    clock = FakeClock(NOON)
    jobs = JobManager(settings, clock=clock, observers=[telemetry.observer])
    jobs.add_job("work", lambda: None, every=60, jitter=timedelta(seconds=30))
    with jobs:
        clock.advance(minutes=3)

    (late,) = telemetry.points("jobmanager.run.lateness").values()
    assert late.count >= 2
    assert late.sum > 0


# ---------------------------------------------------------------- steps


def test_each_step_is_a_span_below_its_attempt_which_links_the_one_before_the_rest(telemetry):
    clock, counted = FakeClock(NOON), Prometheus()

    def broken():
        raise ValueError("no")

    def flow(context):
        context.step("load", lambda: 1)
        context.sleep("rest", hours=1)
        context.step("send", broken, retry=1)

    observers = [telemetry.observer, counted]
    jobs = JobManager(
        Settings(backend="noop", database_url="memory://"), observers=observers, clock=clock
    ).start()
    jobs.add_job("flow", flow)
    run = jobs.trigger_job("flow")
    clock.step(3600)
    run_due(jobs)
    jobs.stop()

    first, second = (span for span in telemetry.spans() if span.name == "run flow")
    steps = {span.name: span for span in telemetry.spans() if span.name.startswith("step ")}
    assert jobs.run(run.id).status == "failed"
    assert {name: span.parent.span_id for name, span in steps.items()} == {
        "step load": first.context.span_id,
        "step rest": second.context.span_id,
        "step send": second.context.span_id,
    }
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert [step.output for step in jobs.steps(run.id)] == [1, None, None]
    assert steps["step rest"].end_time - steps["step rest"].start_time == 3600 * 10**9
    assert steps["step send"].status.status_code is StatusCode.ERROR
    assert steps["step send"].attributes["error.type"] == "ValueError"
    assert len(telemetry.points("jobmanager.step.duration")) == 3
    for kind, status in (("step", "succeeded"), ("sleep", "succeeded"), ("step", "failed")):
        labels = {"job": "flow", "kind": kind, "status": status}
        assert counted.registry.get_sample_value("jobmanager_steps_total", labels) == 1


def test_a_span_after_a_rest_links_the_one_before_that_another_process_made(tmp_path):
    """Fails if the span of before is known to its process alone; each manager has an observer of its own, as each process has."""
    clock, there, here = FakeClock(NOON), Telemetry(), Telemetry()

    def flow(context):
        context.gather("all", "child", [{}, {}], limit=1)
        context.step("send", lambda: 1)

    def manager_of(telemetry):
        jobs = JobManager(
            Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db"),
            observers=[telemetry.observer],
            clock=clock,
        )
        jobs.add_job("child", lambda context: context.sleep("rest", hours=1))
        jobs.add_job("flow", flow)
        return jobs.start()

    jobs = manager_of(there)
    run = jobs.trigger_job("flow")
    run_due(jobs)
    assert jobs.run(run.id).reason == "children"
    jobs.stop()
    jobs = manager_of(here)
    for _ in range(3):
        clock.step(3600)
        run_due(jobs)
    jobs.stop()

    assert jobs.run(run.id).status == "succeeded"
    [before] = (span for span in there.spans() if span.name == "run flow")
    second, third = (span for span in here.spans() if span.name == "run flow")
    assert [link.context.span_id for link in second.links] == [before.context.span_id]
    assert [link.context.span_id for link in third.links] == [second.context.span_id]
    for telemetry in (there, here):
        telemetry.provider.shutdown()
        telemetry.meters.shutdown()
