"""All processes are down across some ticks (F4): each gets its row by its job's catch-up policy, and what runs again runs once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.conftest import Process, effects, until

from jobmanager import JobManager, Run

GRACE = 1.0
CATCHING_UP = """
def work(context):
    note(context.job.id, int(context.scheduled_for.timestamp()))

for policy in ("none", "latest", "all"):
    jobs.add_job(policy, work, every=1, catch_up=policy)
"""


@pytest.mark.parametrize("policy", ["none", "latest", "all"])
def test_ticks_of_a_downtime_are_missed_or_caught_up_and_none_is_without_a_row(
    store_url: str,
    start_process: Callable[..., Process],
    make_manager: Callable[..., JobManager],
    tmp_path: Path,
    policy: str,
) -> None:
    """Fails without the account: the ticks of the gap would have no row at all."""
    first = start_process(store_url, CATCHING_UP, grace_seconds=GRACE)
    until(lambda: {policy} <= {line[0] for line in effects(tmp_path)})
    first.close()
    killed = int(time.time()) + 1
    time.sleep(5 + GRACE)  # five ticks that nobody is there for
    down = range(killed, killed + 5)
    start_process(store_url, CATCHING_UP, grace_seconds=GRACE)
    ledger = make_manager(store_url)

    def rows() -> dict[int, Run]:
        runs = ledger.runs(policy, limit=500)
        return {int(run.scheduled_for.timestamp()): run for run in runs if run.scheduled_for}

    until(lambda: set(range(min(rows()), down[-1] + 1)) <= rows().keys())
    until(lambda: all(rows()[instant].status.closed for instant in down))
    found = {instant: run for instant, run in rows().items() if instant in down}
    missed = [run.reason for run in found.values() if str(run.status) == "missed"]
    ran = [run.trigger for run in found.values() if str(run.status) == "succeeded"]

    assert (set(missed), set(ran)) <= ({"downtime"}, {"catch_up"})
    # The newest may be on time still, or a newer one has run already; then it is not caught up.
    assert len(ran) in {"none": (0,), "latest": (0, 1), "all": (5,)}[policy]
    # Or a newer one was running when it was caught up.
    met = [run for run in found.values() if run.reason == "overlap"]
    assert len(met) <= (policy == "latest")
    assert len(missed) + len(ran) + len(met) == 5
    starts = Counter(tuple(line) for line in effects(tmp_path))
    assert max(starts.values()) == 1
