"""Sessions: who is known by a cookie, for how long, and what a try at a password reveals."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from jobmanager.access.passwords import hashed
from jobmanager.settings import Settings
from jobmanager.testing import FakeClock
from jobmanager.web.sessions import LASTS, TRIES, Sessions

PASSWORD = "correct horse battery"
HASH = hashed(PASSWORD)
KEY, OTHER_KEY = (base64.b64encode(text * 32).decode() for text in (b"k", b"o"))


def users(role: str = "admin", password: str = HASH, **more: str) -> Settings:
    return Settings(dashboard_users=f"ana:{role}:{password}", **more)


def asked(cookie: str | None) -> dict[str, object]:
    """A request that brings this cookie."""
    value = f"other=1; jobmanager_session={cookie}" if cookie else "other=1"
    return {"type": "http", "headers": [(b"cookie", value.encode())]}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sessions(clock: FakeClock) -> Sessions:
    return Sessions(users(), clock)


def test_the_right_password_makes_a_session_that_says_when(sessions: Sessions, clock: FakeClock) -> None:
    cookie = sessions.sign_in("ana", PASSWORD)
    found = sessions(asked(cookie))
    assert found is not None
    assert (found.name, found.roles, found.authenticated_at) == ("ana", ("admin",), clock.now())


@pytest.mark.parametrize(
    ("name", "password"), [("ana", "wrong"), ("nobody", PASSWORD), ("", ""), ("ana", "\ud800")]
)
def test_a_wrong_password_and_an_unknown_name_make_none(sessions: Sessions, name: str, password: str) -> None:
    assert sessions.sign_in(name, password) is None


def test_a_session_ends_after_twelve_hours(sessions: Sessions, clock: FakeClock) -> None:
    cookie = sessions.sign_in("ana", PASSWORD)
    clock.advance(seconds=LASTS.total_seconds())
    assert sessions(asked(cookie)) is not None
    clock.advance(seconds=1)
    assert sessions(asked(cookie)) is None


@pytest.mark.parametrize("cookie", [None, "", "x", "eyJuYW1lIjoiYW5hIn0.x", "\u00e4"])
def test_a_cookie_that_was_not_signed_here_is_none(sessions: Sessions, cookie: str | None) -> None:
    assert sessions(asked(cookie)) is None


def test_a_changed_cookie_is_none(sessions: Sessions) -> None:
    cookie = sessions.sign_in("ana", PASSWORD)
    assert cookie is not None
    content, seal = cookie.rsplit(".", 1)
    assert sessions(asked(f"{content[:-2]}AA.{seal}")) is None


def test_a_session_ends_with_the_password_and_with_the_user(clock: FakeClock) -> None:
    cookie = Sessions(users(encryption_key=KEY), clock).sign_in("ana", PASSWORD)
    changed = Sessions(users(password=hashed(PASSWORD), encryption_key=KEY), clock)
    gone = Sessions(Settings(dashboard_users=f"ben:admin:{HASH}", encryption_key=KEY), clock)
    assert changed(asked(cookie)) is None
    assert gone(asked(cookie)) is None


def test_the_role_is_that_of_now(clock: FakeClock) -> None:
    cookie = Sessions(users(encryption_key=KEY), clock).sign_in("ana", PASSWORD)
    found = Sessions(users(role="viewer", encryption_key=KEY), clock)(asked(cookie))
    assert found is not None
    assert found.roles == ("viewer",)


def test_processes_with_one_encryption_key_know_each_others_sessions_and_others_do_not(
    clock: FakeClock,
) -> None:
    cookie = Sessions(users(encryption_key=KEY), clock).sign_in("ana", PASSWORD)
    assert Sessions(users(encryption_key=KEY), clock)(asked(cookie)) is not None
    assert Sessions(users(encryption_key=f"{OTHER_KEY},{KEY}"), clock)(asked(cookie)) is not None
    assert Sessions(users(encryption_key=OTHER_KEY), clock)(asked(cookie)) is None
    assert Sessions(users(), clock)(asked(cookie)) is None


def test_an_address_has_five_tries_a_minute(sessions: Sessions, clock: FakeClock) -> None:
    assert [sessions.wait_of("a") for _ in range(TRIES)] == [0.0] * TRIES
    assert 0 < sessions.wait_of("a") <= timedelta(seconds=12).total_seconds()
    assert sessions.wait_of("b") == 0.0
    clock.advance(seconds=12)
    assert sessions.wait_of("a") == 0.0
