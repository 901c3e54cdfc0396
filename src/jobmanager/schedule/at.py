"""`At`: one instant, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from jobmanager.schedule.describe import describe_at
from jobmanager.schedule.exclusion import NOTHING, Exclusion
from jobmanager.schedule.instants import Instants, given_utc, iso, whole_utc


@dataclass(frozen=True, slots=True, init=False)
class At(Instants):
    """One instant: an aware datetime, kept in UTC without its microseconds; CronError(kind="bad_moment") if naive."""

    moment: datetime

    @property
    def exclude(self) -> Exclusion:  # type: ignore[override]  # it excludes nothing
        """Nothing."""
        return NOTHING

    @property
    def until(self) -> datetime:  # type: ignore[override]  # its instant is its end
        """The instant itself."""
        return self.moment

    def __init__(self, moment: datetime) -> None:
        object.__setattr__(self, "moment", given_utc(moment))

    def next_after(self, moment: datetime) -> datetime | None:
        return self.moment if self.moment > whole_utc(moment) else None

    def describe(self) -> str:
        return describe_at(self.moment)

    @property
    def text(self) -> str:
        return f"at {iso(self.moment)}"

    @property
    def resolution(self) -> timedelta:
        return timedelta(minutes=1)
