"""Reading of `settings.JOBMANAGER`: fields of Settings in any case, and the options of this integration. Variables of the environment win."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from django.conf import settings as django_settings
from django.db import connections
from django.utils.module_loading import import_string

from jobmanager.errors import ConfigurationError, SettingsError
from jobmanager.execution.around import Around
from jobmanager.settings import KINDS, PREFIX, Settings

OPTIONS = ("database", "module", "autostart", "migrate_with_django", "around", "time_zone")
_OF_LIBPQ = ("ssl", "gss", "krb", "channel_binding", "connect_timeout", "keepalives", "options", "passfile", "service",
             "target_session_attrs", "tcp_user_timeout")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The settings of the manager, and how it lives in this project.

    `database` is the alias whose database keeps the record, None where a URL says it. `module` is what is looked for in each application.
    """

    settings: Settings
    database: str | None
    module: str = "jobs"
    autostart: bool = False
    migrate_with_django: bool = False
    around: tuple[Around, ...] = ()
    time_zone: str | None = None


class UnknownKeyError(SettingsError):
    """A key of `settings.JOBMANAGER` is neither a setting nor an option."""


def read() -> Configuration:
    """Read `settings.JOBMANAGER`; ConfigurationError for what cannot be used."""
    given = _given(getattr(django_settings, "JOBMANAGER", {}))
    options = {name: given.pop(name) for name in OPTIONS if name in given}
    alias = options.pop("database", "default")
    of_url = "database_url" in given or os.environ.get(f"{PREFIX}DATABASE_URL", "").strip()
    database = None if of_url or alias is None or not _is_configured(alias) else alias
    if database is not None:
        given["database_url"] = url_of(database)
    around = tuple(
        import_string(each) if isinstance(each, str) else each for each in options.pop("around", ())
    )
    return Configuration(
        settings=Settings.from_env(defaults=given), database=database, around=around, **options
    )


def _given(declared: Any) -> dict[str, Any]:
    if not isinstance(declared, Mapping):
        raise SettingsError("settings.JOBMANAGER is no mapping of names to values.", name="JOBMANAGER")
    given = {str(key).lower().removeprefix(PREFIX.lower()): value for key, value in declared.items()}
    known = [*KINDS, *OPTIONS]
    for name in given:
        if name not in known:
            meant = next(iter(get_close_matches(name, known, n=1)), None)
            told = f"settings.JOBMANAGER[{name.upper()!r}] is not a setting."
            told += f" Did you mean {meant.upper()!r}?" if meant else ""
            raise UnknownKeyError(told, name=name.upper())
    return given


def _is_configured(alias: str) -> bool:
    """Return False for the dummy engine of a project without databases; raises for an alias that does not exist."""
    if alias not in connections:
        raise ConfigurationError(
            f"settings.JOBMANAGER['DATABASE'] is {alias!r}, and DATABASES has {', '.join(connections)}. Name one of those."
        )
    return bool(connections[alias].settings_dict["ENGINE"] != "django.db.backends.dummy")


def url_of(alias: str) -> str:
    """Return the URL of the store beside a database of Django, as that is now: a test runner may have put another in its place.

    SQLite: a file of our own in the same folder, since two writers of one file block each other. PostgreSQL: the same database, in a
    schema of our own. ConfigurationError for other databases.
    """
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return _beside(str(connection.settings_dict["NAME"]))
    if connection.vendor == "postgresql":
        return _postgresql(connection.settings_dict)
    raise ConfigurationError(
        f"The record cannot be kept in DATABASES[{alias!r}], which is {connection.vendor}. Give JOBMANAGER['DATABASE_URL'], "
        "such as 'sqlite:///jobs.db', or the alias of a PostgreSQL or SQLite database as JOBMANAGER['DATABASE']."
    )


def _beside(name: str) -> str:
    if name == ":memory:" or "mode=memory" in name:
        return "memory://"
    path = Path(name.removeprefix("file:").partition("?")[0]).absolute()
    own = "test_jobmanager.db" if path.name.startswith("test_") else "jobmanager.db"
    return f"sqlite:///{quote(str(path.with_name(own)))}"


def _postgresql(of_django: Mapping[str, Any]) -> str:
    options = of_django.get("OPTIONS") or {}
    query = {key: str(value) for key, value in options.items() if str(key).startswith(_OF_LIBPQ)}
    host, port = str(of_django.get("HOST") or ""), str(of_django.get("PORT") or "")
    if host.startswith("/") or not host:
        query |= {"host": host} if host else {}
        query |= {"port": port} if port else {}
        host = port = ""
    user, password = (
        quote(str(of_django.get("USER") or ""), ""),
        quote(str(of_django.get("PASSWORD") or ""), ""),
    )
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    place = f"{host}:{port}" if port else host
    name = quote(str(of_django.get("NAME") or ""), "")
    return f"postgresql://{login}{place}/{name}" + (f"?{urlencode(query)}" if query else "")
