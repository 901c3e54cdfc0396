"""Connections to PostgreSQL that never wait longer than a deadline of this process's own clock.

The server's time limits say nothing while the connection to it is silent: open, acknowledging, and answering nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from jobmanager.clock import SystemClock

if TYPE_CHECKING:
    from psycopg.abc import PQGen

STATEMENT_DEADLINE = 8.0
"""Seconds for one statement: more than the server's own limits, so that a server that lives speaks first."""

PROBE_DEADLINE = 2.0
"""Seconds for each statement that only asks whether a connection is good: at its beginning, and after an idle time."""

LONGEST_CHANGE = 3600.0
"""Seconds for one statement that changes tables, and for the commit of it."""

Result = TypeVar("Result")
_monotonic = (
    SystemClock().monotonic
)  # a silence is measured in real time, also where a test moves the store's clock


class SilentConnectionError(psycopg.OperationalError):
    """The connection was open, and nothing came back within the deadline; it is closed now."""


class _DeadlinePassedError(Exception):
    pass


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose every statement, COMMIT and ROLLBACK included, ends within `deadline` seconds.

    After a silence it is closed, `on_silence` is called, and the statement fails with SilentConnectionError: what became of it
    on the server is unknown.
    """

    deadline: float = STATEMENT_DEADLINE
    on_silence: Callable[[], None] | None = None

    def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        """Consume the generator of one operation, as the driver does, until the deadline."""
        try:
            return super().wait(_until(gen, self.deadline), *args, **options)
        except _DeadlinePassedError:
            self.close()
            if self.on_silence is not None:
                self.on_silence()
            raise SilentConnectionError(
                f"no answer within {self.deadline:g} s; the connection is given up"
            ) from None


def _until(gen: PQGen[Result], seconds: float) -> Generator[Any, Any, Result]:
    """Pass on what the driver waits for; it comes back ten times a second even if nothing is ready."""
    end = _monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if _monotonic() >= end:
                raise _DeadlinePassedError
            wanted = gen.send(ready)
    except StopIteration as finished:
        result: Result = finished.value
        return result
