"""`Every`: a fixed interval, counted from an anchor so that all processes agree on the instants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobmanager.errors import CronError
from jobmanager.schedule.describe import describe_end, describe_every
from jobmanager.schedule.exclusion import Exclusion
from jobmanager.schedule.instants import EPOCH, SECOND, Instants, ending, given_utc, iso, whole_utc
from jobmanager.validation.texts import shown


@dataclass(frozen=True, slots=True, init=False)
class Every(Instants):
    """The instants anchor + k · interval, for every whole k, before the anchor too.

    `interval` is whole seconds (int, float) or a timedelta of whole seconds, at least 1 s; raises
    CronError(kind="bad_interval") otherwise. `anchor` is an aware datetime (kind="bad_moment" if naive);
    its microseconds are dropped. After `until` (aware, or an ISO text) there is no instant; those of
    `exclude`, read in UTC, are due and do not run.
    """

    interval: timedelta
    anchor: datetime
    until: datetime | None
    exclude: Exclusion

    def __init__(
        self,
        interval: float | timedelta,
        anchor: datetime = EPOCH,
        *,
        until: datetime | str | None = None,
        exclude: Any = None,
    ) -> None:
        object.__setattr__(self, "interval", _whole_interval(interval))
        object.__setattr__(self, "anchor", given_utc(anchor))
        object.__setattr__(self, "until", ending(until))
        object.__setattr__(self, "exclude", Exclusion.read(exclude))

    def next_after(self, moment: datetime) -> datetime | None:
        steps = (whole_utc(moment) - self.anchor) // self.interval + 1
        try:
            return self._unless_ended(self.anchor + steps * self.interval)
        except OverflowError:  # past the year 9999
            return None

    def describe(self) -> str:
        every = describe_every(self.interval, None if self.anchor == EPOCH else self.anchor)
        return every + self.exclude.describe() + describe_end(self.until)

    @property
    def text(self) -> str:
        origin = "" if self.anchor == EPOCH else f" from {iso(self.anchor)}"
        return f"every {self.interval // SECOND}s{origin}{self._end_text()}"

    @property
    def resolution(self) -> timedelta:
        return self.interval


def _whole_interval(interval: Any) -> timedelta:
    try:
        length = interval if isinstance(interval, timedelta) else timedelta(seconds=interval)
    except (TypeError, ValueError, OverflowError):
        length = timedelta(0)
    if isinstance(interval, bool) or length < SECOND or length % SECOND:
        raise CronError(
            f"An interval is at least 1 s and whole seconds, not {shown(interval)}.",
            kind="bad_interval",
            field="interval",
            value=shown(interval),
            hint="Use a number of seconds or a timedelta, for example 30 or timedelta(minutes=5).",
        )
    return length
