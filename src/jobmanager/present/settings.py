"""The settings as people read them: each with its value, where that came from, and what it means. Of secrets only whether they are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from jobmanager.errors import SettingsError
from jobmanager.settings import HIDDEN, PREFIX, Settings

Source = Literal["default", "environment", "code"]


@dataclass(frozen=True)
class ShownSetting:
    """One setting: its variable, its value in words, where it came from, and its meaning."""

    name: str
    variable: str
    value: str
    source: Source
    meaning: str
    is_secret: bool


def shown_settings(settings: Settings, environ: Mapping[str, str]) -> list[ShownSetting]:
    """Return every setting, those that differ from their default first.

    The source is `environment` if the variable says the same, and else `code` where it is not the default.
    """
    shown, by_variables, by_default = settings.shown(), _read(environ), Settings()
    rows = []
    for described in fields(Settings):
        name, variable = described.name, PREFIX + described.name.upper()
        value = getattr(settings, name)
        source: Source = "code"
        if variable in environ and by_variables is not None and getattr(by_variables, name) == value:
            source = "environment"
        elif value == getattr(by_default, name):
            source = "default"
        is_secret = shown[name] == HIDDEN
        rows.append(
            ShownSetting(
                name=name,
                variable=variable,
                value="set" if is_secret else _in_words(shown[name]),
                source=source,
                meaning=described.metadata["help"],
                is_secret=is_secret,
            )
        )
    return sorted(rows, key=lambda row: row.source == "default")


def _read(environ: Mapping[str, str]) -> Settings | None:
    try:
        return Settings.from_env(environ)
    except SettingsError:  # of another process's variables, which this one was not started with
        return None


def _in_words(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
