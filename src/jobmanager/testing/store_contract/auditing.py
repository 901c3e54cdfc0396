"""Promises about the audit: in the transaction of the change, whole, by filter and in pages, and pruned."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from jobmanager.run import FAILED, PENDING, Run, new_id
from jobmanager.stores.values import AuditEntry, Note
from jobmanager.testing.store_contract.ground import StoreGround, seconds


class AuditingPromises(StoreGround):
    """The audit."""

    def test_the_audit_is_written_with_the_change_or_not_at_all(self) -> None:
        self.job()

        with suppress(ZeroDivisionError), self.store.jobs.lock("job") as txn:
            txn.audit(self.entry("job", "pause"))
            raise ZeroDivisionError
        assert not self.audited()

        with self.store.jobs.lock("job") as txn:
            txn.audit(self.entry("job", "pause"))
        assert [entry.action for entry in self.audited()] == ["pause"]

    def test_the_audit_comes_back_whole_newest_first_and_in_pages(self) -> None:
        written = []
        for number in range(5):
            job_id, namespace = f"job-{number % 2}", "shop" if number == 4 else "default"
            written.append(self.entry(job_id, "edit", namespace=namespace, seconds_later=number))
            self.store.jobs.create(self.unsaved(f"made-{number}"), written[-1])
        ours = [replace(entry, rev=1) for entry in reversed(written[:4])]

        first = self.audited(limit=3)
        assert first == ours[:3]
        assert self.audited(before=first[-1].id) == ours[3:]
        assert self.audited(job_id="job-1") == [ours[0], ours[2]]
        assert not self.audited(namespace="nowhere")

    def test_an_entry_of_no_change_is_written_once(self) -> None:
        refused = self._of_key(by="ben", outcome="refused", reason="ben needs jobs:admin")
        for _ in range(2):
            self.store.audit.write(refused)
        assert self.audited() == [refused]

    def test_entries_are_found_by_target_actor_action_outcome_and_period(self) -> None:
        """Fails if a filter is left out, or is of another column."""
        keys = [
            self._of_key(by="ana"),
            self._of_key(by="ben", action="revoke"),
            self._of_key(outcome="refused"),
        ]
        jobs = [self.entry("job", "pause", seconds_later=10)]
        for entry in keys + jobs:
            self.store.audit.write(entry)

        assert self.audited(target="key") == keys[::-1]
        assert self.audited(target="job", target_id="job") == jobs
        assert self.audited(by="ben") == [keys[1]]
        assert self.audited(action="revoke") == [keys[1]]
        assert self.audited(outcome="refused") == [keys[2]]
        assert self.audited(since=self.now + seconds(10)) == jobs
        assert self.audited(until=self.now + seconds(10)) == keys[::-1]

    def test_a_cancel_and_its_entry_are_one(self) -> None:
        self.job()
        run = self.opened(self.run_of())

        self.store.runs.cancel(run.id, note=self._note("cancel"))
        self.store.runs.cancel(run.id)

        [entry] = self.audited()
        assert (entry.target_id, entry.before, entry.after) == (
            run.id,
            {"status": "pending"},
            {"status": "cancelled"},
        )

    def test_what_the_note_raises_undoes_the_change(self) -> None:
        def raising(_before: Run | None, _after: Run) -> AuditEntry | None:
            raise ZeroDivisionError

        self.job()
        run = self.opened(self.run_of())
        with suppress(ZeroDivisionError):
            self.store.runs.cancel(run.id, note=raising)
        assert self.row(run).status is PENDING

    def test_a_discard_and_its_entry_are_one(self) -> None:
        self.job()
        failed = self.closed(self.run_of(), FAILED)
        self.inserted(failed)

        self.store.maintenance.discard(failed.id, note=self._note("discard"))

        assert [entry.action for entry in self.audited()] == ["discard"]
        assert self.row(failed).discarded_at is not None

    def test_old_entries_of_the_namespace_are_deleted_oldest_first_in_bounded_numbers(self) -> None:
        for number in range(5):
            self.store.audit.write(self.entry(f"job-{number}", "edit", seconds_later=number))
        self.store.audit.write(self.entry("other", "edit", namespace="shop"))
        until = self.now + seconds(4)

        assert [self.store.audit.purge("default", until, 3) for _ in range(3)] == [3, 1, 0]
        assert [entry.target_id for entry in self.audited()] == ["job-4"]
        assert len(self.audited(namespace="shop")) == 1

    # ---------------------------------------------------------------- parts

    def _of_key(self, **fields: Any) -> AuditEntry:
        return AuditEntry(
            **{
                "id": new_id(self.now),
                "at": self.now,
                "namespace": "default",
                "action": "create",
                "target": "key",
                "target_id": "k1",
                "address": "10.0.0.7",
                "user_agent": "Größe",
                "request_id": "r-1",
                "batch_id": "b-1",
                **fields,
            }
        )

    def _note(self, action: str) -> Note:
        def note(before: Run | None, after: Run) -> AuditEntry | None:
            was = None if before is None else {"status": before.status.value}
            return replace(
                self.entry(after.job_id, action),
                target="run",
                target_id=after.id,
                before=was,
                after={"status": after.status.value},
            )

        return note
