"""Writes the tables of the pages from the classes: python docs/make_tables.py - a test says when that is due.

A table stands between `<!-- begin: name -->` and `<!-- end: name -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

from jobmanager.backends import BUILT_IN
from jobmanager.backends.base import Backend, Capabilities
from jobmanager.backends.resolver import load_backend_class
from jobmanager.errors import SettingsError
from jobmanager.job import POLICY_OPTIONS, RETRY_OPTIONS, Retry
from jobmanager.settings import KINDS, PREFIX, Number, Settings, Whole, Word, flag
from jobmanager.validation.kinds import OneOf
from jobmanager.validation.options import Option
from jobmanager.web.api.app import ROUTERS
from jobmanager.web.api.routing import PERMISSION

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

# A value that the field refuses: what is allowed is then told by the error itself.
REFUSED = {"environment": "prod"}


def backends() -> str:
    """Return what each backend that this version has declares."""
    here = [load_backend_class(name) for name in ("local", *(name for name in BUILT_IN if name != "local"))]
    rows = [
        (ABILITIES[item.name], *(_able(backend, item.name) for backend in here))
        for item in fields(Capabilities)
    ]
    return _table(["", *(f"`{backend.name}`" for backend in here)], rows)


def options() -> str:
    """Return what a job may say beside its schedule, and what it says by default."""
    rows = [("`name`", "the id", "a title for people"), *_described(POLICY_OPTIONS)]
    return _table(["option", "default", "meaning"], rows)


def retries() -> str:
    """Return what a Retry may say, and what it says by default."""
    return _table(["option", "default", "meaning"], _described(RETRY_OPTIONS))


def _described(options: Mapping[str, Option]) -> list[tuple[str, str, str]]:
    return [
        (f"`{name}`", _default_of(option), f"{_choices(option)}{option.help}")
        for name, option in options.items()
    ]


def settings() -> str:
    """Every setting: its variable, default, what it takes and what it means."""
    rows = [
        (
            f"`{PREFIX}{item.name.upper()}`",
            _default(item.default),
            _allowed(item.name),
            f"{item.metadata['help']}.",
        )
        for item in fields(Settings)
    ]
    return _table(["variable", "default", "takes", "meaning"], rows)


def _default_of(option: Option) -> str:
    match option.default:
        case None | Mapping() | ():
            return "none"
        case timedelta():
            return f"{option.default.total_seconds():,.0f} s"
        case Retry():
            return "`Retry()`: one attempt"
        case str():
            return f"`{json.dumps(option.default)}`"
        case (*classes,):
            return f"`({', '.join(found.__name__ for found in classes)},)`"
    return f"`{option.default}`"


def _choices(option: Option) -> str:
    """Return the words an option takes."""
    if not isinstance(option.kind, OneOf):
        return ""
    return f"{', '.join(f'`{json.dumps(word)}`' for word in option.kind.words)}: "


def routes() -> str:
    """Return every route of the API, its permission and what it does."""
    rows = [
        (
            f"`{' '.join(route.methods)} {route.path}`",
            f"`{route.openapi_extra[PERMISSION]}`",
            route.description.partition("\n")[0],
        )
        for router in ROUTERS
        for route in router.routes
    ]
    return _table(("route", "permission", "what it does"), rows)


TABLES: dict[str, tuple[Callable[[], str], tuple[str, ...]]] = {
    "backends": (backends, ("README.md", "docs/backends.md")),
    "options": (options, ("docs/concepts.md",)),
    "retries": (retries, ("docs/concepts.md",)),
    "settings": (settings, ("docs/reference/settings.md",)),
    "routes": (routes, ("docs/howto/api.md",)),
}


def written(page: str, text: str) -> str:
    """Return the text of a page with its tables as the classes are now."""
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


def _default(value: object) -> str:
    if value is None:
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _allowed(name: str) -> str:
    match KINDS[name]:
        case Word() as kind:
            return " or ".join(f"`{word}`" for word in kind.words)
        case Whole() as kind:
            return f"a whole number, 1 to {kind.high:,}"
        case Number() as kind:
            return f"seconds, {'from 0' if kind.zero else 'more than 0'}, at most {kind.high:,.0f}"
        case kind if kind is flag:
            return "true or false"
    try:
        Settings(**{name: REFUSED.get(name, "-")})
    except SettingsError as error:
        told = re.search(r"cannot be used: give (.*)\.$", str(error))
        return told[1] if told else str(error)
    return "text"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    for name in sorted({page for _, pages in TABLES.values() for page in pages}):
        path = ROOT / name
        path.write_text(written(name, path.read_text(encoding="utf-8")), encoding="utf-8")
