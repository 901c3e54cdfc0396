"""The hooks that say who asks: by header alone, one header alone, and nobody where anything is odd."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from jobmanager import Principal, Settings
from jobmanager.access import passwords
from jobmanager.access.passwords import hashed, matches
from jobmanager.testing import FakeClock
from jobmanager.web import api_keys, basic_auth_from_settings

SECRET = "jm_" + "A1b" * 14 + "x"
PASSWORD = "correct: horse Größe"
LINE = f"ana:admin:{hashed(PASSWORD)}"


def request(*headers: tuple[str, str], client: Any = ("127.0.0.1", 50000)) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    return {
        "type": "http",
        "client": client,
        "headers": [(n.encode(), v.encode("latin-1")) for n, v in headers],
    }


def basic(name: str, password: str) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Keys:
    def principal_of_key(self, secret: str) -> Principal | None:
        return Principal("key:ci", ["viewer"]) if secret == SECRET else None


def test_a_bearer_key_is_known_by_its_one_header() -> None:
    authorize = api_keys(Keys())
    known = Principal("key:ci", ["viewer"])
    assert authorize(request(("authorization", f"Bearer {SECRET}"))) == known
    assert authorize(request(("Authorization", f"bearer  {SECRET}"))) == known
    assert authorize(SimpleNamespace(scope=request(("authorization", f"Bearer {SECRET}")))) == known
    for headers in (
        [],
        [("authorization", SECRET)],
        [("authorization", f"Basic {SECRET}")],
        [("authorization", f"Bearer {SECRET}x")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer")],
        [("authorization", f"Bearer {SECRET}"), ("authorization", f"Bearer {SECRET}")],
        [("authorization", "Bearer " + "x" * 5000)],
        [("x-api-key", SECRET)],
        [("cookie", SECRET)],
    ):
        assert authorize(request(*headers)) is None, headers


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_user_is_known_by_name_and_password(clock: FakeClock) -> None:
    authorize = basic_auth_from_settings(Settings(dashboard_users=LINE), clock=clock)
    principal = authorize(request(basic("ana", PASSWORD)))
    assert principal == Principal("ana", ["admin"])
    assert principal is not None
    assert principal.authenticated_at is None
    for name, value in (
        basic("ana", "wrong"),
        basic("ana", ""),
        basic("", PASSWORD),
        basic("eve", PASSWORD),
        ("authorization", "Basic !!!"),
        ("authorization", "Basic " + base64.b64encode(b"\xff\xfe").decode()),
        ("authorization", "Basic " + base64.b64encode(b"nocolon").decode()),
        ("authorization", f"Bearer {PASSWORD}".encode().decode("latin-1")),
    ):
        assert authorize(request((name, value))) is None, value


def test_without_users_nobody_is_known_and_nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    authorize = basic_auth_from_settings(Settings())
    monkeypatch.setattr(passwords.hashlib, "scrypt", None)
    assert authorize(request(basic("ana", PASSWORD))) is None


def test_a_right_password_is_hashed_once_in_five_minutes_and_a_wrong_one_each_time(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if each request of a browser costs a fifth of a second, or if a name that does not exist shows by its speed."""
    authorize = basic_auth_from_settings(Settings(dashboard_users=LINE), clock=clock)
    asked: list[str] = []
    monkeypatch.setattr(
        "jobmanager.web.hooks.matches",
        lambda password, kept: asked.append(password) or matches(password, kept),
    )
    for _ in range(3):
        assert authorize(request(basic("ana", PASSWORD))) is not None
    assert asked == [PASSWORD]
    clock.advance(seconds=301)
    assert authorize(request(basic("ana", PASSWORD))) is not None
    for name in ("ana", "ana", "eve"):
        assert authorize(request(basic(name, "wrong"))) is None
    assert asked == [PASSWORD, PASSWORD, "wrong", "wrong", "wrong"]


def test_nothing_that_the_hook_keeps_shows_a_password(clock: FakeClock) -> None:
    authorize: Any = basic_auth_from_settings(Settings(dashboard_users=LINE), clock=clock)
    authorize(request(basic("ana", PASSWORD)))
    kept = repr(vars(authorize))
    assert PASSWORD not in kept
    assert LINE.rpartition(":")[2] not in kept


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ("ana", "jobmanager dashboard-user"),
        ("ana:admin:plain", "jobmanager dashboard-user"),
        (LINE.replace("admin", "root"), "jobmanager dashboard-user"),
        (LINE[:-3], "jobmanager dashboard-user"),
    ],
    ids=["a name alone", "no hash", "no role", "a cut hash"],
)
def test_users_that_were_not_made_by_the_command_are_refused(users: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        Settings(dashboard_users=users)
    assert f"{users!r}" not in str(refused.value)


def test_the_users_show_nowhere() -> None:
    settings = Settings(dashboard_users=f"{LINE}, {LINE.replace('ana', 'ben')}")
    assert LINE not in repr(settings) + str(settings.shown())
