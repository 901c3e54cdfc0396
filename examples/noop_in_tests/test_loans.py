"""An application's own tests: a job is started by hand, runs here and now, and its record tells what it did.

    pytest examples/noop_in_tests

You will see the tests pass in no time: no scheduler, no thread, no database.
"""

from datetime import UTC, datetime

import pytest
from loans import jobs

from jobmanager.errors import PayloadError


def test_readers_of_old_loans_are_reminded() -> None:
    run = jobs.trigger_job("remind-readers", {"today": "2026-03-29"})

    assert run.status == "succeeded"
    assert run.output == {"reminded": ["Momo"]}


def test_payload_wins_over_the_configuration() -> None:
    run = jobs.trigger_job("remind-readers", {"today": "2026-03-29", "days": 7})

    assert run.output == {"reminded": ["Momo", "Dune"]}


def test_a_failure_is_recorded_and_harms_nobody() -> None:
    run = jobs.trigger_job("order-books", {"titles": ["Emma"] * 6})

    assert run.status == "failed"
    assert run.error is not None
    assert run.error.message == "120 is more than the 100 there are"


def test_wrong_arguments_are_refused_before_anything_runs() -> None:
    with pytest.raises(PayloadError, match="budget"):
        jobs.trigger_job("order-books", {"titles": ["Emma"], "budget": "plenty"})


def test_nobody_is_reminded_on_a_weekend_and_nine_means_nine_in_berlin() -> None:
    friday, tuesday = datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)

    planned = jobs.simulate(friday, tuesday)

    assert [f"{item.scheduled_for:%a %H:%M}" for item in planned] == [
        "Fri 08:00",
        "Mon 07:00",
    ]  # summer time came


def test_nothing_fires_by_itself() -> None:
    before = len(jobs.runs())

    with jobs:
        assert jobs.backend.name == "noop"

    assert len(jobs.runs()) == before
