"""Jobs in a Django project: add `jobmanager.contrib.django` to INSTALLED_APPS, and declare jobs in the `jobs.py` of your applications.

    from jobmanager.contrib.django import jobs

    @jobs.job("clear-sessions", cron="0 2 * * *")
    def clear_sessions() -> None: ...

`jobs` is the manager of this process, made at first use from `settings.JOBMANAGER` and the `JOBMANAGER_` variables. Importing starts nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobmanager.contrib.django.current import jobs

if TYPE_CHECKING:
    from jobmanager.contrib.django.serving import asgi_application, wsgi_application
    from jobmanager.contrib.django.tasks import TaskBackend

__all__ = ["TaskBackend", "asgi_application", "jobs", "wsgi_application"]

_PLACES = {"TaskBackend": "tasks", "asgi_application": "serving", "wsgi_application": "serving"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
