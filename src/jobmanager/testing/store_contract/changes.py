"""Promises about changes: the states that tell of them, and signals that come when another connection has written."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from jobmanager.run import PENDING, RUNNING, SUCCEEDED, Run, new_id
from jobmanager.stores.changes import NoSignals
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class ChangePromises(StoreGround):
    """`store.changes`."""

    def old(self, **fields: Any) -> Run:
        """Return a run that was opened two hours ago."""
        moment = self.now - 2 * HOUR
        return self.run_of(id=new_id(moment), opened_at=moment, **fields)

    def test_states_are_those_of_new_runs_and_of_open_ones_of_any_age(self) -> None:
        self.job()
        self.job("theirs", namespace="other")
        owner = self.process()
        pending, running = self.opened(self.old()), self.opened(self.old(owner=owner))
        ended, new = self.opened(self.old(owner=owner)), self.opened(self.run_of(owner=owner))
        self.ended(ended)
        self.ended(new)
        self.opened(self.run_of("theirs"))

        found = self.store.changes.states("default", self.now - HOUR, most=100)

        states = {state.id: (state.job_id, state.status, state.starts) for state in found}
        assert states == {
            pending.id: ("job", PENDING, 0),
            running.id: ("job", RUNNING, 1),
            new.id: ("job", SUCCEEDED, 1),
        }
        assert [state.id for state in found] == sorted(states)

    def test_no_more_states_are_read_than_asked_for_the_newest_first(self) -> None:
        self.job()
        runs = [self.opened(self.run_of()) for _ in range(5)]

        found = self.store.changes.states("default", self.now - HOUR, most=2)

        assert [state.id for state in found] == [run.id for run in runs[-2:]]

    def test_the_states_of_runs_are_found_by_their_ids(self) -> None:
        self.job()
        run, other = self.opened(self.run_of()), self.opened(self.run_of())
        unknown = self.run_of()

        assert [state.id for state in self.store.changes.states_of([run.id, unknown.id])] == [run.id]
        assert self.store.changes.states_of(["no id"]) == self.store.changes.states_of([]) == []
        assert len(self.store.changes.states_of([run.id, other.id])) == 2

    def test_what_moved_since_a_moment_was_opened_started_or_ended_after_it(self) -> None:
        self.job()
        owner = self.process()
        still, begun, ended = (self.opened(self.old()) for _ in range(3))
        before = [
            self.opened(self.old(owner=owner, started_at=self.now - HOUR)),
            self.opened(self.old(owner=owner, started_at=self.now - HOUR)),
        ]
        self.claim(owner, run_ids=[begun.id])
        [claimed] = self.claim(owner, run_ids=[ended.id])
        self.ended(claimed)
        self.ended(before[0])
        new = self.opened(self.run_of())

        found = {
            state.id
            for state in self.store.changes.moved_since("default", self.now - seconds(60), newest=100)
        }

        assert found == {begun.id, ended.id, before[0].id, new.id}
        assert still.id not in found

    def test_a_signal_comes_after_another_connection_wrote_or_announced(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process()))
        with closing(self.store.changes.signals()) as signals:
            self.ended(run)
            self.store.changes.announce([run.id])
            until = time.monotonic() + 10
            named = None
            while named is None and time.monotonic() < until:
                named = signals.wait(1)

        assert named is not None
        assert set(named) <= {run.id}

    def test_an_announcement_says_whether_a_listener_was_there(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process()))
        announce = self.store.changes.announce
        before = announce([run.id])
        with closing(self.store.changes.signals()) as signals, closing(self.store.changes.signals()):
            hears = self.store.changes.announces and not isinstance(signals, NoSignals)
            meanwhile = announce([run.id]), announce([run.id])
        until = time.monotonic() + 10
        while (after := announce([run.id])) and time.monotonic() < until:
            time.sleep(0.02)  # a server ends the session of a closed connection when it comes to it

        assert (before, meanwhile, after) == (False, (hears, hears), False)
