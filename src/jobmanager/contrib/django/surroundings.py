"""Django's care for a request, given to each attempt: connections, language and zone, in the handler's own thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections, reset_queries
from django.utils import timezone, translation

from jobmanager.context import RunContext
from jobmanager.execution.attempt import Attempt


class Surroundings:
    """Surrounds attempts: one of `JobManager(around=...)`. A child process that reads it is set up for Django by that."""

    def __init__(self, *, time_zone: str | None = None) -> None:
        self._time_zone = time_zone

    def __call__(self, context: RunContext) -> Surrounding:
        return Surrounding(context, self._time_zone)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _in_child, (self._time_zone,)


def _in_child(time_zone: str | None) -> Surroundings:
    django.setup()
    return Surroundings(time_zone=time_zone)


class Surrounding:
    """One attempt of a handler, plain or coroutine. Nothing is closed under a transaction of the caller, in whose thread it may run."""

    def __init__(self, context: RunContext, time_zone: str | None) -> None:
        self._context, self._time_zone = context, time_zone
        self._overrides = ExitStack()

    def __enter__(self) -> None:
        self._override()
        _begin_with_connections()

    def __exit__(self, *_: object) -> None:
        self._overrides.close()
        _end_with_connections(self._context)

    async def __aenter__(self) -> None:
        self._override()
        await sync_to_async(_begin_with_connections, thread_sensitive=True)()

    async def __aexit__(self, *_: object) -> None:
        self._overrides.close()
        await sync_to_async(_end_with_connections, thread_sensitive=True)(self._context)

    def _override(self) -> None:
        asked = self._context.payload.get("locale")
        locale = asked if isinstance(asked, str) else self._context.job.locale
        self._overrides.enter_context(translation.override(locale or settings.LANGUAGE_CODE))
        if self._time_zone is not None:
            self._overrides.enter_context(timezone.override(self._time_zone))


def _begin_with_connections() -> None:
    reset_queries()
    _close_old_connections()


def _end_with_connections(context: RunContext) -> None:
    state = context._state  # noqa: SLF001 - whether the run has ended without its handler
    if isinstance(state, Attempt) and state.completed:
        _close(every=True)  # its thread ends, and would take an open connection with it
    else:
        _close_old_connections()


def _close_old_connections() -> None:
    _close(every=False)


def _close(*, every: bool) -> None:
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            continue
        if every:
            connection.close()
        else:
            connection.close_if_unusable_or_obsolete()
