"""The look-up of a name, once and within a bound, and the check of each address that it has."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from jobmanager.process.bounded import ended_within
from jobmanager.webhooks.addresses import Reachable
from jobmanager.webhooks.url import Address, Target


def checked_addresses(target: Target, reachable: Reachable, seconds: float) -> list[Address]:
    """Return every address of the target's host. Raises WebhookRefusedError if a single one of them is denied.

    TimeoutError if the name is not looked up in time, OSError if it cannot be.
    """
    addresses = _addresses(target, reachable, seconds)
    for address in addresses:
        reachable.check(target, address)
    return addresses


def _addresses(target: Target, reachable: Reachable, seconds: float) -> list[Address]:
    if target.address is not None:
        return [target.address]
    reachable.check_target(target)
    found: list[Any] = []

    def look_up() -> None:
        found.extend(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))

    try:
        if not ended_within(seconds, look_up, name="webhook-dns"):
            raise TimeoutError("the name was not looked up in time")
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))
