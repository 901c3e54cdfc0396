"""The rate of starts by hand: a button that is held down, or a script that went wrong, fills no queue."""

from __future__ import annotations

from math import ceil

from starlette.requests import Request

from jobmanager.access.acting import current
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import site_of


def take_start(request: Request) -> None:
    """Count a start by hand of the principal; ProblemError (429), with `Retry-After`, if it has none left for now.

    Counted in this process, before the start is tried.
    """
    waits = site_of(request).starts.take(current().name or "")
    if waits:
        raise ProblemError(
            Problem(
                status=429,
                kind="too-many-starts",
                title="Too many starts by hand",
                detail="Each principal may start a few runs a minute by hand.",
                hint="Wait as long as Retry-After says. `Limits(starts_per_minute=...)` of the dashboard allows more.",
                headers={"retry-after": str(ceil(waits))},
            )
        )
