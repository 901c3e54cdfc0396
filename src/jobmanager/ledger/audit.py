"""The entries of the audit: who changed what, from where, and how it differs. Secrets are hidden before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobmanager.access.acting import current
from jobmanager.ledger.bounding import MAX_MESSAGE, bounded_json, bounded_text
from jobmanager.ledger.redaction import Redactor
from jobmanager.run import Run, new_id
from jobmanager.stores.values import AuditEntry, JobRow, Outcome
from jobmanager.validation.printable import printable

SHOWN = ("state", "state_reason", "schedule", "override", "definition")
"""The fields of a job that an entry compares; policies stand in override and definition."""

SHOWN_OF_RUN = ("status", "reason", "cancel_requested_at", "discarded_at")
LONGEST_WORD = 500  # of an address, a request's id, or what a browser says of itself


class Auditor:
    """Makes the entries of the audit; a store writes each in the transaction of its change. Any thread may ask.

    Where a call is made for a principal, the entry has its name, unless `by` names another, and where its request came from.
    """

    def __init__(self, redactor: Redactor, *, namespace: str) -> None:
        self._redactor = redactor
        self._namespace = namespace

    def is_wanted(self, by: str | None) -> bool:
        """Return whether a change of a run is audited: only if an author is named. A start by plain code has its run as record."""
        return by is not None or current().principal is not None

    def entry(
        self,
        action: str,
        target: str,
        target_id: str,
        *,
        at: datetime,
        by: str | None = None,
        job_id: str | None = None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        rev: int | None = None,
        outcome: Outcome = "done",
        reason: str | None = None,
    ) -> AuditEntry:
        """Return the entry of a change; `target` is the kind of thing that changes, `job_id` the job that it belongs to."""
        here = current()
        return AuditEntry(
            id=new_id(at),
            at=at,
            namespace=self._namespace,
            action=action,
            target=target,
            target_id=self._word(target_id) or "",
            job_id=self._word(job_id),
            by=self._word(by or here.name),
            before=None if before is None else self._presentable(before),
            after=None if after is None else self._presentable(after),
            rev=rev,
            outcome=outcome,
            reason=None
            if reason is None
            else printable(bounded_text(reason, MAX_MESSAGE, hide=self._redactor.text)),
            address=self._word(here.address),
            user_agent=self._word(here.user_agent),
            request_id=self._word(here.request_id),
            batch_id=here.batch_id,
        )

    def of_job(
        self, action: str, before: JobRow | None, after: JobRow, *, by: str | None, at: datetime
    ) -> AuditEntry:
        """Return the entry of a change of a job; `before` is None for one that was just made."""
        old, new = {} if before is None else _facts(before, SHOWN), _facts(after, SHOWN)
        differs = [name for name in SHOWN if old.get(name) != new.get(name)]
        return self.entry(
            action,
            "job",
            after.id,
            at=at,
            by=by,
            job_id=after.id,
            before=None if before is None else {name: old.get(name) for name in differs},
            after={name: new.get(name) for name in differs},
            rev=after.definition_rev,
        )

    def of_run(
        self, action: str, before: Run | None, after: Run, *, by: str | None, at: datetime
    ) -> AuditEntry | None:
        """Return the entry of a change of a run, or of its start; None if nobody is named, or nothing changes."""
        old, new = {} if before is None else _facts(before, SHOWN_OF_RUN), _facts(after, SHOWN_OF_RUN)
        differs = [name for name in SHOWN_OF_RUN if old.get(name) != new.get(name)]
        if not differs or not self.is_wanted(by):
            return None
        return self.entry(
            action,
            "run",
            after.id,
            at=at,
            by=by,
            job_id=after.job_id,
            before=None if before is None else {name: _plain(old.get(name)) for name in differs},
            after={name: _plain(new.get(name)) for name in differs},
        )

    def _presentable(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        shown = bounded_json(dict(facts), hide=self._redactor.text, is_secret=self._redactor.is_secret)
        return shown if isinstance(shown, dict) else {"facts": shown}

    def _word(self, text: str | None) -> str | None:
        return None if text is None else printable(bounded_text(text, LONGEST_WORD, hide=self._redactor.text))


def _facts(row: JobRow | Run, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
