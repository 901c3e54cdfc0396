"""The methods of JobManager for API keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from jobmanager.access.acting import current
from jobmanager.access.keys import SHOWN, ApiKey, digest_of, is_secret, new_secret
from jobmanager.access.principal import ADMIN, DANGEROUS, READ, WRITE, Principal
from jobmanager.errors import ConfigurationError, KeyNotFoundError, PermissionDeniedError, StoreError
from jobmanager.manager.guarding import changes, check_permission
from jobmanager.manager.parts import Parts
from jobmanager.run import new_id
from jobmanager.stores.values import AuditEntry
from jobmanager.validation.call_arguments import check_arguments, may_be_id, moment_of, text_of
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import Located, naming_its_caller, shown

logger = get_logger(__name__)

USED_AGAIN = timedelta(minutes=1)
"""A key's last use is written no more often."""


class Keys:
    """The methods for API keys. Any thread may call them; the first use installs an empty store."""

    _parts: Parts

    @naming_its_caller
    @changes(ADMIN, "create", of="key")
    def create_key(
        self,
        name: str,
        *,
        permissions: Collection[str] = (READ, WRITE),
        scopes: Collection[str] | None = None,
        expires: datetime | None = None,
        by: str | None = None,
    ) -> str:
        """Make an API key and return its secret, which is shown this once: the store keeps a hash of it.

        Its holder is the principal `key:NAME` with these permissions, or roles, and scopes, until `expires`. A principal gives no
        permission and no scope that it lacks; `jobs:dangerous` is given by persons who have logged in. Raises ConfigurationError for a
        name that is taken by a key which is not revoked.
        """
        with Located(f"Key {shown(name)}"):
            check_arguments(by=by)
            name = text_of("name", name, 500)
            ends = None if expires is None else moment_of("expires", expires)
            holder = Principal(f"key:{name}", permissions, scopes=scopes)
        self._parts.check_not_disabled(f"Key {shown(name)} is not made")
        _check_grant(holder)
        secret, store = new_secret(), self._parts.ready().store
        now = store.now()
        key = ApiKey(
            id=new_id(now),
            namespace=self._parts.settings.namespace,
            name=name,
            permissions=tuple(sorted(holder.permissions)),
            scopes=None if holder.scopes is None else tuple(sorted(holder.scopes)),
            hint=secret[:SHOWN],
            created_at=now,
            created_by=by,
            expires_at=ends,
        )
        if not store.keys.create(key, digest_of(secret), self._entry("create", key, now, by)):
            raise ConfigurationError(f"Key {name!r} exists. Revoke it first, or choose another name.")
        return secret

    @changes(ADMIN, "revoke", of="key")
    def revoke_key(self, name: str, *, by: str | None = None) -> ApiKey:
        """End the key of this name, or of this id, at once, and return it. KeyNotFoundError if there is none, or it was revoked before."""
        check_arguments(by=by)
        self._parts.check_not_disabled(f"Key {shown(name)} is not revoked")
        store, namespace = self._parts.ready().store, self._parts.settings.namespace
        now = store.now()
        key = None
        if may_be_id(name):
            key = store.keys.revoke(
                namespace, name, by=by, note=lambda key: self._entry("revoke", key, now, by)
            )
        if key is None:
            raise KeyNotFoundError(
                f"No key {shown(name)} that is not revoked. `jobmanager keys list` shows them.",
                name=str(name),
            )
        return key

    def keys(self) -> list[ApiKey]:
        """Return the keys of the namespace, newest first, revoked ones included; a principal needs `jobs:admin`."""
        principal = current().principal
        if principal is not None:
            check_permission(principal, "keys", ADMIN)
        return self._parts.ready().store.keys.all(self._parts.settings.namespace)

    def principal_of_key(self, secret: str) -> Principal | None:
        """Return the principal of the key with this secret; None for one that is unknown, revoked or past its end.

        One read of the store, and at most one write a minute, which notes the use. Raises StoreUnavailableError.
        """
        if not is_secret(secret) or not self._parts.store.exists():
            return None
        store = self._parts.store
        key = store.keys.with_digest(self._parts.settings.namespace, digest_of(secret))
        now = store.now()
        if key is None or not key.is_valid(now):
            return None
        if (
            key.last_used_at is None or now - key.last_used_at >= USED_AGAIN
        ) and not self._parts.settings.disabled:
            try:
                store.keys.note_use(key.id, now)
            except StoreError as error:
                logger.warning("key=%s its use is not noted: %s", key.name, error)
        return key.principal

    def _entry(self, action: str, key: ApiKey, now: datetime, by: str | None) -> AuditEntry:
        facts = {
            "permissions": list(key.permissions),
            "scopes": None if key.scopes is None else list(key.scopes),
            "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        }
        before, after = (None, facts) if action == "create" else ({"revoked": False}, {"revoked": True})
        return self._parts.assembly.auditor.entry(
            action, "key", key.name, at=now, by=by, before=before, after=after
        )


def _check_grant(holder: Principal) -> None:
    """Raise PermissionDeniedError if the key could do or see more than the principal that makes it."""
    principal = current().principal
    if principal is None:
        return
    may = {*principal.permissions, *([DANGEROUS] if principal.authenticated_at is not None else [])}
    lacking = sorted(holder.permissions - may)
    wider = principal.scopes is not None and (
        holder.scopes is None or not set(holder.scopes) <= set(principal.scopes)
    )
    if lacking or wider:
        what = lacking[0] if lacking else "a wider scope"
        raise PermissionDeniedError(
            f"create: {shown(principal.name)} cannot give a key {what}, which it lacks.",
            action="create",
            principal=principal.name,
            permission=lacking[0] if lacking else "scope",
        )
