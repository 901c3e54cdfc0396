"""Finds what is wrong with an installation, or will be: every finding names its fix. Everything is read; nothing is created or repaired."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from jobmanager.access.acting import current
from jobmanager.access.principal import ADMIN
from jobmanager.doctor.application import backend, declared, handlers, seeds, zones
from jobmanager.doctor.finding import Finding, Level
from jobmanager.doctor.health import health, replies
from jobmanager.doctor.ledger import clock, differences, not_started, pending, processes, states, store
from jobmanager.doctor.notifications import notifications
from jobmanager.doctor.roles import hosts, roles
from jobmanager.doctor.surroundings import installation, settings
from jobmanager.doctor.webhooks import webhooks
from jobmanager.errors import JobManagerError
from jobmanager.explain import Told, utc
from jobmanager.manager.guarding import check_permission
from jobmanager.manager.manager import JobManager

__all__ = ["Finding", "Level", "examine", "examine_environment"]


def examine_environment(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Return the findings that need no application: the installation and the `JOBMANAGER_*` variables."""
    return [*_guarded("installation", installation), *_guarded("settings", lambda: settings(environ))]


def examine(jobs: JobManager, *, told: Told = utc) -> list[Finding]:
    """Return the findings about this application and its store; `told` writes instants inside sentences.

    A check that itself fails is a finding. If the store cannot be used, what would be read from it is left out. A principal needs
    `jobs:admin`, as findings name every job; one that is limited to scopes is not told what becomes of runs.
    """
    principal = current().principal
    if principal is not None:
        check_permission(principal, "doctor", ADMIN)
    found = [
        *_guarded("backend", lambda: backend(jobs)),
        *_guarded("zones", lambda: zones(jobs)),
        *_guarded("handlers", lambda: handlers(jobs)),
        *_guarded("jobs", lambda: declared(jobs)),
    ]
    of_store = _guarded("store", lambda: replies(jobs)) or _guarded("store", lambda: store(jobs))
    found += of_store
    if any(finding.level == "failing" for finding in of_store):
        return found
    if not jobs.store.exists():
        is_failing = any(finding.level == "failing" for finding in found)
        return found if is_failing else [*found, *_guarded("processes", lambda: not_started(jobs))]
    is_limited = principal is not None and principal.scopes is not None
    for check, look in _OF_THE_STORE.items():
        if is_limited and check in _OF_RUNS:
            continue
        found += _guarded(check, lambda look=look: look(jobs, told))  # type: ignore[misc]
    return [*found, _LIMITED] if is_limited else found


_OF_RUNS = frozenset({"jobs", "processes", "roles", "health", "runs", "notifications"})
_LIMITED = Finding(
    check="scopes",
    level="note",
    text="You see the runs of some scopes: what is due, waits or stands still is left out.",
    fix="Ask an administrator without scopes.",
)


def _guarded(check: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found = []
    try:
        for finding in look():
            found.append(finding)  # noqa: PERF402 - what was found before an error stays
    except JobManagerError as error:
        found.append(
            Finding(
                check=check,
                level="failing",
                text=str(error),
                fix=_FIXES.get(check, "Correct that, then ask again."),
            )
        )
    except Exception as error:  # noqa: BLE001 - one check that fails must not hide the others
        told = f"could not be looked at: {type(error).__name__}: {error}"
        found.append(
            Finding(check=check, level="warning", text=told, fix="Look at it by hand; please report this.")
        )
    return found


_FIXES = {
    "settings": "Correct or unset that variable; docs/reference/settings.md lists all of them.",
    "backend": "Correct the JOBMANAGER_* variables that choose the backend.",
    "store": "Correct JOBMANAGER_DATABASE_URL, or the permissions of what it names.",
}


_OF_THE_STORE: dict[str, Callable[[JobManager, Told], Iterator[Finding]]] = {
    "clock": clock,
    "declarations": differences,
    "webhooks": webhooks,
    "jobs": states,
    "seeds": seeds,
    "processes": processes,
    "roles": roles,
    "hosts": hosts,
    "health": health,
    "runs": pending,
    "notifications": notifications,
}
