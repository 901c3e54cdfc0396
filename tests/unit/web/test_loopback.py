"""loopback_only: everything that tells where a request comes from must tell of this machine."""

from __future__ import annotations

from typing import Any

import pytest

from jobmanager.testing import FakeClock
from jobmanager.web import loopback_only

HERE = ("127.0.0.1", 50000)


def request(*headers: tuple[str, str], client: Any = HERE) -> dict[str, Any]:
    return {"type": "http", "client": client, "headers": [(n.encode(), v.encode()) for n, v in headers]}


LOCAL = ("host", "localhost:8787")


@pytest.mark.parametrize(
    "asked",
    [
        request(LOCAL),
        request(("Host", "LOCALHOST")),
        request(("host", "127.0.0.1:8787")),
        request(("host", "127.1.2.3")),
        request(("host", "[::1]:8787"), client=("::1", 1)),
        request(LOCAL, client=("::ffff:127.0.0.1", 1)),
        request(LOCAL, ("x-forwarded-for", "127.0.0.1, ::1")),
        request(LOCAL, ("x-forwarded-proto", "https"), ("x-forwarded-port", "443")),
        request(LOCAL, ("forwarded", 'for="[::1]:4711";host=localhost;proto=http, for=127.0.0.1')),
        request(LOCAL, ("x-forwarded-host", "localhost:3000"), ("x-real-ip", "127.0.0.1")),
    ],
)
def test_who_asks_from_this_machine_is_the_administrator(asked: dict[str, Any]) -> None:
    clock = FakeClock()
    principal = loopback_only(clock=clock)(asked)
    assert principal is not None
    assert (principal.name, principal.authenticated_at) == ("local", clock.now())
    assert principal.may("jobs:admin")


@pytest.mark.parametrize(
    "asked",
    [
        request(LOCAL, client=("10.0.0.7", 1)),
        request(LOCAL, client=("::ffff:10.0.0.7", 1)),
        request(LOCAL, client=("169.254.169.254", 1)),
        request(LOCAL, client=("localhost", 1)),
        request(LOCAL, client=("", 0)),
        request(LOCAL, client=None),
        request(),
        request(("host", "")),
        request(("host", "example.com")),
        request(("host", "localhost.example.com")),
        request(("host", "127.0.0.1.nip.io")),
        request(("host", "evil.com:80@127.0.0.1")),
        request(("host", "0.0.0.0:8787")),
        request(("host", "2130706433")),
        request(LOCAL, LOCAL),
        request(LOCAL, ("x-forwarded-for", "127.0.0.1, 203.0.113.9")),
        request(LOCAL, ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "203.0.113.9")),
        request(LOCAL, ("x-forwarded-for", "")),
        request(LOCAL, ("x-forwarded-for", "unknown")),
        request(LOCAL, ("X-Real-IP", "203.0.113.9")),
        request(LOCAL, ("cf-connecting-ip", "203.0.113.9")),
        request(LOCAL, ("true-client-ip", "203.0.113.9")),
        request(LOCAL, ("x-forwarded-host", "example.com")),
        request(LOCAL, ("forwarded", "for=203.0.113.9")),
        request(LOCAL, ("forwarded", "for=127.0.0.1;host=example.com")),
        request(LOCAL, ("forwarded", "for=127.0.0.1, for=_hidden")),
        request(LOCAL, ("forwarded", "garbage")),
        request(LOCAL, ("forwarded", "")),
    ],
)
def test_whoever_may_come_from_elsewhere_is_nobody(asked: dict[str, Any]) -> None:
    """Fails if a proxy before the application, or a page of another site with a name that points here, gets in."""
    assert loopback_only()(asked) is None
