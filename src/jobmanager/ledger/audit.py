"""The entries of the audit: who changed which job, and how the job differs. Secrets are hidden before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobmanager.ledger.bounding import bounded_json
from jobmanager.ledger.redaction import Redactor
from jobmanager.run import new_id
from jobmanager.stores.values import AuditEntry, JobRow

SHOWN = ("state", "state_reason", "schedule", "override", "definition")
"""The fields of a job that an entry compares; policies stand in override and definition."""


class Auditor:
    """Makes the entries of the audit. Any thread may ask."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def entry(
        self, action: str, before: JobRow | None, after: JobRow, *, by: str | None, at: datetime
    ) -> AuditEntry:
        """Return the entry of a change of a job; `before` is None for one that was just made."""
        old, new = {} if before is None else _facts(before), _facts(after)
        differs = [name for name in SHOWN if old.get(name) != new.get(name)]
        return AuditEntry(
            id=new_id(at),
            at=at,
            namespace=after.namespace,
            action=action,
            job_id=after.id,
            by=by,
            before=None if before is None else self._presentable({name: old.get(name) for name in differs}),
            after=self._presentable({name: new.get(name) for name in differs}),
            rev=after.definition_rev,
        )

    def _presentable(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        shown = bounded_json(dict(facts), hide=self._redactor.text, is_secret=self._redactor.is_secret)
        return shown if isinstance(shown, dict) else {"facts": shown}


def _facts(row: JobRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SHOWN}
