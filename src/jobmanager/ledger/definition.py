"""Definitions: the jobs that operators make, as words of the decorator in JSON. They name a handler by its key, never by a path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobmanager.errors import ConfigurationError
from jobmanager.job import (
    KNOWN_OPTIONS,
    OF_CRON,
    OF_REPEATED,
    POLICY_OPTIONS,
    RETRY_OPTIONS,
    SCHEDULE_WORDS,
    Job,
    Retry,
    make_job,
)
from jobmanager.ledger.overrides import added
from jobmanager.schedule import At, Cron, Every
from jobmanager.schedule.dst import DEBIAN
from jobmanager.validation.options import Option, closest_name
from jobmanager.validation.texts import shown

OF_CODE = frozenset({"enabled_when"})
WORDS = KNOWN_OPTIONS - OF_CODE
"""The options that a stored job takes: those of the decorator, but for conditions, which `enable_job` and `disable_job` replace."""
_RETRY_OF_CODE = frozenset({"retry_on", "give_up_on"})


def defined(job_id: str, handler: Any, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definition of a job as JSON: the handler's key and the words, durations in seconds; the words may come as JSON, too.

    Raises ConfigurationError or CronError for what a declaration would not accept either, and for what only code can say.
    """
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        name = unknown[0]
        if name in OF_CODE:
            raise ConfigurationError(
                f"{name}= belongs to code; use disable_job and enable_job for a stored job."
            )
        raise ConfigurationError(
            f"{name!r} is not an option.{closest_name(name, WORDS)} Known are {', '.join(sorted(WORDS))}."
        )
    if not isinstance(handler, str) or ":" in handler:
        raise ConfigurationError(
            f"handler={shown(handler)} is no handler key. A stored job names a registered handler; `jobs.handlers()` lists them."
        )
    words = {word: _read(word, value) for word, value in words.items()}
    job = make_job(job_id, handler, {**words})  # type: ignore[typeddict-item]  # just looked at
    plain = {
        "handler": handler,
        **{word: _plain(word, getattr(job, word, value)) for word, value in words.items()},
    }
    plain |= _schedule_words(job, words)
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"A stored job is kept as JSON: {error}.") from error
    return {word: value for word, value in plain.items() if value is not None}


def edited(definition: Mapping[str, Any], words: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return handler and words of a definition in which these words hold; None gives an option its default back."""
    before = dict(definition)
    handler = before.pop("handler")
    handler = words.get("handler", handler)
    given = [word for word in ("cron", "every", "at") if words.get(word) is not None]
    if given:  # another kind of schedule takes the place of the one before; a cron line keeps its zone
        kept = {"cron": {"cron", *OF_CRON, *OF_REPEATED}, "every": {*OF_REPEATED}}.get(given[0], set())
        before = {word: value for word, value in before.items() if word in kept or word not in SCHEDULE_WORDS}
    if given == ["at"]:
        before.pop("max_runs", None)
    after = added(before, {word: value for word, value in words.items() if word != "handler"})
    return handler, {word: _read(word, value) for word, value in after.items() if value is not None}


def job_of(job_id: str, definition: Mapping[str, Any]) -> Job:
    """Return the job that a definition means; errors are those of a declaration that says the same."""
    handler, words = words_of(definition)
    return make_job(job_id, handler, words)  # type: ignore[arg-type]  # checked when it was stored


def words_of(definition: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the handler's key and the words, as a declaration takes them."""
    words = {word: _read(word, value) for word, value in definition.items() if word != "handler"}
    return definition["handler"], words


def _schedule_words(job: Job, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words of the schedule that have another form in JSON."""
    plain: dict[str, Any] = {}
    match job.schedule:
        case Cron(dst=dst, until=until, exclude=exclude):
            plain = {"dst": None if dst == DEBIAN else dst.text} if "dst" in words else {}
        case Every(interval=interval, until=until, exclude=exclude):
            plain = {"every": interval.total_seconds()}
        case At(moment=moment):
            return {"at": moment.isoformat()}
        case _:
            return {}
    if "exclude" in words:
        plain["exclude"] = exclude.text or None
    return plain if until is None else {**plain, "until": until.isoformat()}


def _plain(word: str, value: Any) -> Any:
    item = POLICY_OPTIONS.get(word)
    if item is None:
        return value
    if not isinstance(value, Retry):
        return item.plain(value)
    of_code = [name for name in _RETRY_OF_CODE if getattr(value, name) != RETRY_OPTIONS[name].default]
    if of_code:
        raise ConfigurationError(f"retry: {of_code[0]}= names classes of code, which a stored job cannot.")
    return {
        name: _listed(item, getattr(value, name))
        for name, item in RETRY_OPTIONS.items()
        if getattr(value, name) != item.default
    }


def _listed(item: Option, value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else item.plain(value)


def _read(word: str, value: Any) -> Any:
    if word == "retry" and isinstance(value, Mapping):
        return Retry(**value)
    if word == "at" and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise ConfigurationError(f"at={shown(value)} is no instant; use ISO 8601 with a zone.") from None
    return value
