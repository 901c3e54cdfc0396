"""TaskBackend: Django's tasks, of Django 6 or of the backport, as runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests import bakery

from jobmanager import RunStatus

OURS = "jobmanager.contrib.django.TaskBackend"


@pytest.fixture(scope="module", autouse=True)
def project() -> None:
    bakery.set_up()


@pytest.fixture
def tasks() -> Any:
    from tests.bakery_tasks import tasks

    tasks.done.clear()
    return tasks


@contextmanager
def project_with(
    queues: tuple[str, ...] = ("default",), backend: str = "noop", **options: Any
) -> Iterator[Any]:
    """The jobs of the project, in memory, and its tasks with these options."""
    from django.test import override_settings

    from jobmanager.contrib.django.test import jobs_in_memory

    configured = {"BACKEND": OURS, "QUEUES": list(queues), "OPTIONS": options}
    with jobs_in_memory(backend=backend) as (jobs, clock), override_settings(TASKS={"default": configured}):
        jobs.clock = clock
        yield jobs


def test_a_task_is_a_run_with_its_arguments_and_result(tasks: Any) -> None:
    with project_with() as jobs:
        result = tasks.add.enqueue(2, second=3)

        (run,) = jobs.runs("django-tasks")
        assert (result.return_value, result.id, result.attempts) == (5, run.id, 1)
        assert tasks.add.get_result(result.id) == result
        assert asyncio.run(tasks.add_async.aenqueue(1)).return_value == 2


def test_each_queue_is_a_job_with_priority_and_instant(tasks: Any) -> None:
    with project_with(("default", "mail", "Große Post"), backend="local", timeout=30) as jobs:
        at = jobs.clock.now() + timedelta(hours=1)
        later = tasks.add.using(queue_name="mail", priority=7, run_after=at).enqueue(1)
        tasks.add.using(queue_name="Große Post").enqueue(1)

        (run,) = jobs.runs("django-tasks-mail")
        assert (run.priority, run.due_at, run.status) == (7, at, RunStatus.PENDING)
        assert later.status == "READY"
        assert tasks.add.get_result(later.id).task.run_after == at
        odd = {job for job in jobs.registry.jobs if job.startswith("django-tasks-gro-e-post-")}
        assert len(odd) == 1
        jobs.start()
        jobs.clock.advance(hours=1)
        later.refresh()
        assert (later.status, later.return_value) == ("SUCCESSFUL", 2)


@pytest.mark.parametrize(("attempts", "status"), [(2, "SUCCESSFUL"), (1, "FAILED")])
def test_a_task_is_tried_again_and_its_end_is_told_once(tasks: Any, attempts: int, status: str) -> None:
    from jobmanager.contrib.django import tasks as ours

    told: list[tuple[str, str]] = []
    signals = {"enqueued": ours.task_enqueued, "started": ours.task_started, "finished": ours.task_finished}
    receivers = {
        name: lambda task_result, name=name, **_: told.append((name, str(task_result.status)))
        for name in signals
    }
    for name, signal in signals.items():
        signal.connect(receivers[name])
    try:
        with project_with(retry=attempts):
            result = tasks.fails_at_first.enqueue(1)
    finally:
        for name, signal in signals.items():
            signal.disconnect(receivers[name])

    assert (result.status, result.attempts, len(result.worker_ids)) == (status, attempts, attempts)
    assert [error.exception_class for error in result.errors] == [ValueError]
    assert "raise ValueError" in result.errors[0].traceback
    started = [("started", "RUNNING")] * attempts
    assert told == [
        ("enqueued", "READY" if told[0][1] == "READY" else "RUNNING"),
        *started,
        ("finished", status),
    ]


def test_a_result_that_is_no_json_is_a_failure(tasks: Any) -> None:
    with project_with():
        result = tasks.returns_a_set.enqueue()

    assert (result.status, result.errors[0].exception_class) == ("FAILED", TypeError)


@pytest.mark.parametrize("path", ["os.system", "tests.bakery_tasks.tasks.no_task", "subprocess.run"])
def test_only_tasks_of_installed_applications_are_called(tasks: Any, path: str) -> None:
    """Fails if a payload that somebody else wrote has the process import and call what it names."""
    with project_with(retry=3) as jobs:
        tasks.add.enqueue(1)
        run = jobs.trigger_job(
            "django-tasks", {"task": path, "args": ["true"], "kwargs": {}, "backend": "default"}
        )

        assert (run.status, run.attempt) == (RunStatus.FAILED, 1)
        assert "no application of INSTALLED_APPS" in run.error.message or "is no task" in run.error.message
        assert tasks.done == [1]


@pytest.mark.parametrize("commits", [True, False])
def test_with_on_commit_a_task_follows_the_transaction(tasks: Any, *, commits: bool) -> None:
    from django.db import transaction

    from jobmanager.contrib.django.tasks import TaskResultDoesNotExist

    with project_with(on_commit=True) as jobs:
        with transaction.atomic():
            result = tasks.add.enqueue(2)
            assert (result.status, tasks.done) == ("READY", [])
            transaction.set_rollback(not commits)
        if commits:
            result.refresh()
            assert (result.status, result.return_value) == ("SUCCESSFUL", 3)
            assert tasks.add.get_result(result.id).id == result.id
        else:
            with pytest.raises(TaskResultDoesNotExist):
                result.refresh()
            assert jobs.runs("django-tasks") == []


def test_results_of_other_runs_are_none_of_a_task(tasks: Any) -> None:
    from jobmanager.contrib.django.tasks import TaskResultDoesNotExist

    with project_with() as jobs:
        run = jobs.trigger_job("forget-orders")
        tail = tasks.add.enqueue(1).id[-8:]
        for known in (run.id, tail):
            with pytest.raises(TaskResultDoesNotExist):
                tasks.add.get_result(known)


def test_a_process_declares_the_queues_that_its_project_configures() -> None:
    """Fails if a worker that has enqueued nothing knows no job of the tasks."""
    from jobmanager.contrib.django import jobs

    assert "django-tasks" in jobs.registry.declared
