"""Promises about the store itself and the rows of jobs."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

from jobmanager.schedule import At
from jobmanager.stores.values import JobSummary
from jobmanager.testing.clock import FakeClock
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class JobPromises(StoreGround):
    """The store itself, and what it keeps of a job."""

    # ---------------------------------------------------------------- the store itself

    def test_exists_creates_nothing(self, tmp_path: Path) -> None:
        fresh = self.make_store(FakeClock(), tmp_path / "elsewhere")

        assert not fresh.exists()
        assert not fresh.exists()
        assert not (tmp_path / "elsewhere").exists()
        fresh.close()
        assert self.store.exists()

    def test_installing_twice_is_once(self) -> None:
        job = self.job()

        self.store.install()

        assert self.store.jobs.rows() == [job]

    def test_a_closed_store_connects_again_when_asked(self) -> None:
        job = self.job()

        self.store.close()
        self.store.close()

        assert self.store.jobs.get("job") == job
        assert self.write([self.tick()]).opened

    def test_now_is_aware_utc(self) -> None:
        assert self.store.now().utcoffset() == timedelta(0)

    # ---------------------------------------------------------------- jobs

    def test_every_field_of_a_job_comes_back(self) -> None:
        full = {
            "namespace": "shop",
            "declared": '{"name":"Größe"}',
            "schedule": "0 2 * * * Europe/Berlin",
            "next_due_at": None,
            "override": {"config": {"days": 7}},
            "definition": {"handler": "export", "every": 60},
            "definition_rev": 3,
            "schedule_rev": 5,
            "state": "paused",
            "state_reason": "maintenance",
            "state_by": "ana",
            "state_at": self.now - seconds(0.000001),
            "override_by": "bea",
            "override_at": self.now - seconds(2),
            "overlap": "allow",
            "catch_up_window": timedelta(minutes=5),
            "max_attempts": 4,
            "retry_on_crash": False,
            "queue_cap": 7,
            "catch_up": "none",
            "catch_up_cap": 9,
            "start_deadline": timedelta(seconds=90),
            "jitter": timedelta(seconds=5),
            "pause_after_failures": 3,
            "visibility": "system",
            "on": "user/created",
        }

        row = self.job("full", **full)

        assert {name: getattr(row, name) for name in full} == full
        assert {item.name for item in fields(row)} - {*full} == {
            "id",
            "accounted_until",
            "history_from",
            "change_seq",
        }
        assert (row.accounted_until, row.history_from) == (self.now - HOUR, self.now - 2 * HOUR)

    def test_jobs_come_by_id_and_an_unknown_one_is_none(self) -> None:
        for job_id in ("b", "c", "a"):
            self.job(job_id)

        assert [row.id for row in self.store.jobs.rows()] == ["a", "b", "c"]
        assert self.store.jobs.get("d") is None

    def test_adding_a_job_that_is_there_leaves_it_as_it_is(self) -> None:
        before = self.job(state="paused")

        self.store.jobs.add([replace(before, state="active", declared="new"), replace(before, id="other")])
        self.store.jobs.add([])

        assert self.stored_job() == before
        assert self.stored_job("other").state == "paused"

    def test_declaring_overwrites_policies_and_nothing_else(self) -> None:
        before = self.job(state="paused", state_by="ana")

        self.store.jobs.declare(
            {
                "job": replace(
                    before,
                    declared='{"name":"new"}',
                    namespace="new",
                    overlap="allow",
                    catch_up_window=timedelta(minutes=1),
                    max_attempts=7,
                    retry_on_crash=False,
                    state="active",
                    state_by=None,
                    schedule="every 2",
                    schedule_rev=9,
                    accounted_until=self.now,
                    next_due_at=None,
                )
            }
        )

        after = self.stored_job()
        assert after == replace(
            before,
            declared='{"name":"new"}',
            namespace="new",
            overlap="allow",
            catch_up_window=timedelta(minutes=1),
            max_attempts=7,
            retry_on_crash=False,
            definition_rev=before.definition_rev + 1,
            change_seq=after.change_seq,
        )
        assert after.change_seq > before.change_seq

    def test_due_jobs_are_those_whose_instant_has_come_longest_overdue_first(self) -> None:
        for job_id, ago in (("one", 10), ("three", 30), ("two", 20), ("later", -10), ("sharp", 0)):
            self.job(job_id, next_due_at=self.now - seconds(ago))
        self.job("never", next_due_at=None, schedule="none", accounted_until=self.now - seconds(60))

        assert self.store.jobs.due(self.now, 10) == ["three", "two", "one", "sharp"]
        assert self.store.jobs.due(self.now, 2) == ["three", "two"]

    def test_a_job_that_lost_its_next_instant_is_due_after_the_others(self) -> None:
        """Whatever took it: nobody else would ever look at the job again."""
        self.job("due", next_due_at=self.now)
        for job_id, ago in (("newer", 60), ("older", 90)):
            self.job(job_id, schedule="every 60s", next_due_at=None, accounted_until=self.now - seconds(ago))
        self.job("accounted", schedule="every 60s", next_due_at=None, accounted_until=self.now + seconds(1))
        self.job("disabled", schedule="every 60s", next_due_at=None, state="disabled")

        assert self.store.jobs.due(self.now, 10) == ["due", "older", "newer"]
        assert self.store.jobs.due(self.now, 2) == ["due", "older"]

    def test_a_single_instant_that_is_accounted_for_is_due_no_more(self) -> None:
        account = self.now - seconds(60)
        for job_id, moment in (
            ("over", account - timedelta(days=1)),
            ("just-over", account.replace(microsecond=0)),
            ("lost", account + timedelta(seconds=2)),
            ("lost-later", self.now + timedelta(days=400)),
        ):
            self.job(job_id, schedule=At(moment).text, next_due_at=None, accounted_until=account)

        assert self.store.jobs.due(self.now, 10) == ["lost", "lost-later"]

    def test_only_open_jobs_are_due(self) -> None:
        for state in ("active", "paused", "disabled", "deleted"):
            self.job(state, state=state)

        assert sorted(self.store.jobs.due(self.now, 10)) == ["active", "paused"]

    # ---------------------------------------------------------------- following changes

    def test_the_change_counter_grows_with_every_change(self) -> None:
        seen = [self.store.jobs.change_seq()]
        self.job()
        seen.append(self.store.jobs.change_seq())
        self.store.jobs.declare({"job": replace(self.stored_job(), max_attempts=2)})
        seen.append(self.store.jobs.change_seq())
        self.change(state="paused")
        seen.append(self.store.jobs.change_seq())

        assert seen == sorted(set(seen))

    def test_keeping_the_account_is_no_change(self) -> None:
        before = self.job()
        seq = self.store.jobs.change_seq()

        after = self.change(
            accounted_until=self.now, next_due_at=self.now + HOUR, history_from=self.now - HOUR
        )

        assert (after.accounted_until, after.next_due_at) == (self.now, self.now + HOUR)
        assert after.change_seq == before.change_seq
        assert self.store.jobs.change_seq() == seq

    def test_saving_what_is_so_already_changes_nothing(self) -> None:
        before = self.job()
        seq = self.store.jobs.change_seq()

        assert self.change() == before
        assert self.store.jobs.change_seq() == seq

    def test_who_follows_reads_only_what_changed(self) -> None:
        self.job("old")
        self.job("edited")
        seq = self.store.jobs.change_seq()
        self.change("edited", state="paused")
        self.job("new")

        assert [row.id for row in self.store.jobs.rows(changed_since=seq)] == ["edited", "new"]
        assert self.store.jobs.rows(changed_since=self.store.jobs.change_seq()) == []
        assert [row.id for row in self.store.jobs.rows(changed_since=-1)] == ["edited", "new", "old"]
        assert [row.id for row in self.store.jobs.rows(ids=["old", "new", "nobody"])] == ["new", "old"]
        assert self.store.jobs.rows(ids=[]) == []

    def test_briefs_come_in_pages_and_say_what_the_rows_say(self) -> None:
        for job_id in ("b", "d", "a", "c"):
            self.job(job_id, override={"queue_cap": 3} if job_id == "c" else None)
        seq = self.store.jobs.change_seq()
        self.job("e", next_due_at=None)

        first = self.store.jobs.summaries(changed_since=-1, limit=3)
        pages = [*first, *self.store.jobs.summaries(changed_since=-1, after=first[-1].id, limit=3)]

        assert [brief.id for brief in pages] == ["a", "b", "c", "d", "e"]
        assert [[getattr(row, name) for name in JobSummary._fields] for row in self.store.jobs.rows()] == [
            list(brief) for brief in pages
        ]
        assert [brief.id for brief in self.store.jobs.summaries(changed_since=seq)] == ["e"]
        assert self.store.jobs.summaries(changed_since=-1, after="e") == []
        assert [brief.id for brief in self.store.jobs.summaries(ids=["d", "a", "nobody"])] == ["a", "d"]
        assert self.store.jobs.summaries(ids=[]) == []
        assert sorted(self.store.jobs.places()) == [
            (brief.id, brief.namespace, brief.state) for brief in pages
        ]

    # ---------------------------------------------------------------- jobs that operators make

    def test_a_job_is_created_once_and_its_entry_with_it(self) -> None:
        definition = {"handler": "export", "cron": "0 3 * * *", "config": {"region": "Größe"}}
        row = replace(self.unsaved("made"), definition=definition)

        assert self.store.jobs.create(row, self.entry("made", "create")) is None
        there = self.store.jobs.create(row, self.entry("made", "create"))

        [job] = self.store.jobs.rows()
        assert there == job == replace(row, change_seq=job.change_seq)
        assert job.change_seq > 0
        [brief] = self.store.jobs.summaries(changed_since=-1)
        assert brief.definition == definition
        assert [entry.action for entry in self.audited()] == ["create"]

    def test_a_declared_job_is_in_the_way_of_one_that_is_created(self) -> None:
        job = self.job("made")

        assert self.store.jobs.create(self.unsaved("made"), self.entry("made", "create")) == job
        assert not self.audited()

    def test_a_deleted_job_makes_room_and_its_revisions_go_on(self) -> None:
        """Fails if a tick of the deleted job's schedule could be taken for one of the new job's."""
        self.store.jobs.create(self.unsaved("made"), self.entry("made", "create"))
        deleted = self.change("made", state="deleted")

        assert self.store.jobs.create(self.unsaved("made"), self.entry("made", "create")) is None

        [job] = self.store.jobs.rows()
        assert (job.state, job.schedule_rev) == ("active", deleted.schedule_rev + 1)
        assert job.definition_rev == deleted.definition_rev + 1
        assert job.change_seq > deleted.change_seq
