"""The methods of JobManager for those who answer for it: the audit, and the purge of old runs."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import get_args

from jobmanager.access.acting import current
from jobmanager.access.principal import ADMIN
from jobmanager.ledger.retention import forget_old_entries, forget_old_runs, kept
from jobmanager.manager.guarding import changes, check_permission, reads
from jobmanager.manager.operating import Seconds
from jobmanager.manager.parts import Parts
from jobmanager.stores.audit import AuditQuery
from jobmanager.stores.values import AuditEntry, Outcome, StoreFacts
from jobmanager.validation.call_arguments import check_arguments, duration_of, may_be_id, moment_of, one_of
from jobmanager.validation.texts import naming_its_caller


class Administering:
    """The methods around who did what. Any thread may call them; the first use installs an empty store."""

    _parts: Parts

    @reads
    def history(self, job_id: str, *, limit: int = 50) -> list[AuditEntry]:
        """Return who changed the job by hand, when, from what to what, newest first. Raises JobNotFoundError.

        Its runs, and what was refused, are in `audit(job=...)`.
        """
        self._parts.row(job_id, deleted=True)
        return self._entries(target="job", target_id=job_id, outcome="done", limit=limit)

    @naming_its_caller
    @reads
    def audit(
        self,
        *,
        job: str | None = None,
        target: str | None = None,
        target_id: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        outcome: Outcome | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[AuditEntry]:
        """Return what was changed by hand in this namespace, and what was refused, newest first.

        Of one job with its runs (`job`), of one kind of target (`job`, `run`, `key`, `webhook`, ...) and one id of it, by one person or
        service (`actor`), one `action`, with one `outcome` (`done` or `refused`), in [since, until). `before` is the id of the last entry of the
        previous page. A principal sees the entries of jobs whose every run it sees; all others need `jobs:admin`.
        """
        return self._entries(
            job_id=job,
            target=target,
            target_id=target_id,
            by=actor,
            action=action,
            outcome=None if outcome is None else one_of("outcome", outcome, get_args(Outcome)),
            since=None if since is None else moment_of("since", since),
            until=None if until is None else moment_of("until", until),
            before=before,
            limit=limit,
        )

    def storage(self) -> StoreFacts | None:
        """Return what the database of the record is, its version, and how large the record is in it; None before the first start.

        A principal needs `jobs:admin`. StoreUnavailableError.
        """
        principal = current().principal
        if principal is not None:
            check_permission(principal, "storage", ADMIN)
        store = self._parts.store
        return store.maintenance.facts() if store.exists() else None

    def _entries(
        self,
        *,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
        outcome: Outcome | None = None,
        **texts: str | None,
    ) -> list[AuditEntry]:
        check_arguments(limit=limit)
        if not all(may_be_id(text) for text in texts.values() if text is not None):
            return []
        wanted = AuditQuery(
            namespace=self._parts.settings.namespace,
            since=since,
            until=until,
            outcome=outcome,
            limit=limit,
            **texts,
        )
        return self._parts.ready().store.audit.entries(wanted, seen=self._parts.view())

    @naming_its_caller
    @changes(ADMIN, "purge", of="runs")
    def purge(
        self,
        *,
        older_than: Seconds | None = None,
        job: str | None = None,
        dry_run: bool = False,
        by: str | None = None,
    ) -> int:
        """Delete runs that ended longer ago than `older_than`, of one job or of all, and return how many; with `dry_run` count them.

        Without arguments it does what the retention settings say, as running processes do by themselves. With `by` it is audited.
        JobDisabledError while JOBMANAGER_DISABLED is set.
        """
        check_arguments(by=by, dry_run=dry_run)
        settings = self._parts.settings
        age = None if older_than is None else duration_of("older_than", older_than)
        self._parts.check_not_disabled("No run is deleted")
        if not self._parts.store.exists():
            return 0
        if job is not None:
            self._parts.row(job, deleted=True)
        store, now = self._parts.store, self._parts.store.now()
        if age is None and job is None:
            jobs = self._parts.registry.jobs.values()
            deleted = forget_old_runs(store, jobs, settings, now, dry_run=dry_run)
            if not dry_run:
                forget_old_entries(store, settings, now)
        elif age is None:
            purge = partial(store.maintenance.purge, job_id=job, dry_run=dry_run)
            deleted = sum(
                purge(now - length, statuses=statuses) for statuses, length in kept(settings).items()
            )
        else:
            deleted = store.maintenance.purge(now - age, job_id=job, dry_run=dry_run)
        if dry_run:
            return deleted
        facts = {
            "runs": deleted,
            "older_than_seconds": None if age is None else age.total_seconds(),
            "job": job,
        }
        self._parts.record("purge", "runs", job or settings.namespace, by, facts)
        return deleted
