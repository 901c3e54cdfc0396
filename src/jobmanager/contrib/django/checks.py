"""Django's system checks: what is wrong with the configuration, before something depends on it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.urls import NoReverseMatch, reverse
from django.urls.exceptions import Resolver404

from jobmanager.backends.resolver import resolve
from jobmanager.contrib.django.configuration import UnknownKeyError
from jobmanager.contrib.django.current import configured, current
from jobmanager.errors import ConfigurationError, StoreError
from jobmanager.stores.sql.store import SqlStore

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "fuse.glusterfs"}


def register() -> None:
    """Register the checks with Django; twice is once."""
    checks.register(check_configuration)
    checks.register(check_tables, checks.Tags.database)


def check_configuration(**_: object) -> list[Any]:
    """Return what is wrong with the settings, the driver, the mount and the file."""
    try:
        read = configured()
        resolution = resolve(read.settings)
    except UnknownKeyError as error:
        return [_error(2, error)]
    except ConfigurationError as error:
        return [_error(1, error)]
    found: list[Any] = []
    if read.settings.database_url.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        found.append(
            _error(
                3,
                "The record is kept in PostgreSQL, which needs the package psycopg.",
                "Install jobmanager-backends[postgres].",
            )
        )
    if _endpoint() is not None and not read.settings.secrets:
        found.append(
            _error(
                4,
                "The endpoint is mounted and there is no secret: it refuses every call.",
                "Set JOBMANAGER_SECRET, as `openssl rand -base64 32` prints it.",
            )
        )
    if (path := read.settings.database_path) is not None and _is_on_network(path):
        found.append(
            _error(
                5,
                f"The record is kept in {path}, on a network file system, where SQLite loses data.",
                "Keep it on a local disk, or in PostgreSQL.",
            )
        )
    found += [
        _warning(
            1,
            f"backend={rejected.backend} is configured, too: {rejected.reason}",
            "Set JOBMANAGER_BACKEND to the one that is meant.",
        )
        for rejected in resolution.rejected
        if rejected.configured and not rejected.reason.startswith("configured in part")
    ]
    return [*found, *_redirects()]


def check_tables(databases: Sequence[str] | None = None, **_: object) -> list[Any]:
    """Return whether the tables of the record are of another version, with `check --database`."""
    try:
        read = configured()
    except ConfigurationError:
        return []  # said by the other
    if not databases or (read.database or "default") not in databases:
        return []
    try:
        store = current().store
        if not isinstance(store, SqlStore) or not store.exists() or store.schema.is_current():
            return []
        found = store.schema.version()
    except StoreError as error:
        return [_warning(3, f"The tables of jobmanager cannot be looked at: {error}", None)]
    return [
        _warning(
            3, f"The tables of jobmanager are of version {found}.", "Run `manage.py jobmanager db upgrade`."
        )
    ]


def _redirects() -> list[Any]:
    endpoint = _endpoint()
    if not getattr(django_settings, "SECURE_SSL_REDIRECT", False) or endpoint is None:
        return []
    exempt = getattr(django_settings, "SECURE_REDIRECT_EXEMPT", [])
    if any(re.search(pattern, endpoint.lstrip("/")) for pattern in exempt):
        return []
    folder = re.escape(endpoint.lstrip("/").rpartition("/")[0])
    return [
        _warning(
            2,
            "SECURE_SSL_REDIRECT redirects calls of the endpoint: Vercel follows none, and elsewhere a POST may arrive as a GET.",
            f"Add r'^{folder}/' to SECURE_REDIRECT_EXEMPT, or call by https alone.",
        )
    ]


def _endpoint() -> str | None:
    """Return the path at which the endpoint is mounted; None where it is not."""
    try:
        return str(reverse("jobmanager:endpoint", args=["run"]))
    except (NoReverseMatch, Resolver404, ImportError, AttributeError):
        return None


def _is_on_network(path: Path) -> bool:
    """Return whether the file lies on a network file system, as far as Linux tells."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(errors="replace").splitlines()]
    except OSError:
        return False
    over = [(len(where), kind) for _, where, kind, *_ in mounts if path.is_relative_to(where)]
    return bool(over) and max(over)[1] in _NETWORK


def _error(number: int, message: object, hint: str | None = None) -> Any:
    return checks.Error(str(message), hint=hint, id=f"jobmanager.E{number:03}")


def _warning(number: int, message: str, hint: str | None) -> Any:
    return checks.Warning(message, hint=hint, id=f"jobmanager.W{number:03}")
