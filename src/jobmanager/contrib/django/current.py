"""The manager of this process: made at first use, and made anew where a test changes the settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from django.utils.functional import LazyObject, empty

from jobmanager.clock import Clock
from jobmanager.contrib.django import configuration
from jobmanager.contrib.django.configuration import Configuration
from jobmanager.contrib.django.manager import DjangoJobs
from jobmanager.contrib.django.surroundings import Surroundings
from jobmanager.execution.around import Around
from jobmanager.settings import Settings

_lock = threading.RLock()
_manager: DjangoJobs | None = None


def configured() -> Configuration:
    """Read the configuration of the project; ConfigurationError if it cannot be used."""
    return configuration.read()


def made(settings: Settings | None = None, *, clock: Clock | None = None) -> DjangoJobs:
    """Make a manager of the project's configuration, or with these settings in place of its own."""
    read = configured()
    around: list[Around] = [Surroundings(time_zone=read.time_zone), *read.around]
    manager = DjangoJobs(settings or read.settings, clock=clock, around=around)
    alias = read.database
    if settings is None and alias is not None:
        manager.follow_database(alias)
    return manager


def current() -> DjangoJobs:
    """Return the manager of this process, made at first use; ConfigurationError if the settings cannot be used."""
    global _manager  # noqa: PLW0603 - one for a process
    with _lock:
        if _manager is None:
            _manager = made()
        return _manager


@contextmanager
def replaced_by(manager: DjangoJobs) -> Iterator[DjangoJobs]:
    """Have this manager, with all that was declared, be the one of this process inside the block, and stop it after."""
    before = current()
    manager.take_declarations(before)
    _put(manager)
    try:
        yield manager
    finally:
        _put(before)
        manager.stop(drain=0)


def renew() -> None:
    """Make the manager anew, with all that was declared, as the settings have changed; nothing before its first use."""
    if _manager is None:
        return
    before = _manager
    manager = made()
    manager.take_declarations(before)
    _put(manager)
    before.stop(drain=0)


def _put(manager: DjangoJobs) -> None:
    global _manager  # noqa: PLW0603 - as above
    with _lock:
        _manager = manager
        proxy._wrapped = empty  # noqa: SLF001 - of Django's LazyObject, whose subclass it is


class Proxy(LazyObject):
    """Stands for the manager of this process, whichever that is now."""

    def _setup(self) -> None:
        self._wrapped = current()

    def __enter__(self) -> Any:
        return current().__enter__()

    def __exit__(self, *raised: object) -> None:
        current().stop()

    def __repr__(self) -> str:
        return "<jobs of this Django project>"


proxy = Proxy()
jobs: DjangoJobs = cast("DjangoJobs", proxy)


def on_setting_changed(*, setting: str, **_: object) -> None:
    """Make the manager anew after `override_settings(JOBMANAGER=...)`, and at its end."""
    if setting in {"JOBMANAGER", "DATABASES"}:
        renew()
