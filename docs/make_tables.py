"""Writes the tables of the pages from the classes: python docs/make_tables.py - a test says when that is due.

A table stands between `<!-- begin: name -->` and `<!-- end: name -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jobmanager.backends import BUILT_IN
from jobmanager.backends.base import Backend, Capabilities
from jobmanager.backends.resolver import load_backend_class
from jobmanager.errors import SettingsError, UnsupportedError
from jobmanager.job import Job, Retry
from jobmanager.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]

# What each capability is called for somebody who chooses; a new one without a name here is a KeyError.
ABILITIES = {
    "keeps_time": "keeps the time",
    "executes_in_process": "runs handlers in the process that calls `start()`",
    "smallest_interval": "smallest interval",
    "per_job_timezone": "a time zone per job",
    "several_processes": "any number of processes on one store",
    "survives_restart": "goes on while no process of yours lives",
}

# What each option of a job means; a new one without a line here is a KeyError.
OPTIONS = {
    "name": "a title for people",
    "config": "arguments for every run; the payload of a start by hand overrides them",
    "retry": "when another attempt follows, see [retries](#retries)",
    "timeout": "how long an attempt may take, see [ending early](#ending-early)",
    "overlap": "what becomes of a start while a run of the job is active, see [overlap](#overlap)",
    "queue_cap": 'how many may wait under `overlap="queue_all"`',
    "catch_up": "what becomes of instants nobody rang for, see [late and missed](#late-and-missed-instants)",
    "catch_up_cap": 'how many instants `catch_up="all"` runs at most, the newest ones',
    "catch_up_window": "how far back `catch_up` looks",
    "start_deadline": "a tick that could not start so long after its instant is missed (deadline)",
    "jitter": "a tick starts up to so much later; how much depends on job and instant alone, so all processes agree",
    "pause_after_failures": "so many failed runs in a row pause the job",
    "isolation": 'where the handler runs: `"process"` is a child process of its own, see [isolation](#isolation)',
    "memory_limit": "MiB that an isolated handler may take on top of what its process has when it is called (Linux)",
    "enabled_when": "a bool, a function, or the name of a variable that must be true; otherwise the job is disabled",
    "priority": "which pending run is taken first, the higher one; it interrupts nobody",
    "queue": "the queue of the workers that take its runs, where a backend has queues (celery); elsewhere every process takes them",
    "locale": "what `context.locale` says, unless the payload has a `locale`; without either `en`",
    "notify_on_failure": "kept with the job; nothing reads it yet",
    "visibility": "kept with the job; nothing reads it yet",
    "retention": "its runs are purged that long after their end; otherwise `JOBMANAGER_RETENTION_DAYS` holds",
    "keep_runs": "so many of its ended runs are kept at most, the newest ones",
}

# A value that the field refuses: what is allowed is then told by the error itself.
REFUSED = {"environment": "prod"}


def backends() -> str:
    """What each backend that this version has declares."""
    here = [load_backend_class(name) for name in ("local", *(name for name in BUILT_IN if name != "local"))]
    rows = [
        (ABILITIES[item.name], *(_able(backend, item.name) for backend in here))
        for item in fields(Capabilities)
    ]
    return _table(["", *(f"`{backend.name}`" for backend in here)], rows)


def options() -> str:
    """What a job may say beside its schedule, and what it says by default."""
    plain = {item.name: item for item in fields(Job(id="x", name="x", handler="x"))}
    rows = [
        (f"`{name}`", _told(name, plain[name].default), _choices(name) + meaning)
        for name, meaning in OPTIONS.items()
    ]
    missing = plain.keys() - OPTIONS.keys() - {"id", "handler", "schedule"}
    if missing:
        raise KeyError(f"OPTIONS says nothing about {sorted(missing)}")
    return _table(["option", "default", "meaning"], rows)


def settings() -> str:
    """Every setting: its variable, default, what it takes and what it means."""
    rows = [
        (f"`{PREFIX}{name.upper()}`", _default(name), _allowed(name), f"{field.description}.")
        for name, field in Settings.model_fields.items()
    ]
    return _table(["variable", "default", "takes", "meaning"], rows)


def _told(name: str, default: object) -> str:
    if name == "name":
        return "the id"
    if isinstance(default, timedelta):
        return f"{default.total_seconds():,.0f} s"
    if isinstance(default, Retry):
        return "`Retry()`: one attempt"
    if default is None or default is MISSING:
        return "none"
    return f"`{json.dumps(default)}`" if isinstance(default, str) else f"`{default}`"


def _choices(name: str) -> str:
    """The words an option takes in this version, and those that come later."""
    words = [word for word in get_args(get_type_hints(Job)[name]) if isinstance(word, str)]
    if not words:
        return ""
    here = [word for word in words if _is_taken(name, word)]
    later = [word for word in words if word not in here]
    text = ", ".join(f'`"{word}"`' for word in here)
    if later:
        text += f" ({', '.join(f'`{json.dumps(word)}`' for word in later)} in a later version)"
    return f"{text}: "


def _is_taken(name: str, word: str) -> bool:
    values: dict[str, Any] = {name: word}
    try:
        Job(id="x", name="x", handler="x", **values)
    except UnsupportedError:
        return False
    return True


TABLES: dict[str, tuple[Callable[[], str], tuple[str, ...]]] = {
    "backends": (backends, ("README.md", "docs/backends.md")),
    "options": (options, ("docs/concepts.md",)),
    "settings": (settings, ("docs/reference/settings.md",)),
}


def written(page: str, text: str) -> str:
    """The text of a page with its tables as the classes are now."""
    for name, (make, pages) in TABLES.items():
        if page in pages:
            begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
            before, _, rest = text.partition(begin)
            _, found, after = rest.partition(end)
            if not found:
                raise SystemExit(f"{page} has no place for the table {name!r}: {begin} ... {end}")
            text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


def _able(backend: type[Backend], ability: str) -> str:
    value = getattr(backend.capabilities, ability)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    return "yes" if value else "no"


def _default(name: str) -> str:
    value = Settings.model_fields[name].default
    if value is None:
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _allowed(name: str) -> str:
    field = Settings.model_fields[name]
    if field.annotation is bool:
        return "true or false"
    if choices := [choice for choice in get_args(field.annotation) if isinstance(choice, str)]:
        return " or ".join(f"`{choice}`" for choice in choices)
    if field.annotation in (int, float):
        return _range(field.annotation, field.metadata)
    try:
        Settings(**{name: REFUSED.get(name, "-")})
    except SettingsError as error:
        told = re.search(r"cannot be used: give (.*)\.$", str(error))
        return told[1] if told else str(error)
    return "text"


def _range(kind: type, limits: Iterable[object]) -> str:
    low = next((limit.ge for limit in limits if hasattr(limit, "ge")), None)
    high = next((f"{limit.le:,.0f}" for limit in limits if hasattr(limit, "le")), "")
    if kind is int:
        return f"a whole number, {1 if low is None else low} to {high}"
    return f"seconds, {'more than 0' if low is None else f'from {low:g}'}, at most {high}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    for name in sorted({page for _, pages in TABLES.values() for page in pages}):
        path = ROOT / name
        path.write_text(written(name, path.read_text(encoding="utf-8")), encoding="utf-8")
