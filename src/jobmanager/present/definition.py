"""The definition of a job line by line: what the code declares, and what was overridden, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobmanager.ledger.job_view import JobView, view_of
from jobmanager.present.jobs import policies_in_words
from jobmanager.present.phrases import compact
from jobmanager.present.preview import schedule_text

if TYPE_CHECKING:
    from jobmanager.job import Job
    from jobmanager.stores.values import AuditEntry

NAMES: Mapping[str, str] = {
    "retry": "Retries",
    "catch_up": "Catch-up",
    "max_attempts": "Attempts",
    "cron": "schedule",
    "every": "schedule",
    "timezone": "time zone",
    "dst": "clock changes",
    "exclude": "excluded",
}
EMPTY = ("", "[]", "{}", "none")
_DONE: Mapping[str, str] = {
    "pause": "paused it",
    "resume": "resumed it",
    "disable": "disabled it",
    "enable": "enabled it",
    "delete": "deleted it",
    "create": "made it",
    "reset": "took the override back",
    "trigger": "started it",
    "backfill": "backfilled a stretch",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One fact of a definition: as declared, and as overridden, None where it is not; `code` is what was written, if that is shorter."""

    name: str
    declared: str
    override: str | None = None
    declared_code: str = ""
    override_code: str = ""


def definition_lines(
    view: JobView, declared: Job | None, config: Mapping[str, Any], now: datetime
) -> list[Line]:
    """Return the lines of a job's definition; `declared` is what this code declares, `config` the job's arguments without secrets."""
    overridden = view.row is not None and bool(view.row.override) and declared is not None
    # A row without its override: what the code says of itself.
    before = view_of(declared, None, (), now) if overridden and declared is not None else view
    lines = [_schedule(before, view)]
    then, held = dict(policies_in_words(before)), dict(policies_in_words(view))
    for name in dict.fromkeys([*then, *held]):
        told, override = then.get(name, ""), held.get(name, "")
        if told in EMPTY and override in EMPTY and name != "timeout":
            continue
        label = NAMES.get(name, name.replace("_", " ").capitalize())
        lines.append(Line(label, told or "none", (override or "none") if told != override else None))
    arguments = compact(dict(config)) if config else "none"
    was = (
        compact(dict(declared.config))
        if overridden and declared is not None and declared.config
        else arguments
    )
    changed = overridden and "config" in (view.row.override or {} if view.row else {})
    lines.append(
        Line("Arguments", was if changed else arguments, arguments if changed and was != arguments else None)
    )
    return lines


def _schedule(before: JobView, now: JobView) -> Line:
    was, code = before.words, schedule_text(before.schedule)
    if before.schedule == now.schedule:
        return Line("Schedule", was, None, code)
    return Line("Schedule", was, now.words, code, schedule_text(now.schedule))


def told_change(entry: AuditEntry) -> str:
    """Return what an entry of the audit of a job says its author did: `changed schedule and config`."""
    if entry.action in _DONE:
        return _DONE[entry.action]
    before, after = dict(entry.before or {}), dict(entry.after or {})
    words: list[str] = []
    for name in ("override", "definition"):
        old, new = before.get(name) or {}, after.get(name) or {}
        changed = [word for word in {**old, **new} if old.get(word) != new.get(word)]
        words += [NAMES.get(word, word.replace("_", " ")).lower() for word in changed]
    told = list(dict.fromkeys(words))
    if not told:
        return entry.action
    return f"changed {', '.join(told[:-1])}{' and ' if len(told) > 1 else ''}{told[-1]}"
