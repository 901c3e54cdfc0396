"""What an operator tuned: words of the decorator, kept beside the code's declaration and stronger than it.

Seeding never touches them, so a deployment does not undo what was changed at night; `reset` gives the code the word again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from jobmanager.errors import ConfigurationError
from jobmanager.job import Job
from jobmanager.schedule import Cron, Every, Schedule

DURATIONS = ("timeout", "catch_up_window", "start_deadline", "jitter")
PLAIN = ("overlap", "queue_cap", "catch_up", "catch_up_cap", "pause_after_failures", "priority")
WORDS = frozenset({"cron", "timezone", "every", "config", "max_attempts", *DURATIONS, *PLAIN})


def checked(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words as JSON: durations in seconds. ConfigurationError for one that cannot be overridden."""
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} cannot be overridden. Known are {', '.join(sorted(WORDS))}."
        )
    if words.get("cron") is not None and words.get("every") is not None:
        raise ConfigurationError("Give cron or every, not both.")
    plain = {word: _seconds(value) for word, value in words.items()}
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"An override is kept as JSON: {error}.") from error
    return plain


def in_force(job: Job, override: Mapping[str, Any] | None) -> Job:
    """The declared job with the override's words; errors are those of a declaration that says the same."""
    if not override:
        return job
    changed: dict[str, Any] = {word: override[word] for word in PLAIN if word in override}
    for word in DURATIONS:
        if word in override:
            changed[word] = None if override[word] is None else timedelta(seconds=override[word])
    if "config" in override:
        changed["config"] = {**job.config, **override["config"]}
    if "max_attempts" in override:
        changed["retry"] = replace(job.retry, max_attempts=override["max_attempts"])
    if {"cron", "every", "timezone"} & override.keys():
        changed["schedule"] = _schedule(job, override)
    return replace(job, **changed)


def _schedule(job: Job, override: Mapping[str, Any]) -> Schedule:
    declared = job.schedule if isinstance(job.schedule, Cron) else None
    if override.get("every") is not None:
        return Every(override["every"])
    expression = override.get("cron") or (declared.expression if declared else None)
    if expression is None:
        raise ConfigurationError(f"Job {job.id!r} has no cron expression that a timezone could apply to.")
    return Cron(expression, timezone=override.get("timezone") or (declared.timezone if declared else "UTC"))


def _seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value
