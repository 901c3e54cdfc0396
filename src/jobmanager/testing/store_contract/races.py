"""Promises that only hold if the store settles races: many threads want the same, exactly one gets it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from jobmanager.errors import StoreUnavailableError
from jobmanager.run import Run
from jobmanager.testing.store_contract.ground import StoreGround, seconds

THREADS = 8


class RacePromises(StoreGround):
    """What threads race for."""

    def race(self, act: Callable[[int], object], threads: int = THREADS) -> None:
        """Call `act(number)` in so many threads at once, and raise what any of them raised."""
        gate = threading.Barrier(threads)
        errors: list[BaseException] = []

        def enter(number: int) -> None:
            gate.wait()
            try:
                act(number)
            except BaseException as error:  # noqa: BLE001 - handed on to the test's thread
                errors.append(error)

        racers = [threading.Thread(target=enter, args=(number,)) for number in range(threads)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        for error in errors:
            raise error

    def write_until_answered(self, run: Run) -> bool:
        """Open the run; a store that is busy is asked again, as the library does. True if the run is ours."""
        while True:
            try:
                return run.id in self.store.runs.write([run], ()).opened
            except StoreUnavailableError:
                continue

    def test_each_of_two_hundred_ticks_is_opened_by_one_of_eight_threads(self) -> None:
        owners = [self.process() for _ in range(THREADS)]
        ticks = [(f"job-{number}", ago) for number in range(5) for ago in range(40)]
        for number in range(5):
            self.job(f"job-{number}")
        won: list[tuple[str, float]] = []
        ids: list[str] = []

        def open_all(number: int) -> None:
            for job_id, ago in ticks:
                run = self.tick(ago, job_id, owner=owners[number])
                if self.write_until_answered(run):
                    won.append((job_id, ago))
                    ids.append(run.id)

        self.race(open_all)

        assert Counter(won) == dict.fromkeys(ticks, 1)
        assert sorted(run.id for run in self.store.history.runs(limit=1000)) == sorted(ids)

    def test_a_key_is_held_by_one_of_eight_threads(self) -> None:
        self.job()
        winners: list[str] = []

        def open_one(number: int) -> None:
            run = self.tick(number + 1, turn="holds")
            if self.write_until_answered(run):
                winners.append(run.id)

        self.race(open_one)

        assert [run.id for run in self.store.history.runs()] == winners
        assert len(winners) == 1

    def test_an_idempotency_key_is_used_by_one_of_eight_threads(self) -> None:
        self.job()
        winners: list[str] = []

        def open_one(number: int) -> None:
            run = self.run_of(idempotency_key="once", priority=number)
            if self.write_until_answered(run):
                winners.append(run.id)

        self.race(open_one)

        assert [run.id for run in self.store.history.runs()] == winners
        assert len(winners) == 1

    def test_each_pending_run_is_claimed_by_one_process(self) -> None:
        self.job()
        owners = [self.process() for _ in range(THREADS)]
        self.write([self.run_of(due_at=self.now - seconds(number)) for number in range(60)])
        claimed: list[tuple[str, str | None]] = []

        def claim_all(number: int) -> None:
            misses = 0
            while misses < 3:
                try:
                    found = self.claim(owners[number], 3)
                except StoreUnavailableError:
                    continue
                claimed.extend((run.id, run.owner) for run in found)
                misses = 0 if found else misses + 1

        self.race(claim_all)

        assert len(claimed) == 60
        assert sorted(claimed) == sorted((run.id, run.owner) for run in self.store.history.runs(limit=100))

    def test_of_claim_and_cancel_one_comes_first(self) -> None:
        self.job()
        owner = self.process()
        runs = [self.opened(self.run_of()) for _ in range(20)]
        claimed: list[Run] = []

        def act(number: int) -> None:
            for run in runs:
                if number:
                    self.store.runs.cancel(run.id)
                else:
                    claimed.extend(self.claim(owner, 1, run_ids=[run.id]))

        self.race(act, threads=2)

        started = {run.id for run in claimed}
        for row in self.store.history.runs(limit=100):
            assert (row.status.value, row.owner) == (
                ("running", owner) if row.id in started else ("cancelled", None)
            )
