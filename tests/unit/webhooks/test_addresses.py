"""Which addresses are public."""

from __future__ import annotations

import ipaddress

import pytest

from jobmanager.webhooks.addresses import denied

EDGES = {
    "0.0.0.0/8": True, "10.0.0.0/8": True, "100.64.0.0/10": True, "127.0.0.0/8": True, "169.254.0.0/16": True, "172.16.0.0/12": True, "192.168.0.0/16": True, "198.18.0.0/15": True, "224.0.0.0/3": True,
    "1.0.0.0/8": False, "9.0.0.0/8": False, "100.0.0.0/10": False, "100.128.0.0/9": False, "126.0.0.0/8": False, "128.0.0.0/8": False, "169.253.0.0/16": False, "172.32.0.0/11": False, "198.20.0.0/14": False, "223.0.0.0/8": False,
    "::/3": True, "2002::/16": True, "2001::/23": True, "2001:db8::/32": True, "3fff::/20": True, "4000::/2": True, "8000::/1": True, "2606:4700::/32": False, "2a00::/12": False,
}  # fmt: skip


@pytest.mark.parametrize("network", EDGES)
def test_both_ends_of_a_network_are_judged_alike(network: str) -> None:
    block = ipaddress.ip_network(network)

    assert {denied(block[0]) is not None, denied(block[-1]) is not None} == {EDGES[network]}


def test_what_python_calls_private_is_denied() -> None:
    addresses = map(ipaddress.IPv4Address, range(0, 2**32, 2**32 // 65_536))
    private = [address for address in addresses if not address.is_global or address.is_multicast]

    assert len(private) > 8_000
    assert [address for address in private if denied(address) is None] == []
