"""The changes of the clocks in the zone of a schedule, and what each does to it in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Literal

from jobmanager.clock import earlier
from jobmanager.schedule.cron import Cron
from jobmanager.schedule.dst import LARGEST_SHIFT
from jobmanager.schedule.instants import EPOCH, SECOND

MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChange:
    """One change of the clocks in the zone of a schedule, and what it does to the job.

    `wall_before` and `wall_after` are what the clock on the wall shows at that moment. `times` are the job's times of day, the first three, in
    the hour that is left out, or that comes twice; without one the change is not met.
    """

    at: datetime
    direction: Literal["forward", "back"]
    wall_before: datetime
    wall_after: datetime
    times: Sequence[str]
    note: str

    @property
    def length(self) -> timedelta:
        """The length by which the clocks are changed."""
        return abs(self.wall_after - self.wall_before)

    @property
    def begin(self) -> datetime:
        """The first moment that the change decides about: for times that are shown twice, the first pass."""
        return self.at if self.direction == "forward" else self.at - self.length

    @property
    def is_met(self) -> bool:
        """Whether the job has an instant in the hour that is left out or comes twice."""
        return bool(self.times)


def clock_changes(cron: Cron, start: datetime, length: timedelta) -> list[ClockChange]:
    """Return the changes of the clocks in the schedule's zone after `start`, within `length`, in order."""
    # Planned lazy arrow, as in cron.py.
    from jobmanager.schedule.calendar import offsets  # noqa: PLC0415

    since = (start - EPOCH) // SECOND
    kept = offsets(cron.timezone, since, since + length // SECOND)
    return [
        _change(cron, EPOCH + timedelta(seconds=at), timedelta(seconds=before), timedelta(seconds=after))
        for (_, before), (at, after) in pairwise(kept)
    ]


def _change(cron: Cron, at: datetime, before: timedelta, after: timedelta) -> ClockChange:
    length = abs(after - before)
    wall_before, wall_after = at + before, at + after
    met = _met(cron, min(wall_before, wall_after), length)
    times = [_time(moment) for moment in met]
    return ClockChange(
        at=at,
        direction="forward" if after > before else "back",
        wall_before=wall_before.replace(tzinfo=None),
        wall_after=wall_after.replace(tzinfo=None),
        times=times,
        note=_note(cron, after - before, wall_after, met),
    )


def _met(cron: Cron, wall: datetime, length: timedelta) -> list[datetime]:
    """Return the first times that the schedule has on the wall's clock in [wall, wall + length)."""
    on_the_wall = Cron(cron.expression, "UTC").between(wall - SECOND, wall + length - SECOND)
    return list(islice(on_the_wall, MOST_NAMED))


def _time(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}".removesuffix(":00")


def _note(cron: Cron, change: timedelta, wall_after: datetime, met: Sequence[datetime]) -> str:
    forward = change > timedelta(0)
    if not met:
        return f"No instant lies in the time that {'is left out' if forward else 'comes twice'}."
    named = _named([_time(moment) for moment in met])
    follows = cron.fields.wildcard or abs(change) > LARGEST_SHIFT * SECOND
    match cron.dst.gap if forward else cron.dst.fold:
        case _ if follows and forward:
            return f"{named} left out that day: the job follows the clock."
        case "end":
            return f"{_time(met[0])} is not on the clock that day: it runs at {_time(wall_after)}."
        case "shift":
            return f"{_time(met[0])} is not on the clock that day: it runs at {_time(met[0] + change)}."
        case "skip":
            return f"{named} not on the clock that day: the job leaves that out."
        case "first" | "second" as which if not follows:
            return f"{_time(met[0])} comes twice that day: it runs once, the {which} time."
        case _:
            return f"{named} there twice that day, and the job runs both times."


def _named(times: Sequence[str]) -> str:
    if len(times) == 1:
        return f"{times[0]} is"
    return f"{', '.join(times[:-1])} and {times[-1]} are"


def change_that_decides(cron: Cron, moment: datetime) -> ClockChange | None:
    """Return the change of the clocks that decides which times of a schedule at particular times this moment stands for, if one does."""
    longest = timedelta(seconds=LARGEST_SHIFT)
    found = clock_changes(cron, earlier(moment, longest), 2 * longest)
    near = (
        change for change in found if change.is_met and change.begin <= moment < change.at + change.length
    )
    return None if cron.fields.wildcard else next(near, None)
