"""Secrets stay out of what is recorded and shown."""

from __future__ import annotations

import random
import string

import pytest

from jobmanager.ledger.redaction import HIDDEN, Redactor


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2", "password=[redacted]"),
        ("password: hunter2, next", "password: [redacted], next"),
        ('{"api_key": "a b"}', '{"api_key": [redacted]}'),
        ("Authorization: Bearer abc.def+/=~:ghi tail", "Authorization: [redacted] tail"),
        ("https://ana:s3cret@host/path", "https://ana:[redacted]@host/path"),
        ("DB_PASSWORD='x y z' ok", "DB_PASSWORD=[redacted] ok"),
        ("?access_token=abc&page=2", "?access_token=[redacted]&page=2"),
        ("nothing to hide here", "nothing to hide here"),
        ("the password is wrong", "the password is wrong"),
    ],
)
def test_text(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


def test_values_are_hidden_by_key_at_any_depth() -> None:
    value = {"user": "ana", "Password": "x", "nested": [{"client_secret": {"a": 1}}, "token=abc"], "n": 1}

    assert Redactor().value(value) == {
        "user": "ana",
        "Password": HIDDEN,
        "nested": [{"client_secret": HIDDEN}, f"token={HIDDEN}"],
        "n": 1,
    }


def test_known_secrets_leave_no_tail_whatever_they_are_made_of() -> None:
    dice = random.Random(7)
    alphabet = string.ascii_letters + string.digits + "+/=~:.-_ \"'"
    for _ in range(200):
        secret = "".join(dice.choices(alphabet, k=40))
        shown = Redactor([secret]).text(f"before {secret} after {secret}")
        assert shown == f"before {HIDDEN} after {HIDDEN}"
