"""No planted secret survives in any sink, encoding and surrounding, and nothing of it is left beside what is hidden."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html import escape
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from jobmanager.access.keys import new_secret
from jobmanager.ledger.bounding import bounded_failure, bounded_json
from jobmanager.ledger.recorder import Recorder
from jobmanager.ledger.redaction import HIDDEN, Redactor
from jobmanager.present import records
from jobmanager.present.jobs import shown_config
from jobmanager.run import Failure, LogLine, Progress

KNOWN = "aQ7/z+P9=~:x \"k\\' <&>\u00e9 W4"
"""A secret of the settings, of everything that encodings change."""
PIECES = ("aQ7/z", "P9=~", "W4", "9=~:x")

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "json": json.dumps,
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "json as it is": lambda text: json.dumps(text, ensure_ascii=False),
    "repr": repr,
    "bytes": lambda text: repr(text.encode()),
    "hex": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "basic": lambda text: base64.b64encode(b"u:" + text.encode()).decode(),
    "html": escape,
}

# For secrets that nobody knows, by the names beside them: what stands between, and what stands around.
SURROUNDINGS = [
    "password={}", "password: {}", "password = {}", "db_password={} host=x", "DB_PWD={}", "pwd={};Server=x", "user=u pass={}", "dbPass={}",
    "--password {}", "--api-key={}", "password => {}", "password := {}", "{{'password': {}}}", '{{"password": {}, "n": 1}}', "('password', {})",
    "[b'password', {}]", "?token={}&page=2", "Authorization: Token {}", "Authorization: Bearer {}", "'Authorization: {}'", "Authorization: {}",
    "X-Api-Key: {}", "Set-Cookie: {}", "Cookie: {}", "<password>{}</password>", "client_secret={}\nnext line", "Error(secret={})", "Config(token={}, n=1)",
    "failed: [password={}]", "password%3D{}", "postgres://u:{}@db/shop", "amqp://u:{}@host:5672//",
]  # fmt: skip
SECRET = "Zq8Wx3Kv5"
FORMS = {
    "plain": SECRET,
    "base64": base64.b64encode(SECRET.encode() * 2).decode() + "+/==",
    "repr": repr(SECRET),
    "bytes": repr(SECRET.encode()),
    "json": json.dumps(SECRET),
    "json in json": json.dumps(json.dumps(SECRET)).strip('"'),
    "escaped quote": f'"jjq\\"{SECRET}"',
    "with an at": f"jjq@{SECRET}",
    "with marks": f"jjq:~/+{SECRET}",
    "uuid": f"UUID('{SECRET}')",
    "call": f"SecretStr({SECRET!r})",
    "triple": f"'''{SECRET}'''",
}


SETTINGS = SimpleNamespace(secret_values=lambda: frozenset({KNOWN}))
REDACTOR = Redactor([KNOWN])


def recorded() -> Recorder:
    return Recorder(SimpleNamespace(), SimpleNamespace(), grace=None, redactor=REDACTOR)  # type: ignore[arg-type]


def failure(text: str) -> Failure:
    return Failure(kind="exception", type="E", message=text, traceback=f"Traceback\n  x\nE: {text}\n")


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def output(value: Any) -> str:
    return json.dumps(
        bounded_json(value, hide=REDACTOR.text, is_secret=REDACTOR.is_secret), ensure_ascii=False
    )


SINKS: dict[str, Callable[[str], str]] = {
    "text": REDACTOR.text,
    "output": output,
    "item of an output": lambda text: output({"a": [text]}),
    "key of an output": lambda text: output({text: 1}),
    "output of no json": lambda text: output({"a": {text}}),
    "value": lambda text: str(REDACTOR.value({"a": [text]})),
    "key of a value": lambda text: str(REDACTOR.value({text: 1})),
    "config": lambda text: str(
        shown_config(SimpleNamespace(settings=SETTINGS), SimpleNamespace(declared={"config": {"a": text}}))
    ),  # type: ignore[arg-type]
    "message": lambda text: bounded_failure(failure(text), hide=REDACTOR.text).message,  # type: ignore[union-attr]
    "traceback": lambda text: bounded_failure(failure(text), hide=REDACTOR.text).traceback,  # type: ignore[union-attr]
    "log line": lambda text: recorded().redacted([LogLine(NOW, "INFO", text)])[0].text,
    "progress": lambda text: (
        recorded().redacted_progress(Progress(processed=1, total=2, message=text)).message
    ),
    "payload in json": lambda text: str(records.shown_payload({"a": text})),
    "key of a payload in json": lambda text: str(records.shown_payload({text: [text]})),
}


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    records.hide([KNOWN])
    yield
    records.hide([])


@pytest.mark.parametrize("sink", SINKS)
def test_no_known_secret_survives_in_any_encoding_and_surrounding(sink: str) -> None:
    for name, encode in ENCODINGS.items():
        written = encode(KNOWN)
        for surrounding in [*SURROUNDINGS, "just {} so", "{}", "a{}b"]:
            shown = SINKS[sink](surrounding.format(written))
            assert written not in shown, (name, surrounding)
            assert not [piece for piece in PIECES if piece in shown], (name, surrounding, shown)


@pytest.mark.parametrize("sink", SINKS)
def test_no_secret_survives_beside_its_name(sink: str) -> None:
    for name, written in FORMS.items():
        for surrounding in SURROUNDINGS:
            shown = SINKS[sink](surrounding.format(written))
            assert SECRET not in shown, (name, surrounding, shown)
            assert HIDDEN in shown, (name, surrounding, shown)
            rest = shown.replace(HIDDEN, "")
            assert "jjq" not in rest, (name, surrounding, shown)
            assert written[-4:] not in rest or written[-4:] in surrounding.format(""), (
                name,
                surrounding,
                shown,
            )


@pytest.mark.parametrize(
    "value",
    [
        {"Cookie": "a=Zq8Wx3Kv5"}, {"headers": [["Authorization", "Token Zq8Wx3Kv5"]]}, {"headers": [("x-api-key", "Zq8Wx3Kv5")]},
        {"headers": [{"name": "Authorization", "value": "Zq8Wx3Kv5"}]}, {"dbPass": "Zq8Wx3Kv5"}, {"pwd": ["Zq8Wx3Kv5"]},
        {"password=Zq8Wx3Kv5": 1}, {"body": json.dumps({"password": "Zq8Wx3Kv5", "a": 1})}, {"a": {"b": [{"pass": {"c": "Zq8Wx3Kv5"}}]}},
        {"dsn": "host=h password='Zq8 Zq8Wx3Kv5' user=u"},
    ],
)  # fmt: skip
def test_values_are_walked_not_read(value: Any) -> None:
    for shown in (str(REDACTOR.value(value)), output(value)):
        assert SECRET not in shown
        assert HIDDEN in shown


@pytest.mark.parametrize(
    "text",
    [
        "the password is wrong",
        "bypass=1 of 3",
        "passed: 5",
        "https://shop.example:8443/a?b=c me@example.org",
        "compass: north",
        "tick 3 of 5",
        "basic authentication failed",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_a_key_says_nothing_about_a_uuid() -> None:
    number = uuid.uuid4()
    assert str(number) not in REDACTOR.text(f"Session(token={number!r}, n=1)")


@pytest.mark.parametrize(
    "piece",
    [
        "password=",
        "x://y:z ",
        "a://a://",
        "password:",
        "'password': '",
        "token,",
        "pass\\",
        "(((",
        "secret=(",
        "bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "cookie: a;",
        "secret=a,b",
        "a-",
        'token="\\',
        ",a",
        "password: a,b ",
    ],
)
def test_searching_64_kib_is_quick_whatever_it_is_made_of(piece: str) -> None:
    text = (piece * 65_536)[:65_536]
    began = time.process_time()
    REDACTOR.text(text)
    REDACTOR.text("password: " + text)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("sink", SINKS)
def test_no_api_key_survives_in_any_sink(sink: str) -> None:
    """Fails if a key that a handler prints or returns stays where somebody without it reads."""
    key = new_secret()
    for text in (key, repr(key), f"?k={key}&page=2", f"key {key}, next", f"({key})", json.dumps({"k": key})):
        assert key not in SINKS[sink](text), text
    assert "jm_default_nightly" in SINKS[sink]("entry jm_default_nightly of pg_cron")
