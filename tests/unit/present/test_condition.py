"""The condition of a job in one word, the gravest first."""

from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.ledger.standing import Standing
from jobmanager.present.condition import condition_at_a_glance, streak_of
from jobmanager.run import RunStatus
from jobmanager.stores.values import DueInstant, JobStanding

NOW = datetime(2026, 11, 25, 13, tzinfo=UTC)


def instant(status: str, *, hours: int = 1, late: float = 0) -> DueInstant:
    due = NOW - timedelta(hours=hours)
    return DueInstant(f"r{hours}", due, RunStatus(status), None, 1, None, due + timedelta(seconds=late), NOW)


def standing(last: DueInstant | None = None, **fields: object) -> Standing:
    runs = JobStanding("job", last, fields.pop("by_hand", None), fields.pop("running", 0))  # type: ignore[arg-type]
    given = {"source": "code", "state": "active", "has_handler": True, **fields}
    return Standing(id="job", name="job", handler="job", state_at=None, next_due=None, runs=runs, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("job", "dead", "word"),
    [
        (standing(instant("failed"), state="disabled"), 1, "disabled"),
        (standing(instant("failed"), state="paused"), 1, "paused"),
        (standing(instant("failed"), has_handler=False), 1, "missing"),
        (standing(instant("failed"), running=1), 1, "failed"),
        (standing(instant("missed")), 0, "missed"),
        (standing(instant("succeeded", late=61)), 2, "recovered"),
        (standing(instant("succeeded", late=61)), 0, "late"),
        (standing(instant("succeeded", late=60), running=1), 0, "running"),
        (standing(instant("skipped")), 0, "succeeded"),
        (standing(by_hand=RunStatus.FAILED), 0, "failed"),
        (standing(by_hand=RunStatus.SUCCEEDED), 0, "succeeded"),
        (standing(), 0, "never"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_gravest_word_holds(job, dead, word):
    assert condition_at_a_glance(job, dead=dead).word == word


def test_a_streak_counts_the_settled_instants_that_ended_alike_and_begins_with_the_oldest_of_them():
    instants = [
        instant("pending", hours=1),
        *(instant("failed", hours=h) for h in (2, 3)),
        instant("succeeded", hours=4),
    ]
    found = streak_of(instants)

    assert found is not None
    assert (found.word, found.count, found.since) == ("failed", 2, NOW - timedelta(hours=3))
    assert streak_of([instant("running")]) is None
    whole = streak_of([instant("failed", hours=h) for h in (1, 2)])
    assert whole is not None
    assert (whole.word, whole.count) == ("failed", 2)
