"""A backend for Django's tasks: `django.tasks` of Django 6.0 and later, and the backport `django_tasks` before it.

    TASKS = {"default": {"BACKEND": "jobmanager.contrib.django.TaskBackend"}}

Each queue is one job; a task that is enqueued is a run of it, with the task's priority and instant.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Any

from django.apps import apps
from django.db import transaction
from django.utils.module_loading import import_string

from jobmanager.context import RunContext
from jobmanager.contrib.django.current import jobs
from jobmanager.errors import (
    DuplicateJobError,
    JobNotFoundError,
    MissingExtraError,
    NonRetryable,
    RunNotFoundError,
)
from jobmanager.job import Retry
from jobmanager.run import Failure, Run, RunStatus

try:
    import django.tasks as library
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
except ImportError:  # Django before 6.0
    try:
        import django_tasks as library
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
        from django_tasks.exceptions import TaskResultDoesNotExist
        from django_tasks.signals import task_enqueued, task_finished, task_started
        from django_tasks.utils import normalize_json
    except ImportError as error:
        raise MissingExtraError(
            "TaskBackend needs Django 6.0, or the package django-tasks before it. Install django-tasks.",
            extra="django",
        ) from error

HANDLER = "django-tasks"
_OPTIONS = ("retry", "timeout", "retention")
_STATUS = {
    RunStatus.PENDING: TaskResultStatus.READY,
    RunStatus.RUNNING: TaskResultStatus.RUNNING,
    RunStatus.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
}
_enqueuing: ContextVar[Callable[[str], None] | None] = ContextVar("enqueuing", default=None)


class TaskBackend(BaseTaskBackend):
    """Enqueues tasks as runs. OPTIONS: `retry` (a Retry, or how many attempts), `timeout`, `retention`, as of a job; `on_commit`.

    With `on_commit` a task is enqueued when the transaction commits, and its id is the key of the run, made before.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        for queue in self.queues:
            self.declare(queue)

    def declare(self, queue: str) -> str:
        """Declare the job of a queue and return its id; twice is once."""
        job_id, registry = self.job_id(queue), jobs.registry
        options = {name: self.options[name] for name in _OPTIONS if name in self.options}
        if isinstance(options.get("retry"), int):
            options["retry"] = Retry(max_attempts=options["retry"])
        add = partial(
            jobs.add_job, job_id, HANDLER, name=f"Tasks of Django, queue {queue}", overlap="allow", **options
        )
        registry.add_handler(HANDLER, execute, creatable=False)
        try:
            add()
        except DuplicateJobError:  # a test has changed the options
            del registry.declared[job_id], registry.jobs[job_id]
            add()
        return job_id

    def job_id(self, queue: str) -> str:
        """Return the id of the job of a queue."""
        words = [HANDLER, *(word for word in (self.alias, queue) if word != "default")]
        return "-".join(map(_slug, words))

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Enqueue a task at once, also if the caller's transaction is rolled back, and return its result so far."""
        self.validate_task(task)
        payload = {
            "task": task.module_path,
            "args": normalize_json(list(args)),
            "kwargs": normalize_json(dict(kwargs)),
            "backend": self.alias,
            "queue": task.queue_name,
            "run_after": None if task.run_after is None else task.run_after.isoformat(),
        }
        job_id = self.declare(task.queue_name)
        if self.options.get("on_commit"):
            key = str(uuid.uuid4())
            start = partial(self._start, job_id, task, payload, key)
            transaction.on_commit(start, robust=True)
            return _planned(key, task, payload)
        return self._start(job_id, task, payload)

    def _start(self, job_id: str, task: Any, payload: Mapping[str, Any], key: str | None = None) -> Any:
        told: list[str] = []

        def tell(run_id: str) -> None:
            """Send the signal once: on noop the task is executed before its run is returned."""
            if not told:
                told.append(run_id)
                result = result_of(jobs.run(run_id), task, self.alias)
                _put(result, status=TaskResultStatus.READY)
                task_enqueued.send(type(self), task_result=result)

        token = _enqueuing.set(tell)
        try:
            run = jobs.trigger_job(job_id, payload, at=task.run_after, priority=task.priority, key=key)
        finally:
            _enqueuing.reset(token)
        tell(run.id)
        return result_of(run, task, self.alias)

    def get_result(self, result_id: str) -> Any:
        """Return the result of a task so far; TaskResultDoesNotExist if no run of a task has this id."""
        run = self._found(str(result_id))
        if run is None:
            raise TaskResultDoesNotExist(result_id)
        payload = run.payload or {}
        return result_of(run, task_of(payload, run.priority), str(payload["backend"]))

    def _found(self, result_id: str) -> Run | None:
        """Return the run of a task with this id, or with this key where tasks wait for a commit."""
        with suppress(RunNotFoundError):
            run = jobs.run(result_id)
            if run.id == result_id and run.job_id.startswith(HANDLER) and "task" in (run.payload or {}):
                return run
        if self.options.get("on_commit") and jobs.store.exists():
            for queue in self.queues:
                with suppress(JobNotFoundError), jobs.store.jobs.lock(self.job_id(queue)) as txn:
                    if found := txn.run_with_key(result_id):
                        return found
        return None


