"""Whether this process has the threads and sockets of the operating system: the heartbeat cannot do without.

gevent and eventlet put others in their place, which take turns: while a handler computes none else has one, the heartbeat
stops, and another process takes the runs over that are still at work here.
"""

from __future__ import annotations

import _thread
import socket

from jobmanager.errors import ConfigurationError

COOPERATIVE = ("gevent", "eventlet")


def patched_by() -> str | None:
    """Return the name of the library that replaced threads or sockets in this process; None if none did."""
    homes = {
        str(getattr(thing, "__module__", "")).partition(".")[0]
        for thing in (_thread.start_new_thread, socket.socket)
    }
    return next((name for name in COOPERATIVE if name in homes), None)


def check_real_threads() -> None:
    """Raise ConfigurationError, with what to do, where threads or sockets were replaced."""
    name = patched_by()
    if name is not None:
        raise ConfigurationError(
            f"jobmanager does not run where {name} has replaced threads or sockets: its heartbeat needs real threads. "
            "With gunicorn use the worker class gthread, sync or uvicorn_worker.UvicornWorker; with Celery --pool prefork, "
            "threads or solo."
        )
