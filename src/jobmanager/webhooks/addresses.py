"""Which addresses webhooks may reach: the public ones at the usual ports, and what JOBMANAGER_WEBHOOK_ALLOW names.

The table is our own: what Python calls global differs between its versions.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from jobmanager.errors import WebhookRefusedError
from jobmanager.settings import AllowedTarget
from jobmanager.webhooks.url import PORTS, Address, Target

_DENIED = {
    "0.0.0.0/8": "unspecified",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carriers",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "the metadata of a cloud",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "192.31.196.0/24": "reserved",
    "192.52.193.0/24": "reserved",
    "192.88.99.0/24": "a relay of 6to4",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "reserved",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::ffff:0:0/96": "an IPv4 address in disguise",
    "64:ff9b::/96": "an IPv4 address in disguise",
    "64:ff9b:1::/48": "an IPv4 address in disguise",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "private",
    "ff00::/8": "multicast",
    "2001::/23": "reserved",
    "2001:db8::/32": "for documentation",
    "2002::/16": "an IPv4 address in disguise",
    "2620:4f:8000::/48": "reserved",
    "3fff::/20": "for documentation",
}
_NETWORKS = [(ipaddress.ip_network(network), why) for network, why in _DENIED.items()]
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
HOW_TO_ALLOW = (
    "An internal target is allowed by JOBMANAGER_WEBHOOK_ALLOW, such as 10.1.0.0/16:8443 or crm.internal."
)


@dataclass(frozen=True, slots=True)
class Reachable:
    """The decision which addresses a webhook may reach. `allowed` comes from the settings."""

    allowed: Sequence[AllowedTarget] = ()

    def check_target(self, target: Target) -> None:
        """Raise WebhookRefusedError for what can be told before any name is looked up: the port, and a host that is an address."""
        if target.address is not None:
            self.check(target, target.address)
        elif not self._is_named(target) and not self._has_network_at(target.port):
            if target.host == "localhost" or target.host.endswith(".localhost"):
                raise _refused(target.host, "loopback")
            _check_port(target)

    def check(self, target: Target, address: Address) -> None:
        """Raise WebhookRefusedError unless this address may be reached as the host of the target."""
        if self._is_named(target, address):
            return
        why = denied(address)
        if why is not None:
            raise _refused(str(address), why)
        _check_port(target)

    def _has_network_at(self, port: int) -> bool:
        """Return whether a name, not yet looked up, may turn out to be in an allowed network at this port."""
        return any(one.network is not None and one.port in (None, port) for one in self.allowed)

    def _is_named(self, target: Target, address: Address | None = None) -> bool:
        """Return whether the settings name the host or the address, with this port or any."""
        return any(
            one.host == target.host if one.network is None else address is not None and address in one.network
            for one in self.allowed
            if one.port in (None, target.port)
        )


def _check_port(target: Target) -> None:
    if target.port not in PORTS.values():
        raise WebhookRefusedError(
            f"Port {target.port} is not reached by webhooks, only 80 and 443. {HOW_TO_ALLOW}"
        )


def denied(address: Address) -> str | None:
    """Say why an address is not public; None if it is."""
    for network, why in _NETWORKS:
        if address in network:
            return why
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address not in _GLOBAL_IPV6):
        return "reserved"
    return None


def _refused(address: str, why: str) -> WebhookRefusedError:
    return WebhookRefusedError(f"Webhooks do not reach {address}: the address is {why}. {HOW_TO_ALLOW}")
