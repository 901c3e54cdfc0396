"""`Cron`: an expression of our dialect, read in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobmanager.errors import CronError
from jobmanager.schedule import zones
from jobmanager.schedule.describe import describe_cron, describe_end
from jobmanager.schedule.dialect import day_rules, read
from jobmanager.schedule.dst import DEBIAN, Dst
from jobmanager.schedule.exclusion import Exclusion
from jobmanager.schedule.fields import Fields
from jobmanager.schedule.instants import EPOCH, SECOND, Instants, ending, whole_utc
from jobmanager.validation.texts import shown

MOST_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True, init=False)
class Cron(Instants):
    """The instants of a cron expression in a zone (an IANA name).

    5 fields (minute, hour, day of month, month, day of week) or 6 with the seconds first. When clocks change `dst` says what becomes of
    a job at a particular time; by default the rule of Debian's cron: it runs once, soon after the gap if its time was skipped. A job with
    `*` in the minute or hour follows the wall clock. After `until` (aware, or an ISO text) there is no instant. Instants of `exclude` (dates, cron
    lines, calendars, see `jobmanager.calendars`) are due and do not run. Raises CronError for what the dialect or the zone list does not know.
    Blanks around and between the fields make no difference: equal schedules compare equal.
    """

    expression: str
    timezone: str
    dst: Dst
    until: datetime | None
    exclude: Exclusion

    def __init__(
        self,
        expression: str,
        timezone: str = "UTC",
        *,
        dst: Dst | str = DEBIAN,
        until: datetime | str | None = None,
        exclude: Any = None,
    ) -> None:
        if not _is_bounded_text(expression):
            raise CronError(
                f"A cron expression is a text of at most 10,000 characters, not {shown(expression)}.",
                kind="bad_value",
                value=shown(expression),
            )
        if not _is_bounded_text(timezone):
            raise CronError(
                f"A time zone is given by its IANA name, not {shown(timezone)}.",
                kind="bad_timezone",
                field="timezone",
                value=shown(timezone),
                hint="For example timezone='Europe/Berlin'.",
            )
        read(expression)
        zones.check(timezone)
        object.__setattr__(self, "expression", " ".join(expression.split()))
        object.__setattr__(self, "timezone", timezone)
        object.__setattr__(self, "dst", Dst.read(dst))
        object.__setattr__(self, "until", ending(until))
        object.__setattr__(self, "exclude", Exclusion.read(exclude))

    @property
    def fields(self) -> Fields:
        """The canonical sets of the expression."""
        return read(self.expression)

    def next_after(self, moment: datetime) -> datetime | None:
        # Planned lazy arrow: croniter and dateutil are loaded when a cron schedule is first asked, not by `import jobmanager`.
        from jobmanager.schedule import calendar  # noqa: PLC0415

        since = (whole_utc(moment) - EPOCH) // SECOND
        instant = calendar.next_after(self.expression, self.timezone, since, self.dst.gap, self.dst.fold)
        return None if instant is None else self._unless_ended(EPOCH + timedelta(seconds=instant))

    @property
    def never_matches(self) -> bool:
        return not day_rules(self.expression)

    def describe(self) -> str:
        return (
            describe_cron(self.fields, self.timezone, self.dst)
            + self.exclude.describe()
            + describe_end(self.until)
        )

    @property
    def _zone(self) -> str:
        return self.timezone

    @property
    def text(self) -> str:
        policy = "" if self.dst == DEBIAN else f" dst {self.dst.text}"
        return f"cron {self.expression} in {self.timezone}{policy}{self._end_text()}"

    @property
    def resolution(self) -> timedelta:
        return timedelta(seconds=self.fields.smallest_gap())


def _is_bounded_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS
