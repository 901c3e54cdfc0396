"""The guard of the manager's methods: the permission of the principal, its name, and the audit of refused attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from jobmanager.access.acting import current
from jobmanager.access.principal import READ, Principal
from jobmanager.errors import (
    DuplicateJobError,
    EditConflictError,
    EntryNotFoundError,
    JobDisabledError,
    JobManagerError,
    JobNotFoundError,
    KeyNotFoundError,
    NotificationNotFoundError,
    PermissionDeniedError,
    RunConflictError,
    RunNotFoundError,
    SecretConflictError,
    StoreError,
    TransitionError,
)
from jobmanager.manager.parts import Parts
from jobmanager.validation.call_arguments import may_be_id
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import shown

logger = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
REFUSED = (
    PermissionDeniedError,
    JobNotFoundError,
    RunNotFoundError,
    KeyNotFoundError,
    EntryNotFoundError,
    SecretConflictError,
    RunConflictError,
    EditConflictError,
    TransitionError,
    JobDisabledError,
    DuplicateJobError,
    NotificationNotFoundError,
)
"""The errors that refuse a change, and are audited; a mistake in the arguments is none of them."""


def reads(method: Callable[P, R]) -> Callable[P, R]:
    """Return the method so that a principal needs `jobs:read` to call it."""

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        principal = current().principal
        if principal is not None:
            check_permission(principal, method.__name__, READ)
        return method(*args, **kwargs)

    return called


def changes(
    permission: str, action: str, of: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator for a method that changes something: a principal needs the permission, and `by` is its name if none is given.

    `of` is the kind of target that the first argument of the method names: `job`, `run`, ... A refused attempt is audited if its author
    is named. A method without `of` calls others for each of its targets, and they audit what they refuse.
    """

    def guarded(method: Callable[P, R]) -> Callable[P, R]:
        takes_by = "by" in (getattr(method, "__kwdefaults__", None) or ())

        @wraps(method)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            principal = current().principal
            if principal is None and kwargs.get("by") is None:
                return method(*args, **kwargs)
            if principal is not None and takes_by and kwargs.get("by") is None:
                kwargs["by"] = principal.name
            try:
                if principal is not None:
                    check_permission(principal, action, permission)
                return method(*args, **kwargs)
            except REFUSED as error:
                if of is not None or isinstance(error, PermissionDeniedError):
                    note_refusal(args, kwargs, action, of or "jobs", error)
                raise

        return called

    return guarded


def check_permission(principal: Principal, action: str, permission: str) -> None:
    """Raise PermissionDeniedError unless the principal has the permission."""
    if not principal.may(permission):
        has = ", ".join(sorted(principal.permissions)) or "no permission"
        raise PermissionDeniedError(
            f"{action}: {shown(principal.name)} needs {permission} and has {has}. "
            "Ask an administrator for a role, or a key, with that permission.",
            action=action,
            principal=principal.name,
            permission=permission,
        )


def note_refusal(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], action: str, of: str, error: JobManagerError
) -> None:
    """Write a refused attempt into the audit if its author is named; an error of that writing is only logged.

    Nothing is written while the kill switch is set, or where there is no store yet.
    """
    parts: Parts = args[0]._parts  # noqa: SLF001 - of the manager whose method was called
    if parts.settings.disabled:
        return
    target: object = next(
        iter(
            (
                *args[1:],
                *(
                    kwargs[name]
                    for name in ("job_id", "run_id", "notification_id", "name", "key")
                    if name in kwargs
                ),
            )
        ),
        None,
    )
    try:
        if parts.store.exists():
            _note(parts, action, of, str(target) if may_be_id(target) else "", kwargs.get("by"), error)
    except StoreError as failed:
        logger.warning("action=%s refused and not audited: %s", action, failed)


def _note(parts: Parts, action: str, of: str, target: str, by: Any, error: JobManagerError) -> None:
    job_id = target if of == "job" else None
    if of == "run" and target:
        run = parts.store.history.run(target)
        if run is not None:
            job_id, target = run.job_id, run.id
    entry = parts.assembly.auditor.entry(
        action,
        of,
        target or parts.settings.namespace,
        at=parts.store.now(),
        job_id=job_id,
        by=by if isinstance(by, str) else None,
        outcome="refused",
        reason=f"{type(error).__name__}: {error}",
    )
    parts.store.audit.write(entry)
