"""Promises about API keys: one of a name, found by the digest alone, ended once, each with its entry of the audit."""

from __future__ import annotations

from typing import Any

from jobmanager.access.keys import ApiKey
from jobmanager.run import new_id
from jobmanager.stores.values import AuditEntry
from jobmanager.testing.store_contract.ground import StoreGround, seconds


class KeyPromises(StoreGround):
    """Keys."""

    def test_a_key_comes_back_whole_and_by_its_digest(self) -> None:
        key = self._key("ci", scopes=("acme",), expires_at=self.now + seconds(60), created_by="Größe")
        assert self._create(key, "d1")
        assert self.store.keys.all("default") == [key]
        assert self.store.keys.with_digest("default", "d1") == key
        assert self.store.keys.with_digest("default", "d2") is None
        assert self.store.keys.with_digest("shop", "d1") is None
        assert not self.store.keys.all("shop")
        assert [entry.action for entry in self.audited()] == ["create"]

    def test_of_keys_that_are_not_revoked_one_has_a_name(self) -> None:
        assert self._create(self._key("ci"), "d1")
        assert not self._create(self._key("ci"), "d2")
        assert self._create(self._key("ci", namespace="shop"), "d3")
        assert self._revoke("ci") is not None
        assert self._create(self._key("ci"), "d4")
        assert len(self.store.keys.all("default")) == 2
        assert [entry.action for entry in self.audited()] == ["create", "revoke", "create"]

    def test_a_key_is_revoked_once_by_name_or_id(self) -> None:
        one, two = self._key("one"), self._key("two")
        self._create(one, "d1")
        self._create(two, "d2")

        revoked = self._revoke("one")
        assert revoked is not None
        assert (revoked.name, revoked.revoked_by, revoked.revoked_at is not None) == ("one", "ana", True)
        assert self._revoke("one") is None
        assert self._revoke("unknown") is None
        assert self._revoke(two.id) is not None
        assert [key.revoked_by for key in self.store.keys.all("default")] == ["ana", "ana"]

    def test_the_last_use_is_kept(self) -> None:
        key = self._key("ci")
        self._create(key, "d1")
        self.store.keys.note_use(key.id, self.now + seconds(5))
        found = self.store.keys.with_digest("default", "d1")
        assert found is not None
        assert found.last_used_at == self.now + seconds(5)

    # ---------------------------------------------------------------- parts

    def _key(self, name: str, **fields: Any) -> ApiKey:
        return ApiKey(
            **{
                "id": new_id(self.now),
                "namespace": "default",
                "name": name,
                "permissions": ("jobs:read", "jobs:write"),
                "scopes": None,
                "hint": "jm_abcde",
                "created_at": self.now,
                **fields,
            }
        )

    def _create(self, key: ApiKey, digest: str) -> bool:
        return self.store.keys.create(key, digest, self.entry(key.name, "create", namespace=key.namespace))

    def _revoke(self, name: str) -> ApiKey | None:
        def note(key: ApiKey) -> AuditEntry:
            return self.entry(key.name, "revoke")

        return self.store.keys.revoke("default", name, by="ana", note=note)
