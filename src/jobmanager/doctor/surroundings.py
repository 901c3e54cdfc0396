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
    for name in Settings.unknown_names(environ):
        yield Finding(
            check="settings",
            level="warning",
            text=f"{name} is set but is no setting; nothing reads it.",
            fix=f"Unset {name}, or correct its name.",
        )
