"""No spelling, redirect or name leads a webhook to an address that it may not reach, and no connection is even begun."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.receivers import Receiver, answering
from tests.security.ssrf_cases import urls

from jobmanager import JobManager, Settings
from jobmanager.errors import ConfigurationError, WebhookError, WebhookRefusedError
from jobmanager.settings import AllowedTarget
from jobmanager.webhooks.addresses import Reachable
from jobmanager.webhooks.sender import send
from jobmanager.webhooks.url import target_of

PUBLIC = "93.184.215.14"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as receiver:
        yield receiver


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[list[str]]], list[str]]:
    """Have a name resolve to these lists of addresses, one list for each look-up; returns what was asked for."""
    truth, asked = socket.getaddrinfo, list[str]()

    def answer(name: str, replies: list[list[str]]) -> list[str]:
        replies_of = itertools.chain(replies, itertools.repeat(replies[-1]))

        def getaddrinfo(host: Any, port: Any, *args: Any, **more: Any) -> Any:
            if host != name:
                return truth(host, port, *args, **more)
            asked.append(host)
            return [found for each in next(replies_of) for found in truth(each, port, *args, **more)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return answer


def sent(url: str, *allowed: AllowedTarget) -> int:
    target = target_of(url)
    return send(target, "POST", {}, b"{}", reachable=Reachable(allowed), timeout=2).status


def refused(url: str) -> bool:
    """Return whether nothing is sent, because the URL or its address is refused, before any name is looked up."""
    try:
        Reachable().check_target(target_of(url))
    except (ConfigurationError, WebhookRefusedError):
        return True
    return False


def test_no_spelling_of_an_inner_target_gets_through(receiver: Receiver) -> None:
    tried = list(urls(receiver.port))
    through = []
    for url in tried:
        if refused(url):
            continue
        try:
            sent(url)
        except WebhookRefusedError:
            continue
        except WebhookError as error:
            if "cannot be looked up" in str(
                error
            ):  # a name that does not exist, as far as this machine knows
                continue
        through.append(url)

    assert len(tried) >= 500
    assert through == []
    assert receiver.connections == 0


def test_all_but_names_without_an_address_are_refused_when_the_webhook_is_declared(
    receiver: Receiver,
) -> None:
    left = {target_of(url).host for url in urls(receiver.port) if not refused(url)}

    assert left == {"0o17700000001", "127.0.0.1_", "127.0.0.01x"}


def test_the_listener_would_be_reached_if_it_were_allowed(receiver: Receiver) -> None:
    """Holds the whole page to account: what refuses is the decision, not a listener that nobody could reach."""
    loopback = next(iter(Settings(webhook_allow=f"127.0.0.1:{receiver.port}").allowed_targets))

    assert sent(receiver.url, loopback) == 200
    assert receiver.connections == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com", "http://example.com/", "https://EXAMPLE.com:443/a?b=c&d=%20", "http://sub.example.co.uk:80/", "https://xn--bcher-kva.example/", "https://a-b.example/~x;y=1,2",
        "https://8.8.8.8/", "http://1.1.1.1:80/", f"https://{PUBLIC}/", "https://172.15.255.255/", "https://172.32.0.1/", "https://100.63.255.255/", "https://100.128.0.1/", "https://11.0.0.1/", "https://9.255.255.255/",
        "https://126.255.255.255/", "https://128.0.0.1/", "https://169.253.1.1/", "https://192.167.1.1/", "https://192.169.1.1/", "https://198.17.0.1/", "https://198.20.0.1/", "https://223.255.255.255/",
        "https://[2606:4700:4700::1111]/", "http://[2001:4860:4860::8888]:80/", "https://[2a00:1450:4001::1]/", "https://[2620:fe::fe]/", "https://1e100.net/", "https://0x.example/", "https://3com.com/", "https://my_service.example/",
        "https://hooks.example/services/T0/B0/xyz", "https://a.b.c.d.e.f.example/@me/x:y",
    ],
)  # fmt: skip
def test_public_targets_are_not_refused(url: str) -> None:
    assert not refused(url)


@pytest.mark.parametrize("port", [1, 22, 25, 81, 444, 3306, 5432, 6379, 8080, 8443, 11211, 65535])
def test_other_ports_of_public_targets_are_refused(port: int) -> None:
    assert refused(f"https://{PUBLIC}:{port}/")
    assert refused(f"https://example.com:{port}/")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], ["::1"], ["10.0.0.1"], ["169.254.169.254"], ["0.0.0.0"], ["::ffff:127.0.0.1"], ["fd00::1"], ["fe80::1"], ["64:ff9b::7f00:1"], ["2002:7f00:1::"],  # noqa: S104
        [PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], [PUBLIC, "2606:4700:4700::1111", "::1"], ["224.0.0.1"], ["100.64.0.1"],
    ],
)  # fmt: skip
def test_a_name_with_a_single_inner_address_is_refused(
    receiver: Receiver, names: Callable[..., list[str]], addresses: list[str]
) -> None:
    names("inner.example", [addresses])

    with pytest.raises(WebhookRefusedError, match="Webhooks do not reach"):
        sent("http://inner.example/x")

    assert receiver.connections == 0


def test_a_name_that_is_rebound_after_the_check_has_no_effect(
    receiver: Receiver, names: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is public when it is checked and inner when it is asked again: it is not asked again."""
    asked = names("rebound.example", [[PUBLIC], ["127.0.0.1"]])
    connected = list[Any]()

    def connect(address: Any, *_: Any, **__: Any) -> Any:
        connected.append(address)
        raise OSError("no way out of this test")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(WebhookError, match="could not be called"):
        sent("http://rebound.example/x")

    assert (connected, asked) == ([(PUBLIC, 80)], ["rebound.example"])
    assert receiver.connections == 0