def _planned(key: str, task: Any, payload: Mapping[str, Any]) -> Any:
    """Return the result of a task that will be enqueued at the commit."""
    return TaskResult(
        task=task,
        id=key,
        status=TaskResultStatus.READY,
        enqueued_at=None,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=list(payload["args"]),
        kwargs=dict(payload["kwargs"]),
        backend=str(payload["backend"]),
        errors=[],
        worker_ids=[],
    )


def execute(context: RunContext) -> Any:
    """Call a task of Django: the handler of all queues."""
    tell = _enqueuing.get()
    if tell is not None:
        _enqueuing.set(None)  # what the task enqueues itself is not this one
        tell(context.run_id)
    found = task_of(context.payload, context.run.priority)
    result = result_of(context.run, found, found.backend, running_since=context.started_at)
    sender = type(found.get_backend())
    task_started.send(sender, task_result=result)
    try:
        before = [TaskContext(task_result=result)] if found.takes_context else []
        returned = normalize_json(found.call(*before, *result.args, **result.kwargs))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _put(result, errors=[*result.errors, _error_of(error)])
        _finish(context, result, TaskResultStatus.FAILED, error)
        raise
    _put(result, _return_value=returned)
    _finish(context, result, TaskResultStatus.SUCCESSFUL, None)
    return returned


def _finish(context: RunContext, result: Any, status: Any, error: BaseException | None) -> None:
    """Send the signal of the end, unless another attempt follows."""
    left = context.run.attempt < context.run.max_attempts
    if error is None or not (left and context.job.retry.allows(error, 0)):
        _put(result, status=status, finished_at=jobs.store.now())
        task_finished.send(type(result.task.get_backend()), task_result=result)


def task_of(payload: Mapping[str, Any], priority: int) -> Any:
    """Return the task that a payload names, as it was enqueued; NonRetryable if it names none of an installed application."""
    path = str(payload["task"])
    if apps.get_containing_app_config(path.rpartition(".")[0]) is None:
        raise NonRetryable(f"{path!r} lies in no application of INSTALLED_APPS; it is not imported.")
    found = import_string(path)
    if not isinstance(found, Task):
        raise NonRetryable(f"{path!r} is no task.")
    after = payload.get("run_after")
    return found.using(
        priority=priority,
        queue_name=payload.get("queue"),
        backend=payload.get("backend"),
        run_after=datetime.fromisoformat(after) if after else None,
    )


def result_of(run: Run, task: Any, alias: str, *, running_since: datetime | None = None) -> Any:
    """Return a run as Django's result; `running_since` is when the attempt at hand began."""
    earlier = jobs.attempts(run.id) if run.attempt > 1 else []
    payload = run.payload or {}
    workers = [attempt.owner or "unknown" for attempt in earlier][: max(0, run.attempt - 1)]
    workers += [run.owner or "unknown"] * (run.attempt - len(workers))
    started = running_since or run.started_at
    first = next((attempt.started_at for attempt in earlier if attempt.started_at), started)
    status = _STATUS.get(run.status, TaskResultStatus.FAILED)
    failures = [attempt.error for attempt in earlier if attempt.error]
    if run.error is not None and run.status is not RunStatus.PENDING:
        failures.append(run.error)
    result: Any = TaskResult(
        task=task,
        id=run.idempotency_key or run.id,
        status=TaskResultStatus.RUNNING if running_since else status,
        enqueued_at=run.opened_at,
        started_at=first,
        finished_at=None if running_since else run.finished_at,
        last_attempted_at=started,
        args=list(payload.get("args", ())),
        kwargs=dict(payload.get("kwargs", {})),
        backend=alias,
        errors=[
            TaskError(exception_class_path=_path_of(each), traceback=each.traceback or each.message)
            for each in failures
        ],
        worker_ids=workers,
    )
    if status == TaskResultStatus.SUCCESSFUL:
        _put(result, _return_value=run.output)
    return result


def _put(result: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _error_of(error: BaseException) -> Any:
    from traceback import format_exception

    kind = type(error)
    return TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
        traceback="".join(format_exception(error)),
    )


def _path_of(failure: Failure) -> str:
    """Return where the class of an exception can be imported: its name is recorded, its module stands in the traceback."""
    name = failure.type or "Exception"
    shown = re.compile(rf"^((?:\w+\.)*{re.escape(name)})(?::|$)", re.MULTILINE).findall(
        failure.traceback or ""
    )
    path = str(shown[-1]) if shown else name
    return path if "." in path else f"builtins.{path}"


def _slug(word: str) -> str:
    """Return a queue's name as a part of a job's id; one that is none with a digest of it, so that no two queues share a job."""
    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", word):
        return word
    plain = re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:40]
    return f"{plain or 'queue'}-{hashlib.sha256(word.encode()).hexdigest()[:8]}"


def declare_all() -> None:
    """Make each backend of this class that the project configures, so that its queues are jobs of this process."""
    handler = library.task_backends
    for alias, params in (handler.settings or {}).items():
        if str(params.get("BACKEND", "")).startswith("jobmanager."):
            handler[alias]
