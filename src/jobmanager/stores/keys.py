"""The facet for API keys: made, found by the digest of their secret, revoked. No secret is ever kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime

from jobmanager.access.keys import ApiKey
from jobmanager.stores.values import AuditEntry


class StoredKeys(ABC):
    """The API keys of all namespaces."""

    @abstractmethod
    def create(self, key: ApiKey, digest: str, entry: AuditEntry) -> bool:
        """Write a key with the digest of its secret and the entry of the audit; False if a key of that name is not revoked yet."""

    @abstractmethod
    def all(self, namespace: str) -> list[ApiKey]:
        """Return the keys of a namespace, newest first, revoked ones included."""

    @abstractmethod
    def with_digest(self, namespace: str, digest: str) -> ApiKey | None:
        """Return the key whose secret has this digest, valid or not."""

    @abstractmethod
    def revoke(
        self, namespace: str, name: str, *, by: str | None, note: Callable[[ApiKey], AuditEntry]
    ) -> ApiKey | None:
        """End the key of this name, or of this id, and return it with the entry that `note` makes; None if there is none to end."""

    @abstractmethod
    def note_use(self, key_id: str, at: datetime) -> None:
        """Note when the key was used last."""
