"""The golden cases of the cron daemon at the clocks of others: woken at each instant and at no other (exact), at more (gated), or refused.

What a clock makes of a wake-up text is read here by cronsim, in the zone of the entry. A gated case loses nothing: what is woken for
beside the instants opens no run, as the external backend's own tests hold.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from jobmanager import Cron, CronError
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.inngest import InngestBackend
from jobmanager.backends.tickers.qstash import QStashBackend
from jobmanager.backends.tickers.trigger_dev import TriggerDevBackend
from jobmanager.backends.tickers.vercel import VercelBackend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.errors import UnsupportedError
from jobmanager.job import Job
from jobmanager.schedule.wakeup import HOLDS_FOR
from jobmanager.testing import FakeClock

GOLDEN = json.loads((Path(__file__).parent.parent / "unit" / "schedule" / "golden.json").read_text())["cases"]
CLOCKS = [QStashBackend, TriggerDevBackend, VercelBackend, InngestBackend]
TOGETHER = {"exact": 91, "gated": 61, "refused": 3, "invalid": 19}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def kept(clock: type[TickerBackend], case: dict[str, Any]) -> str:
    """Return how the clock keeps a case; AssertionError if it does not wake at one of the instants."""
    try:
        schedule = Cron(case["expr"], timezone=case["tz"])
        job = Job(id="golden", name="golden", handler="golden", schedule=schedule)
    except CronError:
        assert not isinstance(case["expect"], list)
        return "invalid"
    try:
        clock.check(job)
    except UnsupportedError:
        return "refused"
    start = moment(case["start"])
    backend = (
        clock(api=None, clock=FakeClock(start))
        if clock is not InngestBackend
        else clock(clock=FakeClock(start))
    )
    [entry] = backend.wanted([ScheduledJob(job, 1, schedule.next_after(start))]) or [None]
    reached = [at for at in map(moment, case["expect"]) if at < start + timedelta(days=HOLDS_FOR - 1)]
    if entry is None or not reached:
        return "gated"
    woken = set()
    for local in CronSim(entry.text, start.astimezone(ZoneInfo(entry.zone))):
        at = local.astimezone(UTC)
        if at > reached[-1]:
            break
        woken.add(at)
    assert set(reached) <= woken, (
        f"{entry.text} in {entry.zone} does not wake at {sorted(set(reached) - woken)[:3]}"
    )
    return "exact" if woken == set(reached) else "gated"


@pytest.mark.parametrize("clock", CLOCKS, ids=lambda clock: clock.name)
def test_every_golden_instant_is_woken_for_or_refused(clock: type[TickerBackend]) -> None:
    """Fails if a text does not wake at an instant, or wakes more often than it did."""
    found = Counter(kept(clock, case) for case in GOLDEN)
    assert sum(found.values()) == len(GOLDEN) == 174
    assert found == TOGETHER
