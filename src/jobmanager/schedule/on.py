"""`On`: by an event instead of by time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class On:
    """Starts a job by each event of a name: `on=On("user/created")` of a job, for which `on="user/created"` is short."""

    event: str
