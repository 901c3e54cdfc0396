"""The golden cases of the cron daemon, brought by the local backend as ticks: the same instants, no more and no less."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import Cron, CronError
from jobmanager.backends.local import LocalBackend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.job import Job
from jobmanager.run import Tick
from jobmanager.testing import FakeClock

GOLDEN = json.loads((Path(__file__).parent.parent / "unit" / "schedule" / "golden.json").read_text())["cases"]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_all_golden_cases_are_here() -> None:
    assert len(GOLDEN) == 174


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"])
def test_the_local_backend_brings_the_golden_instants(case: dict[str, Any]) -> None:
    if not isinstance(case["expect"], list):
        with pytest.raises(CronError):
            Job(
                id="golden", name="golden", handler="golden", schedule=Cron(case["expr"], timezone=case["tz"])
            )
        return
    start, expected = moment(case["start"]), [moment(text) for text in case["expect"]]
    clock = FakeClock(start)
    backend = LocalBackend(clock=clock)
    job = Job(id="golden", name="golden", handler="golden", schedule=Cron(case["expr"], timezone=case["tz"]))
    assert job.schedule is not None
    delivered: list[Tick] = []
    backend.sync([ScheduledJob(job, 1, job.schedule.next_after(start))])
    backend.start(delivered.extend)
    clock.advance_to(expected[-1] + timedelta(microseconds=1))
    backend.stop(timedelta(seconds=1))

    assert [tick.scheduled_for for tick in delivered] == expected
