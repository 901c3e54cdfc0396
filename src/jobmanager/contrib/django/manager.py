"""The manager of a Django project: starts that follow the transaction of the caller."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, overload

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections, transaction

from jobmanager.contrib.django.configuration import url_of
from jobmanager.errors import ConfigurationError
from jobmanager.manager.manager import JobManager
from jobmanager.run import Run
from jobmanager.validation.call_arguments import duration_of


class DjangoJobs(JobManager):
    """A JobManager whose record is kept beside the project's database, and whose starts may follow the caller's transaction."""

    _alias: str | None = None

    def follow_database(self, alias: str) -> None:
        """Keep the record beside this database of Django, as that is when the store is first used."""
        self._alias = alias
        self._parts.database_url_of = lambda: url_of(alias)

    def take_declarations(self, other: JobManager) -> None:
        """Declare here what was declared there."""
        mine, theirs = self.registry, other.registry
        mine.handlers |= {
            key: each for key, each in theirs.handlers.items() if key not in mine.handlers and not each.stored
        }
        for job_id, job in theirs.declared.items():
            mine.add_job(job, declared_at=theirs.declared_at.get(job_id))
        mine.seeds.update(theirs.seeds)

    @overload
    def trigger_job(
        self,
        job_id: str,
        payload: Mapping[str, Any] | None = None,
        *,
        on_commit: Literal[False] = False,
        atomic: Literal[False] = False,
        using: str | None = None,
        **options: Any,
    ) -> Run: ...

    @overload
    def trigger_job(
        self,
        job_id: str,
        payload: Mapping[str, Any] | None = None,
        *,
        on_commit: bool = False,
        atomic: bool = False,
        using: str | None = None,
        **options: Any,
    ) -> Run | str: ...

    def trigger_job(
        self,
        job_id: str,
        payload: Mapping[str, Any] | None = None,
        *,
        on_commit: bool = False,
        atomic: bool = False,
        using: str | None = None,
        **options: Any,
    ) -> Run | str:
        """Start a run by hand, as `JobManager.trigger_job`: at once, and also if the caller's transaction is rolled back.

        With `on_commit` it starts when the transaction commits, and not if it is rolled back; returned is the key of the run, by
        which `trigger_job(job_id, key=...)` finds it. With `atomic` the row is written through Django's connection, so that it exists
        if and only if the data does; returned is the run's id. That needs PostgreSQL and the record in the same database. `using` is
        the alias of the transaction, by default the one of the record, else `default`.
        """
        alias = using or self._alias or "default"
        if on_commit and atomic:
            raise ConfigurationError("trigger_job: on_commit and atomic exclude each other. Use one of them.")
        if atomic:
            return self._trigger_inside(alias, job_id, payload, **options)
        if not on_commit:
            return super().trigger_job(job_id, payload, **options)
        key = options.pop("key", None) or str(uuid.uuid4())
        start = super().trigger_job
        transaction.on_commit(lambda: start(job_id, payload, key=key, **options), using=alias, robust=True)
        return str(key)

    def _trigger_inside(
        self,
        alias: str,
        job_id: str,
        payload: Mapping[str, Any] | None,
        *,
        delay: timedelta | float | str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        key: str | None = None,
        scope: str | None = None,
        requested_by: str | None = None,
    ) -> str:
        """Write the row of the run through Django's connection, by the function that is installed for other languages."""
        connection = connections[alias]
        if connection.vendor != "postgresql" or alias != self._alias:
            raise ConfigurationError(
                f"trigger_job(atomic=True) needs PostgreSQL, and the record in the same database: the transaction is of "
                f"{alias!r} ({connection.vendor}), the record of {self._alias!r}. Use on_commit=True."
            )
        job = self._parts.job(job_id)
        self._parts.check_not_disabled(f"Job {job.id!r} is not started", job.id)
        self._check_payload(job, payload or {})
        self._parts.ready()
        given = {
            "job": job.id,
            "payload": None if payload is None else json.dumps(dict(payload), cls=DjangoJSONEncoder),
            "priority": priority,
            "delay": None if delay is None else duration_of("delay", delay),
            "max_attempts": max_attempts,
            "key": key,
            "scope": scope,
            "requested_by": requested_by,
        }
        words = {name: value for name, value in given.items() if value is not None}
        casts = {"payload": "::jsonb", "priority": "::int", "delay": "::interval", "max_attempts": "::int"}
        taken = ", ".join(f"{name} => %s{casts.get(name, '::text')}" for name in words)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT jobmanager.enqueue({taken})", list(words.values()))
            return str(cursor.fetchone()[0])
