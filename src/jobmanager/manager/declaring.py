"""Declaring jobs: the decorator and its imperative twins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar, Unpack

from jobmanager.execution.child_process import check_machine
from jobmanager.job import Job, JobOptions, PolicyWords, check_id, make_job
from jobmanager.manager.parts import Parts
from jobmanager.registry import HandlerTarget

P = ParamSpec("P")
R = TypeVar("R")


class Declaring(Parts):
    """The words that declare jobs. Used while the application is imported; nothing connects."""

    def job(self, job_id: str, **options: Unpack[JobOptions]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare the decorated function as a job; the function itself stays as it is.

        One of `cron="0 2 * * *"` (with `timezone="UTC"`), `every=30` (seconds or timedelta), `at=datetime`, or none for a job
        started by hand; the other options are the policies of Job. The same declaration twice is once; a different one
        raises DuplicateJobError, a schedule that cannot be read CronError, what the backend or this machine cannot
        honour UnsupportedError, and isolation="process" without its extra MissingExtraError.
        """
        check_id(
            job_id
        )  # here as well: `@jobs.job` without an id would otherwise declare nothing, and say nothing

        def declare(function: Callable[P, R]) -> Callable[P, R]:
            self.add_job(job_id, function, **options)
            return function

        return declare

    def add_job(self, job_id: str, handler: HandlerTarget, **options: Unpack[JobOptions]) -> Job:
        """Declare a job for a function, a "package.module:function" imported on first use, or the key of a handler.

        As the decorator otherwise. A job added to a started manager is planned by the next `sync()`.
        """
        is_key = isinstance(handler, str) and ":" not in handler
        job = make_job(job_id, str(handler) if is_key else job_id, options)
        self._backend_class.check(job)
        check_machine(job)
        if not is_key:
            self.registry.add_handler(job.handler, handler)
        self.registry.add_job(job)
        return job

    def handler(self, key: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register a handler under a key. It can be started by hand under that id, and other jobs may name the key."""

        def register(function: Callable[P, R]) -> Callable[P, R]:
            self.add_job(key, function)
            return function

        return register

    def schedule_job(
        self,
        job_id: str,
        name: str,
        handler: HandlerTarget,
        interval: float | timedelta,
        **policies: Unpack[PolicyWords],
    ) -> Job:
        """Declare a job every `interval` seconds; in a started manager it is planned at once."""
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
        **policies: Unpack[PolicyWords],
    ) -> Job:
        """Declare a job by cron expression; in a started manager it is planned at once."""
        options: JobOptions = {"name": name, "cron": cron, "timezone": timezone}
        return self._schedule(job_id, handler, options, policies)

    def _schedule(
        self, job_id: str, handler: HandlerTarget, options: JobOptions, policies: PolicyWords
    ) -> Job:
        options.update(policies)  # type: ignore[typeddict-item]  # every policy is an option
        job = self.add_job(job_id, handler, **options)
        if self._started:
            self._assembly.sync()
        return job
