"""Promises about the outbox: written with what it tells, sent by one process at a time, at most twice, and never lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from jobmanager.access.view import View
from jobmanager.run import FAILED, SUCCEEDED, Notice, Run
from jobmanager.stores import outbox
from jobmanager.stores.audit import AuditQuery
from jobmanager.stores.outbox import Letter, Notification, NotificationState
from jobmanager.testing.store_contract.ground import StoreGround

QUIET, LEASE = timedelta(minutes=15), timedelta(minutes=1)


class NotifyingPromises(StoreGround):
    """The facet `outbox`, and notices of endings and changes."""

    def notice(self, subject: str = "run-1", event: str = "failed", **fields: Any) -> Notice:
        """Return a notice for the one address of these tests."""
        return Notice(
            **{
                "namespace": "default",
                "event": event,
                "subject": subject,
                "job_id": "job",
                "channel": "email",
                "address": "ops@example.org",
                "details": {"error": "Größe"},
                **fields,
            }
        )

    def listed(self, *states: Any) -> list[Notification]:
        """Return the notifications in these states, newest first."""
        return list(self.store.outbox.list("default", states=states))

    def claimed(
        self, *, quiet: timedelta = QUIET, lease: timedelta = LEASE, limit: int = 10
    ) -> Sequence[Letter]:
        """Return what a process gets that serves e-mail."""
        return self.store.outbox.claim("default", ["email"], quiet=quiet, lease=lease, limit=limit)

    def a_letter(self, **how: Any) -> Letter:
        """Return the one message that is to be sent."""
        [letter] = self.claimed(**how)
        return letter

    # ---------------------------------------------------------------- writing

    def test_a_notice_is_kept_once_for_each_address(self) -> None:
        again = [self.notice(), self.notice(), self.notice(address="other@example.org"), self.notice("run-2")]

        assert self.store.outbox.add(again) == 3
        assert self.store.outbox.add(again) == 0

        assert len(self.listed()) == 3
        assert self.listed("sent") == []

    def test_it_comes_back_as_it_was(self) -> None:
        self.store.outbox.add([self.notice(fold="some")])

        [found] = self.listed("waiting")

        assert (found.event, found.job_id, found.subject) == ("failed", "job", "run-1")
        assert (found.channel, found.address, found.fold) == ("email", "ops@example.org", "some")
        assert found.details == {"error": "Größe"}
        assert (
            found
            == self.store.outbox.get("default", found.id)
            == self.store.outbox.get("default", found.id[-12:])
        )
        assert self.store.outbox.get("other", found.id) is None

    def test_an_ending_writes_its_notices_in_the_same_transaction(self) -> None:
        run = self.a_run()

        assert self.ended(run, FAILED, notices=(self.notice(run.id),)) is FAILED
        assert self.ended(run, FAILED, notices=(self.notice(run.id),)) is FAILED, (
            "an identical call is harmless"
        )

        assert [found.subject for found in self.listed()] == [run.id]

    def test_an_ending_that_does_not_count_writes_none(self) -> None:
        run = self.a_run()
        self.ended(run, SUCCEEDED)

        self.ended(run, FAILED, notices=(self.notice(run.id),))

        assert self.listed() == []

    def test_an_ending_that_is_retried_writes_none(self) -> None:
        run = self.a_run(max_attempts=2)

        self.ended(run, FAILED, retry_at=self.now, notices=(self.notice(run.id),))

        assert self.listed() == []

    def test_many_endings_write_theirs(self) -> None:
        runs = [self.a_run() for _ in range(5)]
        endings = [self.ending(run, FAILED, notices=(self.notice(run.id),)) for run in runs[:4]]

        self.write([], [*endings, self.ending(runs[4])])

        assert {found.subject for found in self.listed()} == {run.id for run in runs[:4]}

    def test_the_end_of_a_dead_process_writes_what_it_is_given(self) -> None:
        self.job()
        owner = self.process()
        run = self.opened(self.run_of(owner=owner, retry_on_crash=False))
        self.store.processes.deregister(owner)

        self.store.maintenance.take_over(lambda taken: [self.notice(taken.id)])

        assert [found.subject for found in self.listed()] == [run.id]

    def test_a_change_of_a_job_writes_what_it_is_given(self) -> None:
        self.job()

        with self.store.jobs.lock("job") as txn:
            txn.notify([self.notice("since", event="paused")])

        assert [found.event for found in self.listed()] == ["paused"]

    def test_a_recovery_is_told_once_and_only_after_a_failure(self) -> None:
        recovered = self.notice("run-2", event="recovered")
        assert self.store.outbox.add([recovered]) == 0, "nothing failed before"

        self.store.outbox.add([self.notice("run-1")])

        assert self.store.outbox.add([recovered]) == 1
        assert self.store.outbox.add([self.notice("run-3", event="recovered")]) == 0, "it was told already"
        assert self.store.outbox.add([self.notice("run-4"), recovered]) == 2, "it failed again"

    def test_a_full_outbox_counts_what_it_cannot_keep(self) -> None:
        before, outbox.MOST_WAITING = outbox.MOST_WAITING, 3
        try:
            for number in range(10):
                self.store.outbox.add([self.notice(f"run-{number}")])
        finally:
            outbox.MOST_WAITING = before

        assert self.store.outbox.counts("default")["not_kept"] + len(self.listed()) - 1 == 10
        [overflow] = [found for found in self.listed() if found.event == outbox.OVERFLOW]
        assert overflow.count == self.store.outbox.counts("default")["not_kept"]

    # ---------------------------------------------------------------- claiming

    def test_one_process_gets_a_message_until_its_lease_ends(self) -> None:
        self.store.outbox.add([self.notice()])

        assert self.a_letter(lease=timedelta(0)).count == 1
        assert self.a_letter().count == 1, "the lease of the first is over"
        assert self.claimed() == []

    def test_what_belongs_together_is_one_message(self) -> None:
        self.store.outbox.add([self.notice(f"run-{number:02}") for number in range(50)])
        self.store.outbox.add(
            [self.notice(event="missed"), self.notice(job_id="other"), self.notice(fold="x", subject="y")]
        )

        letters = self.claimed()

        assert sorted(letter.count for letter in letters) == [1, 1, 1, 50]
        [many] = [letter for letter in letters if letter.count == 50]
        assert [found.subject for found in many.notifications] == [f"run-{number:02}" for number in range(20)]

    def test_other_namespaces_and_channels_are_left_alone(self) -> None:
        self.store.outbox.add([self.notice(namespace="other"), self.notice(channel="webhook")])

        assert self.claimed() == []

    def test_a_while_after_a_message_the_next_about_the_same_waits(self) -> None:
        self.store.outbox.add([self.notice()])
        self.store.outbox.note_sent(self.a_letter().id)
        self.store.outbox.add(
            [self.notice("run-2"), self.notice("run-3"), self.notice("run-4", event="missed")]
        )

        assert self.a_letter().event == "missed"
        assert [letter.count for letter in self.claimed(quiet=timedelta(0))] == []
        assert {found.due_at for found in self.listed("waiting") if found.event == "failed"} == {
            self.sent_at() + QUIET
        }

    def sent_at(self) -> Any:
        """Return when the first message was sent."""
        return min(found.sent_at for found in self.listed("sent") if found.sent_at is not None)

    # ---------------------------------------------------------------- sending

    def test_a_message_that_was_sent_is_done(self) -> None:
        self.store.outbox.add([self.notice(), self.notice("run-2")])
        letter = self.a_letter()

        assert self.store.outbox.begin_sending(letter.id, LEASE)
        self.store.outbox.note_sent(letter.id)

        assert {(found.state, found.attempts, found.message) for found in self.listed()} == {
            ("sent", 1, letter.id)
        }
        assert self.claimed(quiet=timedelta(0)) == []

    def test_who_lost_the_lease_sends_nothing(self) -> None:
        self.store.outbox.add([self.notice()])
        slow = self.a_letter(lease=timedelta(0))
        other = self.a_letter()

        assert not self.store.outbox.begin_sending(slow.id, LEASE)
        self.failed(slow)

        assert self.store.outbox.begin_sending(other.id, LEASE)
        [found] = self.listed("waiting")
        assert found.error is None

    def test_a_failed_delivery_is_tried_again_after_the_pause(self) -> None:
        self.store.outbox.add([self.notice()])

        self.failed(self.a_letter(), pauses=(timedelta(minutes=3), timedelta(0)))

        [found] = self.listed("waiting")
        assert (found.attempts, found.error) == (1, "refused")
        assert timedelta(minutes=2) < found.due_at - self.store.now() <= timedelta(minutes=3)
        assert self.claimed() == []

    def test_after_the_last_pause_it_is_dead(self) -> None:
        self.store.outbox.add([self.notice()])
        pauses = (timedelta(0), timedelta(0))

        for state in ("waiting", "waiting", "dead"):
            self.failed(self.a_letter(), pauses=pauses)
            assert [found.state for found in self.listed()] == [state]

        assert self.claimed() == []
        assert self.store.outbox.counts("default") == {"waiting": 0, "dead": 1, "not_kept": 0}

    def failed(
        self,
        letter: Letter,
        *,
        begun: bool = False,
        unsure: bool = False,
        pauses: Sequence[timedelta] = (LEASE,),
    ) -> None:
        """Note that a message could not be delivered."""
        self.store.outbox.note_failed(letter.id, "refused", pauses=pauses, begun=begun, unsure=unsure)

    def test_a_message_without_a_confirmation_is_sent_once_more_at_most(self) -> None:
        self.store.outbox.add([self.notice()])
        for _ in range(2):
            letter = self.a_letter(lease=timedelta(0))
            assert self.store.outbox.begin_sending(letter.id, timedelta(0)), "its process dies now"

        assert self.claimed() == []
        [found] = self.listed()
        assert (found.state, found.unsure) == ("dead", 2)

    def test_a_refusal_after_the_transmission_began_does_not_count_as_sent(self) -> None:
        self.store.outbox.add([self.notice()])
        letter = self.a_letter()
        self.store.outbox.begin_sending(letter.id, LEASE)

        self.failed(letter, begun=True)

        [found] = self.listed()
        assert (found.state, found.unsure) == ("waiting", 0)

    def test_an_unsure_delivery_counts_as_sent(self) -> None:
        self.store.outbox.add([self.notice()])
        letter = self.a_letter()
        self.store.outbox.begin_sending(letter.id, LEASE)

        self.failed(letter, begun=True, unsure=True)

        [found] = self.listed()
        assert (found.state, found.unsure) == ("waiting", 1)

    # ---------------------------------------------------------------- by hand

    def test_an_operator_sends_again_or_drops(self) -> None:
        self.store.outbox.add([self.notice(), self.notice("run-2")])
        letter = self.a_letter()
        self.store.outbox.note_sent(letter.id)
        first, second = self.listed()

        assert self.store.outbox.change(first.id, NotificationState.WAITING)
        assert not self.store.outbox.change(second.id, NotificationState.DROPPED), "it was sent"
        assert self.store.outbox.change(first.id, NotificationState.DROPPED)
        assert not self.store.outbox.change("nobody", NotificationState.WAITING)
        assert {found.state for found in self.listed()} == {"sent", "dropped"}

    def test_a_change_by_hand_writes_its_entry_of_the_audit(self) -> None:
        self.store.outbox.add([self.notice()])
        [found] = self.listed()
        entry = replace(self.entry("job", "drop"), target="notification", target_id=found.id)

        self.store.outbox.change("nobody", NotificationState.DROPPED, entry)
        assert self.store.audit.entries(AuditQuery(namespace="default")) == []
        self.store.outbox.change(found.id, NotificationState.DROPPED, entry)

        assert [kept.action for kept in self.store.audit.entries(AuditQuery(namespace="default"))] == ["drop"]

    def test_pages_go_back_in_time(self) -> None:
        self.store.outbox.add([self.notice(f"run-{number}") for number in range(5)])
        page = self.store.outbox.list("default", limit=3)

        rest = self.store.outbox.list("default", before=page[-1].id)

        assert len(page) == 3
        assert len({found.id for found in [*page, *rest]}) == 5
        assert self.store.outbox.list("default", job_id="other") == []

    def test_who_sees_not_all_jobs_sees_the_notifications_of_those_alone(self) -> None:
        for job_id, visibility in (("job", "team"), ("shared", "project"), ("hidden", "system")):
            self.job(job_id, visibility=visibility)
            self.store.outbox.add([self.notice(job_id=job_id)])
        self.store.outbox.add([self.notice(job_id="")])

        def shown(view: View) -> set[str]:
            found = self.store.outbox.list("default", seen=view)
            assert all(self.store.outbox.get("default", item.id, seen=view) == item for item in found)
            return {item.job_id for item in found}

        assert shown(View("default", system=True)) == {"job", "shared", "hidden", ""}
        assert shown(View("default")) == {"job", "shared"}
        assert shown(View("default", scopes=frozenset({"acme"}))) == {"job"}

    def test_what_is_over_is_purged(self) -> None:
        self.store.outbox.add([self.notice(), self.notice(event="missed")])
        self.store.outbox.change(self.listed()[0].id, NotificationState.DROPPED)

        assert self.store.outbox.purge(self.store.now() - timedelta(hours=1)) == 0
        assert self.store.outbox.purge(self.store.now() + timedelta(hours=1)) == 1
        assert len(self.listed("waiting")) == 1

    def a_run(self, **fields: Any) -> Run:
        """Return a run of a living process, running."""
        if self.store.jobs.get("job") is None:
            self.job()
        return self.opened(self.run_of(owner=self.process(), **fields))
