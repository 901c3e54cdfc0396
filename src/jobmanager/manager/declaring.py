"""The methods of JobManager that declare jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar, Unpack

from jobmanager.execution.child_process import check_machine
from jobmanager.job import Job, JobOptions, PolicyWords, check_id, make_job
from jobmanager.manager.parts import Parts
from jobmanager.registry import HandlerTarget
from jobmanager.schedule import Dst
from jobmanager.schedule.dst import DEBIAN
from jobmanager.validation.texts import Located, calling_line, shown

P = ParamSpec("P")
R = TypeVar("R")


class Declaring:
    """The methods that declare jobs. Called while the application is imported; nothing connects."""

    _parts: Parts

    def job(self, job_id: str, **options: Unpack[JobOptions]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare the decorated function as a job and return the function unchanged.

        Give one of `cron="0 2 * * *"` (with `timezone="UTC"`, `dst=Dst()`), `every=30` (seconds, a timedelta or "30s"), `at=datetime`, or none for a job
        started by hand; the other options are the policies of Job. Repeating a declaration is safe; a different one
        raises DuplicateJobError, an invalid schedule CronError, what the backend or this machine cannot
        honour UnsupportedError, and isolation="process" without its extra MissingExtraError.
        """
        with Located("@jobs.job"):
            check_id(
                job_id
            )  # here as well: `@jobs.job` without an id would otherwise declare nothing, and say nothing

        def declare(function: Callable[P, R]) -> Callable[P, R]:
            self.add_job(job_id, function, **options)
            return function

        return declare

    def add_job(self, job_id: str, handler: HandlerTarget, **options: Unpack[JobOptions]) -> Job:
        """Declare a job for a function, a "package.module:function" imported at first use, or the key of a handler.

        Options and errors are those of `job`. Returns the declared Job. In a started manager the next `sync()` schedules it.
        """
        is_key = isinstance(handler, str) and ":" not in handler
        with Located(f"Job {shown(job_id)}"):
            job = make_job(job_id, str(handler) if is_key else job_id, options)
            self._parts.backend_class.check(job)
            check_machine(job)
            if not is_key:
                self._parts.registry.add_handler(job.handler, handler)
            self._parts.registry.add_job(job, declared_at=calling_line())
        return job

    def handler(
        self, key: str, *, creatable: bool = True, startable: bool = True
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the decorated function as a handler under a key, and as a job of that id without a schedule.

        Other jobs may name the key, with `creatable=False` only those that code declares. With `startable=False` there is no job of
        its own, and an operator's job may have the key as its id. Raises DuplicateJobError if another function has it, and
        ConfigurationError for what cannot be called.
        """

        def register(function: Callable[P, R]) -> Callable[P, R]:
            with Located(f"Handler {shown(key)}"):
                check_id(key)
                self._parts.registry.add_handler(key, function, creatable=creatable)
            if startable:
                self.add_job(key, key)
            return function

        return register

    def schedule_job(
        self,
        job_id: str,
        name: str,
        handler: HandlerTarget,
        interval: float | timedelta | str,
        **policies: Unpack[PolicyWords],
    ) -> Job:
        """Declare a job every `interval` seconds (or timedelta, or a text such as "5m"); a started manager schedules it at once.

        Policies and errors are those of `job`.
        """
        options: JobOptions = {"name": name, "every": interval}
        return self._schedule(job_id, handler, options, policies)

    def schedule_cron_job(
        self,
        job_id: str,
        name: str,
        handler: HandlerTarget,
        cron: str,
        *,
        timezone: str = "UTC",
        dst: Dst | str = DEBIAN,
        **policies: Unpack[PolicyWords],
    ) -> Job:
        """Declare a job by cron expression, read in `timezone`; a started manager schedules it at once.

        `dst` says what clock changes do to it. Policies and errors are those of `job`.
        """
        options: JobOptions = {"name": name, "cron": cron, "timezone": timezone, "dst": dst}
        return self._schedule(job_id, handler, options, policies)

    def _schedule(
        self, job_id: str, handler: HandlerTarget, options: JobOptions, policies: PolicyWords
    ) -> Job:
        options.update(policies)  # type: ignore[typeddict-item]  # every policy is an option
        job = self.add_job(job_id, handler, **options)
        if self._parts.started and not self._parts.settings.disabled:
            self._parts.assembly.sync()
        return job
