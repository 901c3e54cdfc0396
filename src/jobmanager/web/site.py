"""The dashboard of one manager: the manager, and how its pages look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import cast

from starlette.requests import Request

from jobmanager.manager.manager import JobManager


@dataclass(frozen=True, kw_only=True)
class Site:
    """The facts that every page and route of one dashboard shares."""

    jobs: JobManager
    title: str
    zone: tzinfo
    read_only: bool = False
    login_url: str | None = None

    def now(self) -> datetime:
        """Return the time of the store, by which runs are due."""
        return self.jobs.store.now()


def site_of(request: Request) -> Site:
    """Return the dashboard that a request came to."""
    return cast("Site", request.app.state.site)
