"""Promises about webhooks that operators make."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from jobmanager.stores.audit import AuditQuery
from jobmanager.stores.webhooks import WebhookRow
from jobmanager.testing.store_contract.ground import StoreGround, seconds


class WebhookPromises(StoreGround):
    """Promises about webhooks: what is kept, and which of two changes at once counts."""

    def test_every_field_of_a_webhook_comes_back(self) -> None:
        row = self.webhook(
            words={"url": "https://example.com/ü", "headers": {"A": "ß"}}, secrets="gAAA=", changed_by="ana"
        )

        assert self.put(row)

        found = self.store.webhooks.get("default", "hook")
        assert found is not None
        assert replace(found, change_seq=0) == row
        assert self.store.webhooks.rows("default") == [found]

    def test_webhooks_of_one_namespace_are_no_others(self) -> None:
        self.put(self.webhook())
        self.put(self.webhook(namespace="shop"))

        assert [row.namespace for row in self.store.webhooks.rows("shop")] == ["shop"]
        assert self.store.webhooks.get("elsewhere", "hook") is None

    def test_a_webhook_that_is_there_is_not_made_again(self) -> None:
        self.put(self.webhook(changed_by="ana"))

        assert not self.put(self.webhook(changed_by="bea"))

        found = self.store.webhooks.get("default", "hook")
        assert found is not None
        assert (found.changed_by, found.rev) == ("ana", 1)

    def test_of_two_edits_of_one_revision_the_first_counts(self) -> None:
        self.put(self.webhook())

        assert self.put(self.webhook(rev=2, changed_by="ana"))
        assert not self.put(self.webhook(rev=2, changed_by="bea"))
        assert not self.put(self.webhook(rev=4))
        assert not self.put(self.webhook("other", rev=2))

        assert [entry.by for entry in self.store.audit.entries(AuditQuery(namespace="default"))] == [
            "ana",
            "ana",
        ]

    def test_a_change_of_a_webhook_is_audited_with_its_revision(self) -> None:
        self.put(self.webhook())
        self.put(self.webhook(rev=2))

        assert sorted(
            entry.rev or 0 for entry in self.store.audit.entries(AuditQuery(namespace="default"))
        ) == [1, 2]

    def test_a_deleted_webhook_stays_to_be_noticed_and_makes_room(self) -> None:
        self.put(self.webhook(secrets="x"))
        before = self.store.jobs.change_seq()

        assert self.put(self.webhook(rev=2, deleted=True, words={}))

        (noticed,) = self.store.webhooks.rows("default", changed_since=before)
        assert (noticed.deleted, noticed.secrets) == (True, None)
        assert self.store.webhooks.get("default", "hook") is None
        assert self.put(self.webhook())
        again = self.store.webhooks.get("default", "hook")
        assert again is not None
        assert again.rev == 3

    def test_every_change_of_a_webhook_moves_the_counter_of_changes(self) -> None:
        first = self.store.jobs.change_seq()
        self.put(self.webhook())
        second = self.store.jobs.change_seq()

        assert second > first
        assert [row.key for row in self.store.webhooks.rows("default", changed_since=first)] == ["hook"]
        assert self.store.webhooks.rows("default", changed_since=second) == []

    def test_of_many_that_make_the_same_webhook_one_does(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: self.put(self.webhook()), range(8)))

        assert sum(made) == 1
        assert len(self.store.audit.entries(AuditQuery(namespace="default"))) == 1

    # ---------------------------------------------------------------- short words

    def webhook(self, key: str = "hook", **fields: Any) -> WebhookRow:
        """Return the row of a webhook that is not stored yet."""
        return WebhookRow(
            **{
                "namespace": "default",
                "key": key,
                "words": {"url": "https://example.com/"},
                "changed_at": self.now - seconds(0.000001),
                **fields,
            }
        )

    def put(self, row: WebhookRow) -> bool:
        """Write the row with an entry of the audit of its own."""
        return self.store.webhooks.put(row, self.entry(row.key, "edit", namespace=row.namespace))
