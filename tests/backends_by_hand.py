"""Backends whose outside a test plays: a broker that is a list, and a database that is listened to when the test says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobmanager.backends.base import Deliver
from jobmanager.backends.celery import CeleryBackend
from jobmanager.backends.celery.application import make_app
from jobmanager.clock import Clock
from jobmanager.job import Job
from jobmanager.run import Run


class Sent(CeleryBackend):
    """A beat or a worker whose messages arrive without a broker."""

    def __init__(self, clock: Clock, messages: list[str]) -> None:
        super().__init__(make_app("memory://"), clock=clock)
        self.messages = messages

    def dispatch(self, job: Job, run: Run) -> None:
        self.messages.append(run.id)


def announced(url: str, clock: Clock) -> Any:
    """Return a backend that brings what its database announced whenever the test calls `bring(connection)`."""
    from jobmanager.backends.pg_cron import PgCronBackend
    from jobmanager.backends.pg_cron.listener import Listener

    class Announced(PgCronBackend):
        def _listen(self, deliver: Deliver) -> None:
            self.listener = Listener(self.database, self.namespace, deliver)

        def bring(self, connection: Any) -> None:
            self.listener._bring(connection)

        def stop(self, timeout: timedelta) -> None:
            self._deliver = None

    return Announced(url, transport="notify", clock=clock)
