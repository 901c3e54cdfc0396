"""The form of a webhook: its fields as options of `create_webhook` and `update_webhook`. Secrets go in and never come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobmanager.errors import ConfigurationError
from jobmanager.webhooks.auth import auth_of
from jobmanager.webhooks.webhook import WebhookInfo

KEEP = "keep"
AUTHS = {
    "": "none",
    "bearer": "a bearer token",
    "basic": "name and password",
    "api_key": "an API key in a header",
    "header": "a header of its own",
}
PLAIN = ("url", "method", "timeout", "expect", "headers", "auth", "username", "header")


def fields_of(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the form gives; ConfigurationError for what no webhook takes."""
    texts = {name: str(form.get(name, "")).strip() for name in (*PLAIN, "signing", "signing_secret")}
    options: dict[str, Any] = {
        "url": texts["url"],
        "method": texts["method"] or "POST",
        "expect": texts["expect"] or "200-299",
        "timeout": _seconds(texts["timeout"] or "10"),
        "headers": _headers(texts["headers"]),
    }
    if texts["auth"] != KEEP:
        options["auth"] = _auth(texts, str(form.get("auth_secret", "")))
    match texts["signing"]:
        case "new":
            options["secret"] = True
        case "own":
            options["secret"] = texts["signing_secret"]
        case "none":
            options["secret"] = False
    return options


def filled(form: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields as they were typed, without the secrets."""
    given = {"method": "POST", "timeout": "10", "expect": "200-299", "key": "", "signing": ""}
    names = (*PLAIN, "key", "signing")
    return {name: str(form.get(name, given.get(name, ""))) for name in names}


def shown_fields(info: WebhookInfo) -> dict[str, str]:
    """Return the fields of a webhook as its form shows them first."""
    return {
        "key": info.key,
        "url": info.url,
        "method": info.method,
        "timeout": f"{info.timeout:g}",
        "expect": info.expect,
        "headers": "\n".join(f"{name}: {value}" for name, value in info.headers.items()),
        "auth": KEEP,
        "signing": KEEP,
        "username": str((info.auth or {}).get("username", "")),
        "header": str((info.auth or {}).get("header", "")),
    }


def _auth(texts: Mapping[str, str], secret: str) -> Any:
    kind = texts["auth"]
    if not kind:
        return None
    if kind not in AUTHS:
        raise ConfigurationError("auth is none of the kinds that there are.")
    words: dict[str, Any] = {"kind": kind}
    if kind == "basic":
        words["username"] = texts["username"]
    if kind in ("api_key", "header"):
        words["header"] = texts["header"] or "X-Api-Key"
    return auth_of(words, secret)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError("timeout is no number of seconds.") from None


def _headers(text: str) -> dict[str, str]:
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not all(colon for _, colon, _ in pairs):
        raise ConfigurationError("headers: write one on each line, as Name: value.")
    return {name.strip(): value.strip() for name, _, value in pairs}
