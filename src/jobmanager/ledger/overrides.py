"""Overrides: words of the decorator that an operator changed, kept beside the code's declaration and stronger than it.

Seeding never touches them, so a deployment does not undo what was changed at night; `reset` gives the code the word again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobmanager.errors import ConfigurationError
from jobmanager.job import (
    OF_CRON,
    OF_REPEATED,
    POLICY_OPTIONS,
    RETRY_OPTIONS,
    Job,
    cron,
    every,
    exclusion,
    last_moment,
)
from jobmanager.schedule import Cron, Dst, Every, Schedule
from jobmanager.schedule.dst import DEBIAN
from jobmanager.stores.values import JobRow
from jobmanager.validation.options import closest_name

_JOB = {name: item for name, item in POLICY_OPTIONS.items() if item.overridable}
_RETRY = {name: item for name, item in RETRY_OPTIONS.items() if item.overridable}
OVERRIDABLE = {**_JOB, **_RETRY}
"""The options that can be overridden, by name; a schedule can be as well."""
TIMINGS = ("cron", *OF_CRON, "every")
SCHEDULE_WORDS = (*TIMINGS, *OF_REPEATED)
ENDS = ("until", "max_runs")
"""The words that end a schedule: the one that an operator says takes the place of the other."""
WORDS = frozenset({*SCHEDULE_WORDS, *OVERRIDABLE})


def checked(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words as JSON, durations in seconds; ConfigurationError for one that cannot be overridden or means nothing."""
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} cannot be overridden.{closest_name(unknown[0], WORDS)} Known are {', '.join(sorted(WORDS))}."
        )
    given = [word for word in TIMINGS if words.get(word) is not None]
    if "every" in given and len(given) > 1:
        raise ConfigurationError(
            f"{' and '.join(given)} exclude each other; give cron with timezone and dst, or every."
        )
    if all(words.get(word) is not None for word in ENDS):
        raise ConfigurationError(f"{' and '.join(ENDS)} exclude each other; give one of them.")
    plain = {word: _plain(word, value) for word, value in words.items()}
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"An override is kept as JSON: {error}.") from error
    return plain


def added(before: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return earlier overrides and checked words together: of a schedule the new words hold, and None leaves one out."""
    kept = dict(before)
    if words.get("every") is not None:
        kept = {word: value for word, value in kept.items() if word not in ("cron", *OF_CRON)}
    if any(words.get(word) is not None for word in ("cron", *OF_CRON)):
        kept.pop("every", None)
    for word, other in (ENDS, ENDS[::-1]):
        if words.get(word) is not None:
            kept.pop(other, None)
    kept.update(words)
    return {word: value for word, value in kept.items() if value is not None or word not in SCHEDULE_WORDS}


def _plain(word: str, value: Any) -> Any:
    described = OVERRIDABLE.get(word)
    if described is not None:
        return described.plain(described.read(value))
    if value is None:
        return None
    if word == "every":
        return every(value).interval.total_seconds()
    match word:
        case "cron":
            return cron(value).expression
        case "until":
            return end.isoformat() if (end := last_moment(value)) else None
        case "exclude":
            return exclusion(value).text
        case "timezone":
            return cron("* * * * *", value).timezone
        case _:
            return cron("* * * * *", dst=value).dst.text


def in_force(job: Job, override: Mapping[str, Any] | None) -> Job:
    """Return the declared job with the override's words; errors are those of a declaration that says the same."""
    if not override:
        return job
    changed: dict[str, Any] = {word: override[word] for word in _JOB if word in override}
    if "config" in changed:
        changed["config"] = {**job.config, **changed["config"]}
    attempts = {word: override[word] for word in _RETRY if word in override}
    if attempts:
        changed["retry"] = replace(job.retry, **attempts)
    if override.keys() & set(SCHEDULE_WORDS):
        changed["schedule"] = _schedule(job, override)
    changed |= _end(changed.get("schedule", job.schedule), override)
    return replace(job, **changed)


def _end(schedule: Schedule | None, override: Mapping[str, Any]) -> dict[str, Any]:
    """Return what becomes of the end that the code gives, where the override gives another one."""
    if override.get("max_runs") is not None:
        return {"schedule": replace(schedule, until=None)} if isinstance(schedule, (Cron, Every)) else {}
    return {"max_runs": None} if override.get("until") is not None else {}


def said(row: JobRow, option: str) -> Any:
    """Return what a stored job says of an option that its row has no column for: the override first, then the declaration."""
    override = row.override or {}
    return override[option] if option in override else json.loads(row.declared or "{}").get(option)


def _schedule(job: Job, override: Mapping[str, Any]) -> Schedule:
    repeated = job.schedule if isinstance(job.schedule, (Cron, Every)) else None
    until = override.get("until") or (repeated.until if repeated else None)
    exclude = override.get("exclude", repeated.exclude if repeated else None)
    declared = job.schedule if isinstance(job.schedule, Cron) else None
    if override.get("every") is not None:
        return every(override["every"], until=until, exclude=exclude)
    if isinstance(job.schedule, Every) and not override.keys() & {"cron", *OF_CRON}:
        return every(job.schedule.interval, job.schedule.anchor, until, exclude)
    expression = override.get("cron") or (declared.expression if declared else None)
    if expression is None:
        word = next(word for word in (*OF_CRON, *OF_REPEATED) if override.get(word) is not None)
        owner = "cron= or every=" if word in OF_REPEATED else "cron="
        raise ConfigurationError(
            f"Job {job.id!r}: {word}={override[word]!r} belongs to {owner}, which the job has not; give cron as well."
        )
    before: tuple[str, Dst] = (declared.timezone, declared.dst) if declared else ("UTC", DEBIAN)
    zone, dst = override.get("timezone") or before[0], override.get("dst") or before[1]
    return cron(expression, zone, dst, until, exclude)