def test_a_name_that_was_public_when_it_was_declared_is_checked_at_each_request(
    receiver: Receiver, names: Callable[..., list[str]]
) -> None:
    names("later.example", [["127.0.0.1"]])
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    jobs.webhook("hook", "http://later.example/x")

    run = jobs.trigger_job("hook")

    assert run.error is not None
    assert (run.status, run.error.kind) == ("failed", "http")
    assert "the address is loopback" in run.error.message
    assert receiver.connections == 0


# ---------------------------------------------------------------- redirects, proxies, sockets


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "300 Multiple"]
)
def test_redirects_are_not_followed(receiver: Receiver, status: str) -> None:
    with Receiver(
        answering(b"", status, Location=f"http://127.0.0.1:{receiver.port}/inner")
    ).listening() as public:
        jobs = JobManager(
            Settings(database_url="memory://", backend="noop", webhook_allow=f"127.0.0.1:{public.port}")
        )
        jobs.webhook("hook", public.url)
        run = jobs.trigger_job("hook")

    assert run.error is not None
    assert (run.status, run.attempt, run.error.type) == ("failed", 1, "WebhookRefusedError")
    assert "Redirects are not followed" in run.error.message
    assert (public.connections, receiver.connections) == (1, 0)


def test_no_proxy_and_no_netrc_of_the_environment_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password p\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with Receiver().listening() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert sent(receiver.url, *Settings(webhook_allow="127.0.0.1").allowed_targets) == 200

    assert (proxy.connections, receiver.connections) == (0, 1)
    assert "authorization" not in receiver.last.headers


# ---------------------------------------------------------------- what the settings allow


@pytest.mark.parametrize(
    ("allow", "url", "reached"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}/", True),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/", True),
        ("127.0.0.0/8", "http://127.0.0.1:{port}/", True),
        ("10.0.0.0/8,127.0.0.0/8:{port}", "http://127.0.0.1:{port}/", True),
        ("127.0.0.1:1", "http://127.0.0.1:{port}/", False),
        ("127.0.0.2", "http://127.0.0.1:{port}/", False),
        ("10.0.0.0/8", "http://127.0.0.1:{port}/", False),
        ("localhost", "http://localhost:{port}/", True),
        ("localhost:{port}", "http://LOCALHOST:{port}/", True),
        ("127.0.0.0/8,[::1]", "http://localhost:{port}/", True),
        ("localhost", "http://127.0.0.1:{port}/", False),
        ("host.localhost", "http://localhost:{port}/", False),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:{port}/", False),
    ],
)
def test_the_settings_allow_what_they_name_and_no_more(
    receiver: Receiver, allow: str, url: str, reached: bool
) -> None:
    allowed = Settings(webhook_allow=allow.format(port=receiver.port)).allowed_targets
    outcome = False
    with contextlib.suppress(WebhookRefusedError):
        outcome = sent(url.format(port=receiver.port), *allowed) == 200

    assert outcome is reached
    assert receiver.connections == reached
