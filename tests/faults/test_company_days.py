"""Twenty days of the reference application on each backend: the same instants, the same outcomes, the same mails."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from sqlalchemy import select
from tests.company_days import Company, Days, company, days_on, differences

from examples.saas import data, jobs  # isort: skip - found by the module above

__all__ = ["company"]

DAYS = 20


def table_of(days: Mapping[str, Days]) -> str:
    """A line per job: what became of its instants on each backend."""
    lines = ["", f"{'':40}" + "".join(f"{name:28}" for name in days)]
    for job_id in sorted(jobs.defaults()):
        cells = (
            ", ".join(f"{count} {status}" for status, count in sorted(found.table.get(job_id, {}).items()))
            for found in days.values()
        )
        lines.append(f"{job_id:40}" + "".join(f"{cell or '-':28}" for cell in cells))
    mails = (f"{len(found.mails)} mails" for found in days.values())
    return "\n".join([*lines, f"{'':40}" + "".join(f"{cell:28}" for cell in mails)])


@pytest.mark.faults
@pytest.mark.servers
@pytest.mark.timeout(1_800)
def test_twenty_days_are_the_same_on_each_backend(company: Company, request: pytest.FixtureRequest) -> None:
    days = {name: days_on(name, company, request, DAYS) for name in ("noop", "celery", "pg_cron", "local")}
    local = days["local"]
    with data.transaction() as db:
        warned = db.scalars(
            select(data.pending_emails.c.subject).where(data.pending_emails.c.key.like("licence-%"))
        ).all()
        keys = db.scalars(select(data.pending_emails.c.key)).all()
    print(table_of(days))
    for name, found in days.items():
        print(f"{name}: {len(found.rows)} instants, {len(found.mails)} mails")
        assert differences(local, found) == []
        assert found.table == local.table
        assert found.letters == local.letters
        sent = [message_id for message_id, _, _ in found.mails]
        assert len(set(sent)) == len(sent) > 100

    assert len(local.rows) > 400
    assert len(set(keys)) == len(keys)
    told = dict(local.table)
    assert told.pop("sync-stripe") == {"succeeded": 6 * DAYS - 6, "failed": 6}
    assert {status for counts in told.values() for status in counts} == {"succeeded"}
    assert told.keys() == jobs.defaults().keys() - {"sync-stripe", "revenuecat_sync"}
    assert {"Your licence has ended", "Ihre Lizenz ist abgelaufen"} < set(warned)
    assert {f"Your licence ends in {days} day(s)" for days in (7, 3, 1)} < set(warned)
