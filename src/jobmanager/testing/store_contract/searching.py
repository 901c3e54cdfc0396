"""Promises about searches: which runs a filter finds, how pages follow each other, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from jobmanager.access.view import View
from jobmanager.run import (
    CANCELLED,
    FAILED,
    MISSED,
    PENDING,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    Failure,
    Run,
    new_id,
)
from jobmanager.search import Mark, RunFilter
from jobmanager.stores.search import LATE_AFTER
from jobmanager.testing.store_contract.ground import StoreGround, seconds

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class SearchingPromises(StoreGround):
    """`store.search`."""

    def _runs(self) -> list[Run]:
        """Write runs of two jobs in every status, with what a filter can ask for."""
        self.job("a")
        self.job("b")
        owner = self.process()
        runs = [
            self._executed("a", 10, SUCCEEDED, attempt=2),
            self._executed("a", 20, FAILED, error=self._failure("exception", "Read timed out at Größe 50 %")),
            self._executed(
                "b", 30, FAILED, error=self._failure("timeout", "read TIMED out"), discarded_at=self.now
            ),
            self._executed("b", 40, FAILED, started_at=self.now - seconds(40) + 2 * LATE_AFTER),
            self.closed(
                self.tick(50, "a"), MISSED, reason="downtime", first_for=self.now - seconds(59), ticks=9
            ),
            self.closed(self.tick(60, "b"), SKIPPED, reason="paused"),
            self.closed(
                self.run_of("b", concurrency_key="b/acme", requested_by="ana"), CANCELLED, reason="requested"
            ),
            self._executed("b", 70, SUCCEEDED, finished_at=self.now - seconds(10)),
            self.run_of("a", requested_by="ana"),
            self.tick(80, "a", owner=owner),
            self.tick(90, "b", trigger="backfill"),
        ]
        runs = [self._numbered(place, run) for place, run in enumerate(runs)]
        self.inserted(*runs)
        return [found for run in runs if (found := self.store.history.run(run.id)) is not None]

    def _numbered(self, place: int, run: Run) -> Run:
        moment = self.now + timedelta(microseconds=place)
        return replace(run, id=new_id(moment), opened_at=moment)

    def _executed(self, job_id: str, ago: float, status: Any, **fields: Any) -> Run:
        """Return a tick that was executed for a second."""
        run = self.closed(self.tick(ago, job_id), status)
        start = self.now - seconds(ago)
        return replace(
            run, **{"attempt": 1, "started_at": start, "finished_at": start + seconds(1), **fields}
        )

    @staticmethod
    def _failure(kind: Any, message: str) -> Failure:
        return Failure(kind=kind, message=message, type="ValueError", traceback="never searched")

    def _wanted(self) -> dict[str, tuple[RunFilter, Callable[[Run], bool]]]:
        """Return filters, and what each is to find."""
        now = self.now
        return {
            "all": (RunFilter(), lambda _: True),
            "a job": (RunFilter(job="a"), lambda run: run.job_id == "a"),
            "nobody": (RunFilter(job="nobody"), lambda _: False),
            "a status": (RunFilter(statuses=[SUCCEEDED]), lambda run: run.status is SUCCEEDED),
            "trouble": (
                RunFilter(statuses=[FAILED, MISSED, SKIPPED, CANCELLED]),
                lambda run: run.status in (FAILED, MISSED, SKIPPED, CANCELLED),
            ),
            "open": (RunFilter(statuses=[PENDING, RUNNING]), lambda run: not run.status.closed),
            "open of a job": (
                RunFilter(job="a", statuses=[PENDING, RUNNING]),
                lambda run: run.job_id == "a" and not run.status.closed,
            ),
            "mixed": (
                RunFilter(statuses=[SUCCEEDED, FAILED]),
                lambda run: run.status in (SUCCEEDED, FAILED),
            ),
            "failed of a job": (
                RunFilter(job="b", statuses=[FAILED]),
                lambda run: run.job_id == "b" and run.status is FAILED,
            ),
            "a reason": (RunFilter(reason="downtime"), lambda run: run.reason == "downtime"),
            "a kind": (
                RunFilter(error_kind="timeout"),
                lambda run: run.error is not None and run.error.kind == "timeout",
            ),
            "a text": (
                RunFilter(text="read timed"),
                lambda run: run.error is not None and "timed" in run.error.message.lower(),
            ),
            "a text with the type": (
                RunFilter(text="ValueError: Read"),
                lambda run: run.error is not None and "timed" in run.error.message.lower(),
            ),
            "a text with a sign": (
                RunFilter(text="Größe 50 %"),
                lambda run: run.error is not None and "50" in run.error.message,
            ),
            "a text that would be a pattern": (RunFilter(text="R_ad"), lambda _: False),
            "a traceback": (RunFilter(text="never searched"), lambda _: False),
            "succeeded with an error": (RunFilter(text="read", statuses=[SUCCEEDED]), lambda _: False),
            "a trigger": (RunFilter(trigger="backfill"), lambda run: run.trigger == "backfill"),
            "a scope": (RunFilter(scope="acme"), lambda run: run.scope == "acme"),
            "a person": (RunFilter(requested_by="ana"), lambda run: run.requested_by == "ana"),
            "since": (
                RunFilter(since=now - seconds(30)),
                lambda run: run.instant >= now - seconds(30),
            ),
            "until": (RunFilter(until=now - seconds(30)), lambda run: run.instant < now - seconds(30)),
            "a range of a job": (
                RunFilter(job="b", since=now - seconds(60), until=now - seconds(30)),
                lambda run: run.job_id == "b" and now - seconds(60) <= run.instant < now - seconds(30),
            ),
            "a range of open ones": (
                RunFilter(statuses=[PENDING, RUNNING], since=now - seconds(85), until=now),
                lambda run: not run.status.closed and now - seconds(85) <= run.instant < now,
            ),
            "a length": (
                RunFilter(duration=seconds(60)),
                lambda run: run.duration is not None and run.duration >= seconds(60),
            ),
            "retried": (RunFilter(retried=True), lambda run: run.attempt > 1),
            "late": (
                RunFilter(late=True),
                lambda run: (
                    run.started_at is not None
                    and run.scheduled_for is not None
                    and run.started_at - run.scheduled_for > LATE_AFTER
                ),
            ),
            "of all time": (RunFilter(since=FIRST, until=LAST), lambda _: True),
            "of all time, of a job": (
                RunFilter(job="a", since=FIRST, until=LAST),
                lambda run: run.job_id == "a",
            ),
            "before there were computers": (RunFilter(until=FIRST), lambda _: False),
            "after all": (RunFilter(since=LAST), lambda _: False),
            "dead": (RunFilter(dead=True), lambda run: run.status is FAILED and run.discarded_at is None),
            "dead of a job with a text": (
                RunFilter(dead=True, job="a", text="TIMED"),
                lambda run: run.job_id == "a" and run.status is FAILED and run.error is not None,
            ),
        }

    def test_a_search_finds_the_runs_that_its_filter_wants_the_newest_first(self) -> None:
        runs = self._runs()
        assert len(runs) == 11
        for name, (wanted, fits) in self._wanted().items():
            found = self.store.search.runs(wanted)
            due = [run for run in runs if fits(run)]
            due.sort(key=lambda run: (run.instant, run.id) if wanted.job else run.id, reverse=True)
            assert list(found.runs) == due, name
            assert (found.next, found.searched_to) == (None, None), name

    def test_pages_of_a_search_follow_each_other_without_gap_or_overlap(self) -> None:
        self._runs()
        for name, (wanted, _) in self._wanted().items():
            whole = [run.id for run in self.store.search.runs(wanted).runs]
            paged, before, pages = list[str](), None, 0
            while pages <= len(whole):
                page = self.store.search.runs(wanted, before=before, limit=2)
                paged += [run.id for run in page.runs]
                pages += 1
                if page.next is None:
                    break
                before = Mark.of(page.next)
            assert paged == whole, name
            assert pages == max(1, (len(whole) + 1) // 2), name

    def test_a_search_without_room_finds_none_and_a_cursor_stands_for_its_place(self) -> None:
        self._runs()
        first, *_, last = self.store.search.runs(RunFilter()).runs
        assert not self.store.search.runs(RunFilter(), before=Mark(last.instant, last.id)).runs
        mark = Mark(first.instant, first.id)
        assert Mark.of(mark.cursor) == mark
        assert first not in self.store.search.runs(RunFilter(), before=mark).runs

    def test_counts_of_a_search_are_those_of_the_runs_it_would_find(self) -> None:
        """Fails if a kind is counted that the filter hides, or a stretch counts as one instant."""
        runs = self._runs()
        for name, (wanted, _) in self._wanted().items():
            base = replace(wanted, statuses=(), reason=None, error_kind=None, trigger=None)
            due = self.store.search.runs(base).runs
            found = self.store.search.counts(wanted)
            assert sum(count.rows for count in found.counts) == len(due), name
            assert sum(count.ticks for count in found.counts) == sum(run.ticks for run in due), name
            assert not found.more, name
        by_kind = {
            (count.status, count.job_id, count.reason, count.error_kind, count.trigger): (
                count.rows,
                count.ticks,
            )
            for count in self.store.search.counts(RunFilter()).counts
        }
        assert by_kind[MISSED, "a", "downtime", None, "schedule"] == (1, 9)
        assert by_kind[FAILED, "b", None, "timeout", "schedule"] == (1, 1)
        assert sum(rows for rows, _ in by_kind.values()) == len(runs)

    def test_dead_letters_with_the_same_first_line_stand_together(self) -> None:
        self.job("a")
        self.job("b")
        texts = ["away", "away\nwith a second line", "gone", "away"]
        runs = [
            self._numbered(
                place,
                self._executed(
                    "a" if place < 3 else "b", 10 - place, FAILED, error=self._failure("exception", text)
                ),
            )
            for place, text in enumerate(texts)
        ]
        seen_to = self._numbered(
            9,
            self._executed("a", 40, FAILED, error=self._failure("exception", "away"), discarded_at=self.now),
        )
        self.inserted(*runs, seen_to)

        groups = self.store.search.dead_letters(RunFilter())

        assert [(group.job_id, group.error_kind, group.text, len(group.run_ids)) for group in groups] == [
            ("a", "exception", "ValueError: away", 2),
            ("a", "exception", "ValueError: gone", 1),
            ("b", "exception", "ValueError: away", 1),
        ]
        assert list(groups[0].run_ids) == [runs[1].id, runs[0].id]
        assert (groups[0].oldest, groups[0].newest) == (runs[0].instant, runs[1].instant)
        assert [group.job_id for group in self.store.search.dead_letters(RunFilter(job="b"))] == ["b"]
        assert len(self.store.search.dead_letters(RunFilter(), limit=1)) == 1

    def test_the_ticks_beside_an_instant_are_the_next_on_either_side(self) -> None:
        self.job("a")
        self.job("b")
        ticks = [self._numbered(place, self._executed("a", 40 - 10 * place, SUCCEEDED)) for place in range(3)]
        others = [self._numbered(7, self._executed("b", 25, SUCCEEDED)), self._numbered(8, self.run_of("a"))]
        self.inserted(*ticks, *others)

        def beside(ago: float) -> list[str | None]:
            found = self.store.search.beside("a", self.now - seconds(ago))
            return [run.id if run else None for run in found]

        assert beside(30) == [ticks[0].id, ticks[2].id]
        assert beside(35) == [ticks[0].id, ticks[1].id]
        assert beside(40) == [None, ticks[1].id]
        assert beside(0) == [ticks[2].id, None]
        assert self.store.search.beside("nobody", self.now) == (None, None)
        assert self.store.search.beside("a", self.now, seen=View("elsewhere")) == (None, None)

    def test_a_search_shows_a_view_only_what_it_sees(self) -> None:
        """Fails if a search, a count or a group shows a principal what its view hides."""
        self.job("open")
        self.job("hidden", visibility="system")
        runs = [
            self._numbered(place, self._executed(job_id, 10 + place, FAILED))
            for place, job_id in enumerate(("open", "hidden", "open"))
        ]
        self.inserted(*runs)
        team, search = View("default"), self.store.search
        for wanted in (
            RunFilter(),
            RunFilter(dead=True),
            RunFilter(statuses=[FAILED, SUCCEEDED]),
            RunFilter(text=""),
        ):
            assert {run.job_id for run in search.runs(wanted, seen=team).runs} <= {"open"}
            assert {count.job_id for count in search.counts(wanted, seen=team).counts} <= {"open"}
            assert {group.job_id for group in search.dead_letters(wanted, seen=team)} <= {"open"}
        assert len(search.runs(RunFilter(dead=True), seen=team).runs) == 2
        assert not search.runs(RunFilter(job="hidden"), seen=team).runs
        assert not search.counts(RunFilter(job="hidden"), seen=team).counts
        newest = search.runs(RunFilter()).runs
        assert all(older.id < newer.id for newer, older in pairwise(newest))
