"""Promises about the counts by the hour: they are a function of the rows, a change asks for another count, and purging keeps them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from jobmanager.run import CANCELLED, FAILED, MISSED, SKIPPED, SUCCEEDED, Run, new_id
from jobmanager.stores.statistics import Cell, CountedHour, hour_of, hour_of_id, start_of
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class StatisticsPromises(StoreGround):
    """`store.statistics`."""

    def ran(self, job_id: str = "job", *, ago: timedelta = timedelta(0), took: float = 1) -> Run:
        """Return a row of a run that was due, opened and started so long ago, and took so many seconds."""
        moment = self.now - ago
        return self.run_of(
            job_id,
            id=new_id(moment),
            status=SUCCEEDED,
            opened_at=moment,
            due_at=moment,
            started_at=moment,
            finished_at=moment + seconds(took),
            attempt=1,
            starts=1,
        )

    def counted(self, hour: int, *, settled: bool = True) -> bool:
        """Count the hour as a process does that was asked to; return whether the store kept it."""
        wanted = next(counted for counted in self.store.statistics.unsettled() if counted.hour == hour)
        cells = self.store.statistics.count(hour).cells
        return self.store.statistics.keep(wanted, cells, at=self.now, took=0.1, settled=settled)

    def unsettled(self) -> list[int]:
        return [counted.hour for counted in self.store.statistics.unsettled()]

    def totals(self, job_id: str | None = None, *, namespace: str = "default") -> dict[str, int]:
        """Return the kept counts by status, whatever the hour."""
        far = hour_of(self.now) + 1
        found: dict[str, int] = {}
        for cell in self.store.statistics.cells(namespace, far - 10_000, far, job_id=job_id):
            found[cell.status] = found.get(cell.status, 0) + cell.count
        return found

    # ---------------------------------------------------------------- counting

    def test_an_hour_comes_to_its_closed_runs_by_job_hour_and_status(self) -> None:
        self.job()
        self.job("other")
        hour = hour_of(self.now)
        self.inserted(self.ran(took=1), self.ran(took=3), replace(self.ran(), status=FAILED))
        self.inserted(self.ran("other", took=100), self.ran(ago=2 * HOUR))
        self.opened(self.run_of())

        found = self.store.statistics.count(hour)

        assert [(cell.job_id, cell.status, cell.count) for cell in found.cells] == [
            ("job", FAILED, 1),
            ("job", SUCCEEDED, 2),
            ("other", SUCCEEDED, 1),
        ]
        assert {cell.hour for cell in found.cells} == {hour}
        assert found.open == 1
        both = found.cells[1].duration
        assert (both.count, both.total, both.longest) == (2, 4.0, 3.0)

    def test_lateness_goes_from_the_instant_to_the_first_start_and_a_start_by_hand_has_none(self) -> None:
        self.job()
        late = self.tick(30, id=new_id(self.now), status=SUCCEEDED, opened_at=self.now)
        late = replace(
            late, started_at=self.now, finished_at=self.now + seconds(1), attempt=1, starts=1, turn=None
        )
        again = replace(late, id=new_id(self.now), scheduled_for=self.now - seconds(40), attempt=2, starts=2)
        self.inserted(late, again, self.ran())

        cells = self.store.statistics.count(hour_of_id(late.id)).cells

        assert sum(cell.lateness.count for cell in cells) == 1
        assert sum(cell.lateness.total for cell in cells) == 30.0

    def test_a_row_of_many_instants_counts_in_the_hours_of_its_instants(self) -> None:
        self.job(schedule="every 600")
        last = start_of(hour_of(self.now)) - seconds(600)
        stretch = self.closed(
            self.tick(0, scheduled_for=last, id=new_id(self.now)),
            MISSED,
            reason="downtime",
            first_for=last - 2 * HOUR,
            ticks=13,
        )
        self.inserted(stretch)

        cells = self.store.statistics.count(hour_of(self.now)).cells

        hour = hour_of(last)
        assert {cell.hour: cell.count for cell in cells} == {hour - 2: 1, hour - 1: 6, hour: 6}

    def test_totals_add_the_hours_of_each_job_by_status(self) -> None:
        """Fails if the totals of one job took in another one, an hour outside, or a status that is none of theirs."""
        for job_id in ("job", "other", "idle"):
            self.job(job_id)
        self.job("foreign", namespace="elsewhere")
        hour = hour_of(self.now)
        self.inserted(self.ran(took=1), self.ran(ago=HOUR, took=3), self.ran(ago=3 * HOUR, took=9))
        self.inserted(replace(self.ran(), status=FAILED), self.ran("other", took=100), self.ran("foreign"))
        hours = [hour - 3, hour - 1, hour]
        self.store.statistics.recount(hours)
        assert all(self.counted(each) for each in hours)

        totals = self.store.statistics.totals
        wanted = ["job", "idle", "foreign", "nobody"]
        found = {
            (cell.job_id, cell.status): cell for cell in totals("default", hour - 1, hour + 1, job_ids=wanted)
        }
        assert found.keys() == {("job", SUCCEEDED), ("job", FAILED)}
        good = found["job", SUCCEEDED]
        assert (good.hour, good.count, good.duration.count) == (hour - 1, 2, 2)
        assert (good.duration.total, good.duration.longest) == (4, 3)
        assert [cell.count for cell in totals("default", hour, hour + 1, job_ids=["other"])] == [1]

    def test_the_hours_with_runs_are_found_without_the_others(self) -> None:
        self.job()
        hour = hour_of(self.now)
        self.inserted(self.ran(), self.ran(ago=5 * HOUR), self.ran(ago=5 * HOUR), self.ran(ago=9 * HOUR))

        assert self.store.statistics.hours_with_runs(hour - 5, hour + 1) == [hour - 5, hour]
        assert self.store.statistics.hours_with_runs(hour - 5, hour) == [hour - 5]

    # ---------------------------------------------------------------- keeping

    def test_a_count_replaces_the_earlier_one(self) -> None:
        self.job()
        hour = hour_of(self.now)
        self.store.statistics.recount([hour])
        self.inserted(self.ran())
        assert self.counted(hour, settled=False)
        self.inserted(self.ran())
        assert self.counted(hour, settled=False)

        assert self.totals() == {SUCCEEDED: 2}
        assert self.totals("job") == {SUCCEEDED: 2}
        assert self.totals("other") == self.totals(namespace="other") == {}
        assert self.store.statistics.counted_until() == self.now

    def test_of_two_counts_at_once_the_first_is_kept(self) -> None:
        self.job()
        hour = hour_of(self.now)
        self.store.statistics.recount([hour])
        [mine] = theirs = self.store.statistics.unsettled()
        cells = [Cell("job", hour, SUCCEEDED, 7)]

        assert self.store.statistics.keep(mine, cells, at=self.now, took=0, settled=False)
        assert not self.store.statistics.keep(theirs[0], [], at=self.now, took=0, settled=False)
        assert self.totals() == {SUCCEEDED: 7}

    def test_a_settled_hour_is_counted_again_only_if_that_is_asked_for(self) -> None:
        hour = hour_of(self.now)
        self.store.statistics.recount([hour, hour - 1])
        assert self.unsettled() == [hour, hour - 1]
        assert self.counted(hour - 1)
        assert self.unsettled() == [hour]

        self.store.statistics.recount([hour - 1])

        assert self.unsettled() == [hour, hour - 1]
        assert self.store.statistics.hours() == {hour, hour - 1}

    def test_a_redriven_run_asks_for_another_count_and_spoils_one_under_way(self) -> None:
        self.job()
        run = replace(self.ran(), status=FAILED)
        self.inserted(run)
        hour = hour_of(self.now)
        self.store.statistics.recount([hour])
        assert self.counted(hour)
        under_way = CountedHour(hour, 2, self.now, 0.0)

        with self.store.jobs.lock("job") as txn:
            txn.reopen(run, max_attempts=1, turn=None)

        assert self.unsettled() == [hour]
        assert not self.store.statistics.keep(under_way, [], at=self.now, took=0, settled=True)
        assert self.counted(hour, settled=False)
        assert self.totals() == {}

    def test_a_row_that_grows_asks_for_another_count(self) -> None:
        self.job()
        row = self.closed(self.tick(20, id=new_id(self.now)), SKIPPED, reason="paused")
        self.inserted(row)
        hour = hour_of(self.now)
        self.store.statistics.recount([hour])
        assert self.counted(hour)

        with self.store.jobs.lock("job") as txn:
            txn.grow(replace(row, scheduled_for=self.now, first_for=self.now - seconds(20), ticks=21))

        assert self.counted(hour)
        assert self.totals() == {SKIPPED: 21}

    # ---------------------------------------------------------------- purging

    def test_what_purged_runs_came_to_stays_before_and_after_the_next_count(self) -> None:
        self.job()
        hour = hour_of(self.now - 5 * HOUR)
        old = [self.ran(ago=5 * HOUR, took=took) for took in (1, 2, 30)]
        self.inserted(*old, replace(self.ran(ago=5 * HOUR), status=CANCELLED, job_id="job"))
        self.store.statistics.recount([hour])
        assert self.counted(hour)
        before = self.store.statistics.cells("default", hour - 1, hour + 1, job_id="job")

        assert self.store.maintenance.purge(self.now - HOUR) == 4

        purged = self.store.statistics.cells("default", hour - 1, hour + 1, job_id="job")
        assert self.store.statistics.count(hour).cells == []
        assert self.counted(hour)
        counted = self.store.statistics.cells("default", hour - 1, hour + 1, job_id="job")
        assert sorted(before, key=str) == sorted(purged, key=str) == sorted(counted, key=str)

    def test_runs_that_were_purged_before_their_hour_was_counted_count(self) -> None:
        self.job()
        self.inserted(self.ran(ago=5 * HOUR))
        self.store.maintenance.purge(self.now - HOUR)

        assert self.totals() == {SUCCEEDED: 1}
        assert self.unsettled() == [hour_of(self.now - 5 * HOUR)]

    def test_old_counts_are_forgotten(self) -> None:
        self.job()
        self.inserted(self.ran(ago=5 * HOUR), self.ran())
        hour = hour_of(self.now)
        self.store.statistics.recount([hour, hour - 5])
        assert self.counted(hour)
        assert self.counted(hour - 5)

        self.store.statistics.forget(hour)

        assert self.totals() == {SUCCEEDED: 1}
        assert self.store.statistics.hours() == {hour}

    # ---------------------------------------------------------------- what is read from runs

    def test_the_backlog_is_what_is_pending_and_due(self) -> None:
        self.job()
        self.job("theirs", namespace="other")
        self.opened(self.run_of(due_at=self.now - seconds(70)))
        self.opened(self.run_of(due_at=self.now - seconds(50), priority=5))
        self.opened(self.run_of(due_at=self.now + HOUR))
        self.opened(self.run_of("theirs"))
        self.opened(self.run_of(owner=self.process()))

        found = self.store.statistics.backlog("default")

        assert (found.count, found.oldest) == (2, self.now - seconds(70))
        assert self.store.statistics.backlog("default", most=1).count == 1
        assert self.store.statistics.backlog("default", job_id="job").count == 2
        assert self.store.statistics.backlog("default", job_id="theirs").count == 0

    def test_the_ended_runs_of_the_last_hour_come_with_their_instants_and_lengths(self) -> None:
        self.job()
        self.inserted(self.ran(ago=seconds(5), took=2), self.ran(ago=2 * HOUR))
        self.opened(self.run_of())

        since = self.now - HOUR
        [found] = self.store.statistics.ended_since("default", since, limit=10)

        assert (found.status, found.instants) == (SUCCEEDED, [self.now - seconds(5)])
        assert (found.duration, found.lateness) == (2.0, None)
        assert self.store.statistics.ended_since("other", since, limit=10) == []
        assert self.store.statistics.ended_since("default", since, job_id="other", limit=10) == []
