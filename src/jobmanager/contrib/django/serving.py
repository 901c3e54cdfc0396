"""Starting where requests are served, and nowhere else: no command, no shell, no test and no watching parent starts a job."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.signals import request_started

from jobmanager.contrib.django.current import current
from jobmanager.contrib.starting import StartsOnceAProcess

starting = StartsOnceAProcess(current)


def is_serving() -> bool:
    """Return whether this process is one that serves requests: asked while Django is being set up.

    That is the child of `runserver`, or the only process of `runserver --noreload`, and what calls get_wsgi_application() or
    get_asgi_application(). A master of gunicorn that loads the application for its workers is none.
    """
    if len(sys.argv) > 1 and sys.argv[1] in {"runserver", "runserver_plus"}:
        return os.environ.get("RUN_MAIN") == "true" or "--noreload" in sys.argv
    callers = list(_callers())
    serves = ("django.core.wsgi", "get_wsgi_application"), ("django.core.asgi", "get_asgi_application")
    return any(caller in serves for caller in callers)


def is_preloading() -> bool:
    """Return whether the master of gunicorn loads the application for workers that it has yet to fork."""
    return ("gunicorn.arbiter", "setup") in _callers()


def start_when_ready() -> None:
    """Start once all applications are there, on a thread; in a process that was forked since, with its first request."""
    request_started.connect(_on_request, dispatch_uid="jobmanager")
    if not is_preloading():
        threading.Thread(target=_wait_and_start, name="jobmanager-ready", daemon=True).start()


def _wait_and_start() -> None:
    apps.ready_event.wait()
    starting.begin()


def _on_request(**_: object) -> None:
    starting.begin()


def _callers() -> Iterator[tuple[str, str]]:
    frame: Any = sys._getframe(1)  # noqa: SLF001 - by whom Django is set up
    while frame is not None:
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_name
        frame = frame.f_back


def asgi_application() -> Any:
    """Return the ASGI application of the project with the endpoint before it; it starts and stops with the server's lifespan."""
    from django.core.asgi import get_asgi_application

    from jobmanager.web import asgi

    inner = asgi(current(), otherwise=get_asgi_application())

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await inner(scope, receive, send)

    return application


async def _live(receive: Any, send: Any) -> None:
    await receive()
    async with current().lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def wsgi_application() -> Any:
    """Return the WSGI application of the project with the endpoint before it; each process that serves it starts, as with AUTOSTART."""
    from django.core.wsgi import get_wsgi_application

    from jobmanager.web import wsgi

    django = get_wsgi_application()
    start_when_ready()
    return wsgi(current(), otherwise=django)
