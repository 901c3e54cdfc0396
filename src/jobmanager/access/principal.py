"""Principals: a person or a service that asks for something, with roles, scopes and the permissions that follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from jobmanager.errors import ConfigurationError
from jobmanager.validation.options import closest_name
from jobmanager.validation.texts import shown, unkeepable

READ, WRITE, ADMIN, DANGEROUS = "jobs:read", "jobs:write", "jobs:admin", "jobs:dangerous"
PERMISSIONS = (READ, WRITE, ADMIN, DANGEROUS)
"""To read; to start, end, pause and edit; to make and delete jobs, webhooks, entries and keys; and what a key may destroy."""

ROLES: Mapping[str, frozenset[str]] = {
    "viewer": frozenset({READ}),
    "operator": frozenset({READ, WRITE}),
    "admin": frozenset({READ, WRITE, ADMIN}),
}
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or service whose requests are checked, with the `permissions` of all its roles.

    `roles` are viewer, operator and admin, or single permissions. `scopes`: of jobs with `visibility="project"` only the runs of
    these scopes are shown; None shows all. `email` is where its notifications go. `authenticated_at` is when it gave its password
    last, as an aware moment. Raises ConfigurationError for a role that does not exist, or a name that no log could keep.
    """

    name: str
    roles: Collection[str] = ()
    scopes: Collection[str] | None = None
    email: str | None = None
    authenticated_at: datetime | None = None

    def __post_init__(self) -> None:
        if not _may_be_name(self.name):
            raise ConfigurationError(
                f"Principal: name={shown(self.name)} cannot be used; use a text of 1 to {LONGEST_NAME} characters."
            )
        moment: object = self.authenticated_at
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            raise ConfigurationError(
                f"Principal {self.name!r}: authenticated_at={shown(moment)} is no aware datetime."
            )
        object.__setattr__(self, "roles", checked_roles(self.name, _words("roles", self.roles)))
        if self.scopes is not None:
            object.__setattr__(self, "scopes", frozenset(_words("scopes", self.scopes)))

    @property
    def permissions(self) -> frozenset[str]:
        """Everything that the roles permit."""
        return frozenset(permission for role in self.roles for permission in ROLES.get(role, {role}))

    def may(self, permission: str) -> bool:
        """Return whether one of the roles has the permission."""
        return permission in self.permissions


def checked_roles(name: str, roles: Collection[str]) -> tuple[str, ...]:
    """Return the roles, each once; ConfigurationError for a word that is neither a role nor a permission."""
    known = (*ROLES, *PERMISSIONS)
    for role in roles:
        if role not in known:
            raise ConfigurationError(
                f"Principal {name!r}: {shown(role)} is neither a role nor a permission.{closest_name(role, known)} "
                f"Roles are {', '.join(ROLES)}; permissions are {', '.join(PERMISSIONS)}."
            )
    return tuple(dict.fromkeys(roles))


def _may_be_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and not unkeepable(name)


def _words(field: str, given: object) -> tuple[str, ...]:
    words = (given,) if isinstance(given, str) else given
    if not isinstance(words, Collection) or not all(isinstance(word, str) for word in words):
        raise ConfigurationError(f"Principal: {field}={shown(given)} cannot be used; use a list of texts.")
    return tuple(words)
