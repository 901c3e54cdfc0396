"""The dashboard of one manager: the manager, and how its pages look."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, cast

from starlette.requests import Request

from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import StoreError
from jobmanager.manager.manager import JobManager
from jobmanager.web.cached import Cached
from jobmanager.web.limit import Limit, Limits

if TYPE_CHECKING:
    from jobmanager.web.sessions import Sessions


class Streams:
    """How many streams of events are open. Belongs to one event loop."""

    def __init__(self) -> None:
        self.total = 0


@dataclass(frozen=True, kw_only=True)
class Site:
    """The facts that every page and route of one dashboard shares."""

    jobs: JobManager
    title: str
    zone: tzinfo
    read_only: bool = False
    login_url: str | None = None
    sign_in: Sessions | None = None
    clock: Clock = field(default_factory=SystemClock)
    cached: Cached = field(default_factory=lambda: Cached(SystemClock()))
    streams: Streams = field(default_factory=Streams)
    starts: Limit = field(default_factory=lambda: starts_of(Limits(), SystemClock()))

    def now(self) -> datetime:
        """Return the time of the store, by which runs are due; that of this machine while the store cannot be asked."""
        try:
            return self.jobs.store.now()
        except StoreError:
            return self.clock.now()


def starts_of(limits: Limits, clock: Clock) -> Limit:
    """Return the limit of starts by hand."""
    return Limit(limits.starts_per_minute / 60, max(1, int(limits.starts_per_minute)), clock.monotonic)


def site_of(request: Request) -> Site:
    """Return the dashboard that a request came to."""
    return cast("Site", request.app.state.site)
