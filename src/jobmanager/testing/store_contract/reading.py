"""Promises about reading the record: runs, pages, the last ones of each job, counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from jobmanager.errors import RunNotFoundError
from jobmanager.run import CANCELLED, FAILED, MISSED, PENDING, RUNNING, SKIPPED, SUCCEEDED, Run, new_id
from jobmanager.stores.values import JobStanding
from jobmanager.testing.store_contract.ground import StoreGround, seconds


class ReadingPromises(StoreGround):
    """`store.history`."""

    def made(self, place: int, run: Run) -> Run:
        """Return the run with an id of its own microsecond, so that the order of opening is known."""
        moment = self.now + timedelta(microseconds=place)
        return replace(run, id=new_id(moment), opened_at=moment)

    # ---------------------------------------------------------------- due instants

    def test_the_due_instants_of_a_job_are_its_newest_rows_but_starts_by_hand(self) -> None:
        self.job()
        stretch = self.closed(
            self.tick(50), SKIPPED, reason="paused", first_for=self.now - seconds(60), ticks=11
        )
        older, run = self.closed(self.tick(100), MISSED, reason="downtime"), self.tick(10)
        self.inserted(older, stretch, run)
        self.opened(self.run_of())
        due = self.store.history.due_instants

        found = due(["job", "nobody"])
        assert list(found) == ["job"]
        assert [cell.run_id for cell in found["job"]] == [run.id, stretch.id, older.id]
        skipped = found["job"][1]
        assert (skipped.status, skipped.reason, skipped.ticks) == (SKIPPED, "paused", 11)
        assert (skipped.scheduled_for, skipped.first_for) == (stretch.scheduled_for, stretch.first_for)
        assert [cell.run_id for cell in due(["job"], limit=2)["job"]] == [run.id, stretch.id]
        assert [cell.run_id for cell in due(["job"], since=self.now - seconds(50))["job"]] == [
            run.id,
            stretch.id,
        ]
        assert due([]) == {}

    # ---------------------------------------------------------------- one run

    def test_a_run_is_found_by_its_id_and_by_the_end_of_it(self) -> None:
        self.job()
        run, other = self.opened(self.run_of()), self.opened(self.run_of())

        assert self.store.history.run(run.id) == run
        assert self.store.history.run(run.id[-8:]) == run
        assert self.store.history.run(other.id[-12:]) == other
        assert self.store.history.run(self.run_of().id) is None
        assert self.store.history.run("nothing-like-it") is None

    def test_an_end_that_two_runs_share_or_that_is_too_short_finds_none(self) -> None:
        self.job()
        twins = [self.run_of(id=f"01900000-0000-7000-800{number}-00000000abcd") for number in (1, 2)]
        single = self.run_of(id="01900000-0000-7000-8003-000000001234")
        self.write([*twins, single])

        assert self.store.history.run("abcd") is None
        assert self.store.history.run("234") is None
        assert self.store.history.run("1234") == single
        assert self.store.history.run("%234") is None
        assert self.store.history.run("_234") is None

    def test_a_tick_is_answered_for_by_its_row_or_by_the_stretch_that_covers_it(self) -> None:
        self.job()
        alone = self.closed(self.tick(100), MISSED, reason="downtime")
        stretch = self.closed(
            self.tick(50), SKIPPED, reason="paused", first_for=self.now - seconds(60), ticks=11
        )
        run = self.tick(10)
        self.inserted(alone, stretch, run)

        def answer(ago: float) -> Run | None:
            return self.store.history.run_for("job", self.now - seconds(ago))

        assert [answer(ago) for ago in (100, 60, 55, 50, 10)] == [alone, stretch, stretch, stretch, run]
        assert [answer(ago) for ago in (101, 99, 61, 49, 9, 0)] == [None] * 6
        assert self.store.history.run_for("other", self.now - seconds(10)) is None

    # ---------------------------------------------------------------- many runs

    def test_runs_come_newest_first(self) -> None:
        self.job()
        runs = [self.made(place, self.run_of()) for place in range(5)]
        self.write([runs[place] for place in (3, 0, 4, 1, 2)])

        assert [run.id for run in self.store.history.runs()] == [run.id for run in reversed(runs)]

    def test_pages_follow_each_other_without_gap_or_overlap(self) -> None:
        self.job()
        runs = [self.made(place, self.run_of()) for place in range(7)]
        self.write(runs)

        pages: list[str] = []
        page = self.store.history.runs(limit=3)
        while page and len(pages) < 20:
            pages += [run.id for run in page]
            self.write([self.made(100 + len(pages), self.run_of())])  # what comes meanwhile moves no page
            page = self.store.history.runs(limit=3, before=pages[-1])

        assert pages == [run.id for run in reversed(runs)]

    def test_runs_of_one_job_come_by_the_instant_each_stands_for(self) -> None:
        self.job()
        self.job("other")
        tick = self.made(1, self.run_of(scheduled_for=self.now - seconds(10)))
        by_hand = replace(self.made(2, self.run_of()), opened_at=self.now - seconds(20))
        late = self.made(3, self.closed(self.run_of(scheduled_for=self.now - seconds(30)), MISSED))
        also_by_hand = replace(self.made(0, self.run_of()), opened_at=self.now - seconds(5))
        self.inserted(tick, by_hand, late, also_by_hand, self.made(4, self.run_of("other")))

        newest_first = [also_by_hand.id, tick.id, by_hand.id, late.id]
        assert [run.id for run in self.store.history.runs(job_id="job")] == newest_first
        assert [run.id for run in self.store.history.runs(job_id="job", limit=3)] == newest_first[:3]
        assert [run.id for run in self.store.history.runs(job_id="job", statuses=[MISSED])] == [late.id]

    def test_pages_of_one_job_follow_each_other_without_gap_or_overlap(self) -> None:
        self.job()
        instants = [self.now - seconds(number) for number in range(6)]
        ticks = [
            self.made(9 - place, self.run_of(scheduled_for=instant)) for place, instant in enumerate(instants)
        ]
        # Opened by hand at the very instants of ticks: the ids decide.
        by_hand = [
            replace(self.made(20 + place, self.run_of()), opened_at=instants[place]) for place in (1, 3)
        ]
        self.inserted(*ticks, *by_hand)

        pages: list[Run] = []
        page = self.store.history.runs(job_id="job", limit=3)
        while page:
            pages += page
            page = self.store.history.runs(job_id="job", limit=3, before=pages[-1].id)

        expected = sorted([*ticks, *by_hand], key=lambda run: (run.instant, run.id), reverse=True)
        assert [run.id for run in pages] == [run.id for run in expected]
        assert self.store.history.runs(job_id="job", before=self.run_of().id) == []

    def test_runs_of_one_job_or_of_some_statuses_can_be_asked_for(self) -> None:
        self.job()
        self.job("other")
        owner = self.process()
        pending, running, elsewhere = self.run_of(), self.run_of(owner=owner), self.run_of("other")
        failed = self.closed(self.run_of(), FAILED)
        self.inserted(pending, running, failed, elsewhere)

        def ids(**which: object) -> set[str]:
            return {run.id for run in self.store.history.runs(**which)}  # type: ignore[arg-type]  # words of the method

        assert ids(job_id="other") == {elsewhere.id}
        assert ids(statuses=[PENDING]) == {pending.id, elsewhere.id}
        assert ids(statuses={PENDING, FAILED}, job_id="job") == {pending.id, failed.id}
        assert ids(statuses=[CANCELLED]) == set()
        assert ids(job_id="nobody") == set()

    def test_a_failed_run_is_a_dead_letter_until_somebody_has_seen_to_it(self) -> None:
        self.job()
        failed, discarded = self.closed(self.run_of(), FAILED), self.closed(self.run_of(), FAILED)
        done = self.closed(self.run_of(), SUCCEEDED)
        self.inserted(failed, discarded, done)

        answer = self.store.maintenance.discard(discarded.id)

        assert answer.discarded_at is not None
        assert answer == replace(discarded, discarded_at=answer.discarded_at) == self.row(discarded)
        assert self.store.history.runs(dead=True) == [failed]
        assert self.store.maintenance.discard(discarded.id) == answer
        assert self.store.maintenance.discard(done.id) == done
        with pytest.raises(RunNotFoundError):
            self.store.maintenance.discard(self.run_of().id)

    def test_the_last_runs_of_a_job_are_its_newest_and_the_newest_that_was_executed(self) -> None:
        for job_id in ("ended", "lasting", "fresh", "empty"):
            self.job(job_id)
        old = self.made(1, self.closed(self.run_of("lasting"), FAILED))
        executed = replace(self.closed(self.run_of("lasting"), SUCCEEDED), started_at=self.now)
        ended, skipped = self.made(2, executed), self.made(3, self.closed(self.run_of("lasting"), SKIPPED))
        waiting, newest = self.made(4, self.run_of("lasting")), self.made(5, self.run_of("lasting"))
        fresh = self.made(6, self.run_of("fresh"))
        only = self.made(7, self.closed(self.run_of("ended"), SUCCEEDED))
        self.inserted(old, ended, skipped, waiting, newest, fresh, only)

        assert self.store.history.last_runs(["ended", "lasting", "fresh", "empty", "nobody"]) == {
            "lasting": [newest, ended],
            "fresh": [fresh],
            "ended": [only],
        }
        assert self.store.history.last_runs([]) == {}

    def test_a_job_stands_by_its_newest_settled_instant_and_by_what_runs(self) -> None:
        """Fails if an open instant hid how the one before it ended, or a deleted job, or one of another namespace, was shown."""
        for job_id in ("failing", "by-hand", "fresh"):
            self.job(job_id)
        self.job("gone", state="deleted")
        self.job("foreign", namespace="other")
        good = self.closed(self.tick(300, "failing"), SUCCEEDED)
        bad = replace(self.closed(self.tick(200, "failing"), FAILED), started_at=self.now)
        beside = self.run_of("failing", owner=self.process(), concurrency_key="failing/beside")
        self.inserted(good, bad, self.tick(10, "failing"), beside)
        self.inserted(self.closed(self.run_of("by-hand"), FAILED), self.tick(10, "foreign"))

        found = self.store.history.standings("default")
        assert found.keys() == {"failing", "by-hand", "fresh"}
        failing = found["failing"]
        assert failing.instant is not None
        assert (failing.instant.run_id, failing.instant.status, failing.running) == (bad.id, FAILED, 1)
        assert failing.instant.started_at == self.now
        assert found["by-hand"] == JobStanding("by-hand", by_hand=FAILED)
        assert found["fresh"] == JobStanding("fresh")
        assert [found[job_id].ran for job_id in ("failing", "by-hand", "fresh")] == [True, True, False]
        some = self.store.history.standings("default", ids=["failing", "fresh", "gone", "foreign"])
        assert some == {job_id: found[job_id] for job_id in ("failing", "fresh")}
        assert self.store.history.standings("default", ids=[]) == {}

    # ---------------------------------------------------------------- counts

    def test_counts_of_an_empty_record_are_zero(self) -> None:
        metrics = self.store.history.metrics()

        assert (metrics.total_executions, metrics.successful_jobs, metrics.failed_jobs) == (0, 0, 0)
        assert (metrics.average_job_duration, metrics.success_rate, metrics.last_cleanup) == (
            timedelta(0),
            0.0,
            None,
        )

    def test_only_what_was_executed_and_has_ended_is_counted(self) -> None:
        self.job()
        owner = self.process()
        for status, took in ((SUCCEEDED, 1), (SUCCEEDED, 2), (FAILED, 3), (CANCELLED, 6)):
            run = self.opened(self.run_of(owner=owner))
            self.ended(
                run,
                status,
                reason="handler" if status is CANCELLED else None,
                started_at=self.now,
                finished_at=self.now + seconds(took),
            )
        lasting, never = self.opened(self.run_of(owner=owner)), self.opened(self.run_of())
        self.store.runs.cancel(never.id)
        self.inserted(
            self.closed(self.tick(10), SKIPPED, reason="overlap", blocked_by="another-run"),
            self.closed(self.tick(20), MISSED, reason="downtime", first_for=self.now - seconds(30), ticks=11),
            self.run_of(),
        )

        metrics = self.store.history.metrics()

        assert self.row(lasting).status is RUNNING
        assert (metrics.total_executions, metrics.successful_jobs, metrics.failed_jobs) == (4, 2, 1)
        assert metrics.average_job_duration == seconds(3)
        assert metrics.success_rate == 2 / 3

    def test_the_last_cleanup_is_known(self) -> None:
        self.store.maintenance.purge(self.now)

        cleaned = self.store.history.metrics().last_cleanup
        assert cleaned is not None
        assert self.now <= cleaned <= self.store.now()
