"""A broker's URL as kombu reads it: user and password percent-encoded, and TLS that verifies whom it speaks to."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from jobmanager.settings import percent_encoded

_REQUIREMENTS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_FILES = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}


def prepared(url: str) -> tuple[str, Mapping[str, Any] | None]:
    """Return the URL, or several with ; between, for kombu, and the TLS options for AMQP; None where there are none.

    `rediss://` and `amqps://` verify the certificate and the name of the host. `?ssl_ca_certs=/path` names the authority,
    `ssl_certfile` and `ssl_keyfile` our own certificate; `ssl_cert_reqs=none` verifies nothing. The certificate of each of
    several AMQP brokers must be good for the name of the first one.
    """
    brokers = [_prepared(percent_encoded(broker)) for broker in url.split(";")]
    return ";".join(broker for broker, _ in brokers), brokers[0][1]


def _prepared(url: str) -> tuple[str, Mapping[str, Any] | None]:
    plain, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    asked = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if plain.startswith("rediss://"):
        options["ssl_cert_reqs"] = asked
        options.setdefault("ssl_check_hostname", "true" if asked == "required" else "false")
        return f"{plain}?{urlencode(options, safe='/')}", None
    if not plain.startswith("amqps://"):
        return url, None
    tls = {name: options.pop(word) for word, name in _FILES.items() if word in options}
    options.pop("ssl_cert_reqs", None)
    verified = _REQUIREMENTS.get(asked, ssl.CERT_REQUIRED)
    # Named here: kombu would take 127.0.0.1 for localhost, and the first of several hosts for all of them.
    name = {"server_hostname": urlsplit(plain).hostname} if verified is ssl.CERT_REQUIRED else {}
    rest = f"?{urlencode(options, safe='/')}" if options else ""
    return plain + rest, {**tls, **name, "cert_reqs": verified}
