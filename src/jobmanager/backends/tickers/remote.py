"""The entries that an outside clock has planned for us, their names, and how one differs from what it should be."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from jobmanager.backends.timetable import ScheduledJob
from jobmanager.schedule import Cron
from jobmanager.schedule.wakeup import local_wakeup, wakeup, wakeup_of_all

LONGEST_KEY, LONGEST_PREFIX = 63, 38
PAUSED = "paused there"
ALL = "~all"  # no id of a job has that sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One entry of a clock: at the instants of `text` in `zone` it calls `target`. `remote_id` is the clock's own name for it."""

    key: str
    text: str
    zone: str
    target: str
    job_id: str | None = None
    remote_id: str = ""
    paused: bool = False
    next_due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of our entries: of one namespace and one environment, so that no other's are touched."""

    prefix: str

    @classmethod
    def of(cls, namespace: str, environment: str) -> Keys:
        """Return the names of this namespace and environment; where they would get too long, or leave open what is which, of their digest."""
        prefix = f"jm:{namespace}:{environment}:"
        if len(prefix) > LONGEST_PREFIX or not re.fullmatch(r"[a-z0-9._-]+", environment):
            prefix = f"jm:{_digest(prefix, 16)}:"
        return cls(prefix)

    @classmethod
    def of_project(cls) -> Keys:
        """Return the names where a project of the service has no entries but those of this application and environment."""
        return cls("jm-")

    def of_job(self, job_id: str) -> str:
        """Return the key of a job's entry."""
        key = self.prefix + job_id
        return key if len(key) <= LONGEST_KEY else f"{self.prefix}~{_digest(job_id, 24)}"

    @property
    def of_all(self) -> str:
        """The key of the entry that calls for all jobs."""
        return self.prefix + ALL

    def is_ours(self, key: str) -> bool:
        """Return whether the entry is one of these."""
        return key.startswith(self.prefix)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def wake_text(item: ScheduledJob, now: datetime, *, zones: bool) -> tuple[str, str]:
    """Return the five fields and the zone that wake for a job: in its own zone where the clock has zones and no change of time touches it."""
    schedule = item.schedule
    local = local_wakeup(schedule, now) if zones and isinstance(schedule, Cron) else None
    if local is not None and isinstance(schedule, Cron):
        return local, schedule.timezone
    return wakeup(schedule, now), "UTC"


def wake_text_of_all(items: Iterable[ScheduledJob], now: datetime) -> str:
    """Return five fields in UTC that wake for each of these jobs."""
    return wakeup_of_all((item.schedule for item in items), now)


def difference(wanted: Planned, found: Planned) -> str:
    """Return in a sentence how an entry differs from what it should be, '' if it does not. Paused by hand is none."""
    told = []
    if found.text != wanted.text:
        told.append(f"text is {found.text!r}, wanted {wanted.text!r}")
    if found.zone != wanted.zone:
        told.append(f"zone is {found.zone}, wanted {wanted.zone}")
    if found.target != wanted.target:
        told.append(f"calls {found.target}, wanted {wanted.target}")
    return "; ".join(told)
