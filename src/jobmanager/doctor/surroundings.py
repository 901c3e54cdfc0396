"""What can be checked without an application: the installation and the `JOBMANAGER_*` variables."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from jobmanager import __version__
from jobmanager.doctor.finding import Finding
from jobmanager.settings import KINDS, Settings

OLD_DISTRIBUTION = "jobmanager"

# What other systems call what is a setting here.
KNOWN_ELSEWHERE = {
    "TRIGGER_DEV_API_KEY": "JOBMANAGER_TRIGGER_DEV_API_KEY",
    "TRIGGER_DEV_API_URL": "JOBMANAGER_TRIGGER_DEV_API_URL",
    "TRIGGER_DEV_ENABLED": "JOBMANAGER_TRIGGER_DEV_ENABLED",
    "TRIGGER_DEV_ENVIRONMENT": "JOBMANAGER_ENVIRONMENT",
    "DISABLE_AUTO_SYNC": "JOBMANAGER_DISABLED",
    "QSTASH_TOKEN": "JOBMANAGER_QSTASH_TOKEN",
    "QSTASH_URL": "JOBMANAGER_QSTASH_URL",
    "QSTASH_CURRENT_SIGNING_KEY": "JOBMANAGER_QSTASH_CURRENT_SIGNING_KEY",
    "QSTASH_NEXT_SIGNING_KEY": "JOBMANAGER_QSTASH_NEXT_SIGNING_KEY",
}


def installation() -> Iterator[Finding]:
    """Yield the versions, and whether an unrelated distribution overwrote our files."""
    yield Finding(
        check="installation",
        level="ok",
        text=f"jobmanager {__version__}, Python {sys.version.partition(' ')[0]}, SQLite {sqlite3.sqlite_version}",
    )
    try:
        old = version(OLD_DISTRIBUTION)
    except PackageNotFoundError:
        return
    yield Finding(
        check="installation",
        level="failing",
        text=f"The unrelated distribution {OLD_DISTRIBUTION} {old} is installed; its files overwrite ours.",
        fix="pip uninstall jobmanager, then pip install --force-reinstall jobmanager-backends",
    )


def settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check that the environment can be read, and that no name in it is mistyped."""
    settings = Settings.from_env(environ)
    ours = sorted(name for name in environ if name.startswith("JOBMANAGER_") and environ[name])
    known = [name for name in ours if name.removeprefix("JOBMANAGER_").lower() in KINDS]
    shown = settings.shown()
    told = ", ".join(f"{name}={shown[name.removeprefix('JOBMANAGER_').lower()]}" for name in known)
    yield Finding(
        check="settings", level="ok", text=told or "no JOBMANAGER_* variable is set; the defaults hold"
    )
    for name, setting in KNOWN_ELSEWHERE.items():
        if environ.get(name) and not environ.get(setting):
            yield Finding(
                check="settings",
                level="note",
                text=f"{name} is set and is not read here; jobmanager reads {setting}.",
            )
    for name in Settings.unknown_names(environ):
        yield Finding(
            check="settings",
            level="warning",
            text=f"{name} is set but is no setting; nothing reads it.",
            fix=f"Unset {name}, or correct its name.",
        )
