"""Principals: roles are sets of permissions, and a word that means nothing is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from jobmanager.access.principal import ADMIN, DANGEROUS, READ, WRITE, Principal
from jobmanager.errors import ConfigurationError


@pytest.mark.parametrize(
    ("roles", "permissions"),
    [
        ((), set()),
        ("viewer", {READ}),
        (["operator"], {READ, WRITE}),
        (["viewer", "admin"], {READ, WRITE, ADMIN}),
        (["jobs:write"], {WRITE}),
        (["operator", "jobs:dangerous"], {READ, WRITE, DANGEROUS}),
    ],
)
def test_permissions_are_those_of_all_roles(roles: Any, permissions: set[str]) -> None:
    principal = Principal("ana", roles)
    assert principal.permissions == permissions
    assert [principal.may(one) for one in (READ, ADMIN)] == [READ in permissions, ADMIN in permissions]


def test_equal_principals_are_one_value_and_scopes_are_a_set() -> None:
    one = Principal("ana", ["viewer", "viewer"], scopes=["acme", "beta", "acme"])
    assert one == Principal("ana", ("viewer",), scopes=("beta", "acme"))
    assert one.scopes == {"acme", "beta"}
    assert hash(one) == hash(Principal("ana", "viewer", scopes={"beta", "acme"}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": ""}, "name='' cannot be used"),
        ({"name": "a" * 201}, "cannot be used"),
        ({"name": "a\0"}, "cannot be used"),
        ({"name": "ana", "roles": ["operater"]}, "Did you mean 'operator'"),
        ({"name": "ana", "roles": 7}, "roles=7 cannot be used"),
        ({"name": "ana", "scopes": [7]}, "scopes="),
        ({"name": "ana", "authenticated_at": datetime(2026, 1, 1)}, "is no aware datetime"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(")):
        Principal(**given)


def test_the_moment_of_the_login_is_kept() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert Principal("ana", authenticated_at=moment).authenticated_at == moment
