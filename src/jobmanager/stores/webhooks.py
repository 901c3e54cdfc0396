"""The facet for webhooks that operators make, with the promises that every store gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobmanager.stores.values import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRow:
    """A stored webhook: its words as JSON, and its secrets as one encrypted text. `rev` counts its changes.

    A deleted one stays as a row without words and secrets, so that every process learns of the deletion.
    """

    namespace: str
    key: str
    words: Mapping[str, Any]
    secrets: str | None = None
    deleted: bool = False
    rev: int = 1
    changed_at: datetime
    changed_by: str | None = None
    change_seq: int = 0


class StoredWebhooks(ABC):
    """The webhooks that operators make, by namespace and key. Any thread may call any method; each is one transaction."""

    @abstractmethod
    def rows(self, namespace: str, *, changed_since: int = -1) -> list[WebhookRow]:
        """Return the webhooks of the namespace whose `change_seq` is greater, by key; deleted ones too."""

    @abstractmethod
    def get(self, namespace: str, key: str) -> WebhookRow | None:
        """Return the webhook; None if there is none, or if it is deleted."""

    @abstractmethod
    def put(self, row: WebhookRow, entry: AuditEntry) -> bool:
        """Write the webhook with the entry of the audit, if the stored one has the revision before the row's; say whether it did.

        Revision 1 is that of a new one; a deleted one makes room and goes on counting. The store's `change_seq` grows, so every
        process notices within a second. Repeating a call that succeeded changes nothing and returns False.
        """
