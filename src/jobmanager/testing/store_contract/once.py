"""Promises about what is done once for a key: one attempt at a time has its turn, and what is done stays so."""

from __future__ import annotations

import threading
from dataclasses import replace

from jobmanager.run import FAILED, Run
from jobmanager.stores.once import Turn
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class OncePromises(StoreGround):
    """The facet `once`."""

    def _running(self) -> Run:
        return self.opened(self.run_of(owner=self.process()))

    def test_what_is_done_is_done_for_every_run_of_the_job(self) -> None:
        self.job()
        self.job("other")
        first, second, foreign = (
            self._running(),
            self._running(),
            self.opened(self.run_of("other", owner=self.process())),
        )
        once = self.store.once

        assert once.begin(first, "key") == Turn(state="ours", run_id=first.id)
        assert once.finish(first, "key", {"order": [1, None, "ü"]})
        assert once.begin(second, "key") == Turn(
            state="done", run_id=first.id, output={"order": [1, None, "ü"]}
        )
        assert not once.finish(first, "key", "again")
        assert once.begin(second, "another").state == "ours"
        assert once.begin(foreign, "key").state == "ours"

    def test_none_is_a_result(self) -> None:
        self.job()
        run = self._running()
        self.store.once.begin(run, "key")
        assert self.store.once.finish(run, "key", None)
        assert self.store.once.begin(run, "key") == Turn(state="done", run_id=run.id)

    def test_while_an_attempt_is_at_it_others_are_told_which(self) -> None:
        self.job()
        first, second = self._running(), self._running()
        self.store.once.begin(first, "key")

        assert self.store.once.begin(second, "key") == Turn(state="busy", run_id=first.id)
        assert self.store.once.begin(first, "key") == Turn(state="busy", run_id=first.id)
        self.store.once.give_up(second, "key")
        assert self.store.once.begin(second, "key").state == "busy"
        self.store.once.give_up(first, "key")
        self.store.once.give_up(first, "key")
        assert self.store.once.begin(second, "key").state == "ours"

    def test_what_an_attempt_began_that_runs_no_more_is_to_be_done_again(self) -> None:
        self.job()
        first, second = self._running(), self._running()
        self.store.once.begin(first, "key")
        later = replace(first, starts=first.starts + 1)
        self.ended(first, FAILED)

        assert self.store.once.begin(second, "key") == Turn(state="ours", run_id=second.id)
        assert not self.store.once.finish(first, "key", 1), "its turn is over"
        self.store.once.give_up(second, "key")
        self.store.once.begin(first, "key")
        assert self.store.once.begin(later, "key").state == "ours"

    def test_what_is_old_is_forgotten(self) -> None:
        self.job()
        run = self._running()
        for key in ("a", "b"):
            self.store.once.begin(run, key)
        self.store.once.finish(run, "a", 1)

        assert self.store.once.purge(self.now - HOUR) == 0
        assert self.store.once.purge(self.store.now() + seconds(1)) == 2
        assert self.store.once.begin(run, "a").state == "ours"

    def test_of_many_at_once_one_has_its_turn(self) -> None:
        self.job()
        runs = [self._running() for _ in range(8)]
        gate, turns = threading.Barrier(len(runs)), list[Turn]()

        def begin(run: Run) -> None:
            gate.wait()
            turns.append(self.store.once.begin(run, "key"))

        threads = [threading.Thread(target=begin, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [ours] = [turn for turn in turns if turn.state == "ours"]
        assert {turn.run_id for turn in turns} == {ours.run_id}
        assert len(turns) == len(runs)
