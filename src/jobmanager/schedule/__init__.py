"""When a job is due: `Cron`, `Every` or `At`, values with the same methods."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from jobmanager.errors import CronError
from jobmanager.schedule.at import At
from jobmanager.schedule.cron import Cron
from jobmanager.schedule.dst import DEBIAN, Dst
from jobmanager.schedule.every import Every
from jobmanager.schedule.instants import EPOCH
from jobmanager.schedule.on import On

__all__ = ["EXCEPT", "UNTIL", "At", "Cron", "Dst", "Every", "On", "Schedule", "parse"]

Schedule = Cron | Every | At
EXCEPT = " except "
"""Before the exclusion in the text of a schedule."""
UNTIL = " until "
"""Before its end."""


def parse(text: str) -> Schedule:
    """Return the schedule whose `text` this is; CronError for an invalid text."""
    return _read(text)


@lru_cache(maxsize=8192)
def _read(text: str) -> Schedule:
    # Cached: the rows of many jobs share a few schedules, and schedules are values.
    timing, _, until = text.partition(UNTIL)
    timing, _, exclude = timing.partition(EXCEPT)
    kind, _, rest = timing.partition(" ")
    try:
        if kind == "cron":
            expression, _, place = rest.rpartition(" in ")
            timezone, _, policy = place.partition(" dst ")
            return Cron(expression, timezone, dst=policy or DEBIAN, until=until or None, exclude=exclude)
        if kind == "every":
            seconds, _, anchor = rest.partition(" from ")
            origin = datetime.fromisoformat(anchor) if anchor else EPOCH
            return Every(int(seconds.removesuffix("s")), origin, until=until or None, exclude=exclude)
        if kind == "at" and not until and not exclude:
            return At(datetime.fromisoformat(rest))
    except CronError:  # a ValueError too, but it says more
        raise
    except ValueError as error:
        raise _unreadable(text) from error
    raise _unreadable(text)


def _unreadable(text: str) -> CronError:
    return CronError(
        f"{text!r} is not the text of a schedule.",
        kind="bad_value",
        value=text,
        hint="It reads 'cron 0 2 * * * in UTC', 'every 30s' or 'at 2026-01-01T00:00:00Z'.",
    )
