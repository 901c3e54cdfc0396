"""The methods of JobManager for what the outside system has of ours: its entries, and the secret that signs its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from jobmanager.access.acting import current
from jobmanager.access.principal import ADMIN
from jobmanager.backends.base import OutsideAdmin, PurgedEntries, RawEntry
from jobmanager.errors import EntryNotFoundError, SecretConflictError
from jobmanager.ledger.audit import Auditor
from jobmanager.manager.guarding import changes, check_permission
from jobmanager.manager.parts import Parts
from jobmanager.validation.call_arguments import check_arguments, may_be_id
from jobmanager.validation.texts import naming_its_caller, shown


class Entries:
    """The methods for entries. Any thread may call them, started or not; a principal needs `jobs:admin`.

    pg_cron and the clocks that are synced have entries; elsewhere each method raises UnsupportedError. A database that cannot be reached is
    a StoreUnavailableError, another service a TickerError. Each change is in the audit: in its transaction where the database keeps the
    time, after it elsewhere.
    """

    _parts: Parts

    def entries(self) -> list[RawEntry]:
        """Return the entries of the outside system that are ours, or should be there: schedule, command, drift, orphans, and the last 24 hours.

        Sorted by name. No command or error shows a secret, and entries that are not ours are left out.
        """
        principal = current().principal
        if principal is not None:
            check_permission(principal, "entries", ADMIN)
        return self._outside(None).entries()

    @naming_its_caller
    def set_entry_active(self, name: str, active: bool, *, by: str | None = None) -> bool:  # noqa: FBT001 - set_entry_active(name, False)
        """Pause an entry, by its name or the id of its job, or let it go on; return whether that changed anything.

        A paused one stays so over every start. The entry of a job pauses or resumes the job itself. Raises EntryNotFoundError or
        JobNotFoundError for what is no entry of ours.
        """
        check_arguments(active=active)
        return self._resume_entry(name, by=by) if active else self._pause_entry(name, by=by)

    @changes(ADMIN, "pause", of="entry")
    def _pause_entry(self, name: str, *, by: str | None = None) -> bool:
        return self._set_active(name, active=False, by=by)

    @changes(ADMIN, "resume", of="entry")
    def _resume_entry(self, name: str, *, by: str | None = None) -> bool:
        return self._set_active(name, active=True, by=by)

    def _set_active(self, name: str, *, active: bool, by: str | None) -> bool:
        check_arguments(by=by)
        self._parts.check_not_disabled(f"No entry is changed: {shown(name)}")
        outside = self._outside(by)
        entry = _entry_of(outside, name)
        changed = outside.set_active(entry, active=active)
        if changed:
            self._note(outside, "resume" if active else "pause", "entry", entry, by, {"active": active})
        return changed

    @naming_its_caller
    @changes(ADMIN, "unschedule", of="entry")
    def unschedule_entry(self, name: str, *, by: str | None = None) -> None:
        """Remove an entry, by its name or the id of its job. The next start of the application adds it again if a job needs it.

        Raises EntryNotFoundError or JobNotFoundError for what is no entry of ours.
        """
        check_arguments(by=by)
        self._parts.check_not_disabled(f"No entry is removed: {shown(name)}")
        outside = self._outside(by)
        entry = _entry_of(outside, name)
        outside.unschedule(entry)
        self._note(outside, "unschedule", "entry", entry, by, {})

    @naming_its_caller
    @changes(ADMIN, "purge", of="entries")
    def purge_orphans(self, *, dry_run: bool = False, by: str | None = None) -> PurgedEntries:
        """Remove every entry of ours that no job needs, and return their names; with `dry_run` only return them. Twice is safe."""
        check_arguments(by=by, dry_run=dry_run)
        self._parts.check_not_disabled("No entry is removed")
        outside = self._outside(by)
        if dry_run:
            return PurgedEntries(removed=tuple(entry.name for entry in outside.entries() if entry.orphan))
        purged = outside.purge()
        if purged.removed or purged.failed:
            after = {"removed": list(purged.removed), "failed": list(purged.failed)}
            self._note(outside, "purge", "entries", self._parts.settings.namespace, by, after)
        return purged

    @naming_its_caller
    @changes(ADMIN, "rotate", of="secret")
    def rotate_secret(self, *, again: bool = False, by: str | None = None) -> str:
        """Make a secret that signs the calls of the outside system beside the present one, and return it; nothing shows it again.

        Both sign until `retire_secrets`, so no call is refused meanwhile. Raises SecretConflictError where there is none to replace, and
        while a rotation has not ended, unless `again`.
        """
        check_arguments(by=by, again=again)
        self._parts.check_not_disabled("No secret is made")
        outside = self._outside(by)
        signing = outside.keys()
        if signing == 0:
            raise SecretConflictError("There is no secret to replace. `jobmanager init` makes the first one.")
        if signing > 1 and not again:
            raise SecretConflictError(
                f"The last rotation was not ended: {signing} secrets sign. `jobmanager secret retire` ends it. If the newest secret was lost: "
                "`jobmanager secret rotate --again`."
            )
        return outside.new_secret(bearer=self._parts.settings.auth == "bearer")

    @naming_its_caller
    @changes(ADMIN, "retire", of="secret")
    def retire_secrets(self, *, by: str | None = None) -> int:
        """End a rotation: only the newest secret signs from now on; return how many ended. Twice is safe.

        Every process of the application must have the newest by then. Raises SecretConflictError where there is no secret.
        """
        check_arguments(by=by)
        self._parts.check_not_disabled("No secret ends")
        outside = self._outside(by)
        if outside.keys() == 0:
            raise SecretConflictError("There is no secret. `jobmanager init` makes one.")
        return outside.retire()

    def _note(
        self,
        outside: OutsideAdmin,
        action: str,
        target: str,
        target_id: str,
        by: str | None,
        after: Mapping[str, Any],
    ) -> None:
        """Audit a change that the outside system could not, since it is no database of ours."""
        if not outside.writes_audit:
            self._parts.record(action, target, target_id, by, after)

    def _outside(self, by: str | None) -> OutsideAdmin:
        auditor = self._parts.assembly.auditor
        actor = by or current().name or "code"
        return self._parts.backend.admin(actor=actor, audit=partial(audit_row, auditor, by))


def _entry_of(outside: OutsideAdmin, name: str) -> str:
    if not may_be_id(name):
        raise EntryNotFoundError(f"{shown(name)} is no name of an entry.", name=str(name))
    return outside.entry_of(name)


def audit_row(
    auditor: Auditor, by: str | None, action: str, target: str, target_id: str, **facts: Any
) -> Mapping[str, Any]:
    """Return an entry of the audit as the columns of its row, in values that JSON has."""
    entry = auditor.entry(action, target, target_id, by=by, **facts)
    return {**asdict(entry), "at": entry.at.isoformat()}
