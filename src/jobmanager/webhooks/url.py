"""The URL of a webhook, read by one strict grammar: what another reader might take for another host is refused, not repaired."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from jobmanager.errors import ConfigurationError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST = 2000
PORTS = {"http": 80, "https": 443}

_URL = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_.-]{1,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*)?"
    r"(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)?",
    re.ASCII,
)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: the parts of a URL that leaves no doubt. `address` is set where the host is an address."""

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None

    @property
    def authority(self) -> str:
        """The host as a header has it, with a port that is not the scheme's."""
        host = f"[{self.host}]" if isinstance(self.address, ipaddress.IPv6Address) else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: who receives what is sent."""
        return f"{self.scheme}://{self.authority}"


def target_of(url: object) -> Target:
    """Return where a request to the URL goes; ConfigurationError, which shows none of the URL, for what is not clearly one."""
    if not isinstance(url, str) or len(url) > LONGEST:
        raise ConfigurationError(f"url is no text of at most {LONGEST:,} characters.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url) and not re.match(r"[Hh][Tt][Tt][Pp][Ss]?:", url):
        raise ConfigurationError("url has a scheme that is not sent to; use https:// or http://.")
    if "@" in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise ConfigurationError("url holds a user or password; give them as auth=Basic(...).")
    found = _URL.fullmatch(url)
    if found is None or _BROKEN_ESCAPE.search((found["path"] or "") + (found["query"] or "")):
        raise ConfigurationError(
            "url cannot be used; use https://host/path in ASCII, a name of another script as xn--..., and no fragment."
        )
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise ConfigurationError("url has a port that does not exist; use 1 to 65535.")
    address = _address(found["ipv6"], found["name"])
    host = str(address) if address is not None else found["name"].lower()
    return Target(scheme, host, port, (found["path"] or "/") + (found["query"] or ""), address)


def _address(ipv6: str | None, name: str | None) -> Address | None:
    """Return the address that the host is, None for a name; ConfigurationError for what some would read as an address."""
    try:
        if ipv6 is not None:
            return ipaddress.IPv6Address(ipv6)
        labels = (name or "").split(".")
        if not _NUMBER.fullmatch(labels[-1]):
            if all(map(_LABEL.fullmatch, labels)):
                return None
            raise ConfigurationError(
                "url has a host that is no name: two dots, a dot at the end, or a - at one."
            )
        return ipaddress.IPv4Address(name or "")
    except ipaddress.AddressValueError:
        raise ConfigurationError(
            "url has a host that is no address in its usual form; use four decimal numbers without leading zeros, or a name."
        ) from None
