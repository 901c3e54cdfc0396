"""The preview of an edit: the schedule that a job would have, and what its account lacks up to now by the present one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from pydantic import Field

from jobmanager.job import OF_CRON, OF_REPEATED
from jobmanager.ledger.job_view import JobView
from jobmanager.present.phrases import count, iso
from jobmanager.present.preview import schedule_of
from jobmanager.schedule import Cron, Schedule
from jobmanager.web.api.models import Instant, Shown
from jobmanager.web.site import Site

MOST = 10_000


class WouldBeSettled(Shown):
    """The instants up to now without a row, which an edit of the schedule settles first, by the present one and `catch_up`."""

    instants: int = Field(description="At most 10,000 are counted; 10,001 says that there are more.")
    first: Instant | None
    last: Instant | None
    note: str


def previewed(view: JobView, words: Mapping[str, Any]) -> Schedule | None:
    """Return the schedule that these words would give the job; its own without any. Words of a cron line keep the others of the present one."""
    if not words:
        return view.schedule
    present = view.schedule
    if isinstance(present, Cron) and words.keys() <= {"cron", *OF_CRON, *OF_REPEATED}:
        kept = {
            "cron": present.expression,
            "timezone": present.timezone,
            "dst": present.dst,
            "until": present.until,
            "exclude": present.exclude.text,
        }
        return schedule_of(view.id, **{**kept, **words})
    return schedule_of(view.id, **words)


def settled(site: Site, view: JobView) -> dict[str, Any]:
    """Return what an edit of the job would settle now; nothing is written."""
    now = site.now()
    found = _unaccounted(site, view, now)
    told = (
        "Nothing is left to settle."
        if not found
        else f"{count(min(len(found), MOST), 'instant')}{'+' if len(found) > MOST else ''} up to now, by the present schedule and "
        "its catch_up; the new schedule holds from now on."
    )
    return {
        "instants": len(found),
        "first": iso(found[0]) if found else None,
        "last": iso(found[-1]) if found else None,
        "note": told,
    }


def _unaccounted(site: Site, view: JobView, now: datetime) -> list[datetime]:
    row = view.row
    if row is None or view.schedule is None or not row.open or row.accounted_until >= now:
        return []
    expected = list(islice(view.schedule.between(row.accounted_until, now), MOST + 1))
    if not expected:
        return []
    rows = site.jobs.due_instants([view.id], limit=MOST + 1, since=expected[0]).get(view.id, ())
    known = {each.scheduled_for for each in rows}
    return [instant for instant in expected if instant not in known]
