"""A hook for development: a request from this machine is made by an administrator, and every other one is refused."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from jobmanager.access.principal import Principal
from jobmanager.clock import Clock, SystemClock
from jobmanager.web.hooks import Authorize, headers_of, scope_of

ADDRESSES = (
    "x-forwarded-for", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
    "fastly-client-ip", "fly-client-ip", "x-original-forwarded-for", "x-envoy-external-address",
)  # fmt: skip
HOSTS = ("x-forwarded-host", "x-forwarded-server", "x-original-host")
_PAIR = re.compile(r'\s*(for|by|host|proto)\s*=\s*("[^"]*"|[^\s;,"]*)\s*', re.IGNORECASE)
_NAMES = {"localhost", "localhost."}


def loopback_only(*, clock: Clock | None = None) -> Authorize:
    """Return a hook for which each request from this machine is made by the administrator `local`, who has just logged in.

    It refuses where the peer, the Host header, or a header that a proxy adds names anything but this machine: then the request
    came from elsewhere, or a page of another site sent it by a name that it made point here. For development only: every program and every
    user of this machine is let in.
    """
    now = (clock or SystemClock()).now

    def authorize(request: Any) -> Principal | None:
        return Principal("local", ["admin"], authenticated_at=now()) if is_local(request) else None

    return authorize


def is_local(request: Any) -> bool:
    """Return whether everything that tells where the request comes from tells of this machine."""
    peer, headers = scope_of(request).get("client"), headers_of(request)
    hosts = headers.get("host", [])
    return (
        peer is not None
        and is_loopback(str(peer[0]))
        and len(hosts) == 1
        and is_local_host(hosts[0])
        and all(is_loopback(part) for name in ADDRESSES for part in _parts(headers.get(name, [])))
        and all(is_local_host(part) for name in HOSTS for part in _parts(headers.get(name, [])))
        and all(_is_forwarded_locally(part) for part in _parts(headers.get("forwarded", [])))
    )


def is_loopback(text: str) -> bool:
    """Return whether the text is a loopback address, with or without a port."""
    bare = _without_port(text)
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_local_host(text: str) -> bool:
    """Return whether the text, a name or address with or without a port, is this machine's."""
    return _without_port(text).lower() in _NAMES or is_loopback(text)


def _without_port(text: str) -> str:
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|([^:\[\]]+):\d{1,5}", text.strip())
    return text.strip() if found is None else found[1] or found[2]


def _parts(values: list[str]) -> list[str]:
    return [part for value in values for part in value.split(",")]


def _is_forwarded_locally(element: str) -> bool:
    """Return whether every pair of one element of `Forwarded` (RFC 7239) is of this machine; what is no such pair is not."""
    pairs = [_PAIR.fullmatch(pair) for pair in element.split(";")]
    return all(pair is not None and _is_pair_local(pair[1].lower(), pair[2].strip('"')) for pair in pairs)


def _is_pair_local(name: str, value: str) -> bool:
    if name == "proto":
        return True
    return is_local_host(value) if name == "host" else is_loopback(value)
