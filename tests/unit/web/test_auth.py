"""Who may call: keys, signatures and tokens, byte by byte."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest
from tests.calls import OTHER_SECRET, SECRET, body_of, signed

from jobmanager.errors import SettingsError
from jobmanager.web import auth
from jobmanager.web.auth import Keys, RefusedError
from jobmanager.web.endpoint import headers_of

BODY = body_of()


def read(given: dict[str, str]) -> auth.RequestHeaders:
    return headers_of([(name.encode(), value.encode("latin-1")) for name, value in given.items()])


def check(keys: Keys, given: dict[str, str], body: bytes = BODY, *, now: float | None = None) -> None:
    keys.check_signature(keys.signed(read(given), time.time() if now is None else now), body)


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET, "ключ-" * 8, SECRET.rstrip("=")])
def test_a_signature_of_standardwebhooks_is_taken(secret):
    check(Keys([secret]), signed(BODY, secret))


def test_the_key_is_what_whsec_encodes_or_the_text_itself():
    moment = int(time.time())
    for secret, key in [(SECRET, base64.b64decode(SECRET[6:])), (OTHER_SECRET, OTHER_SECRET.encode())]:
        content = f"msg_1.{moment}.".encode() + BODY
        signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        check(
            Keys([secret]),
            {"webhook-id": "msg_1", "webhook-timestamp": str(moment), "webhook-signature": f"v1,{signature}"},
        )


def test_another_secret_another_body_or_another_id_is_refused():
    keys, given = Keys([SECRET]), signed(BODY)
    with pytest.raises(RefusedError):
        check(keys, signed(BODY, OTHER_SECRET))
    with pytest.raises(RefusedError):
        check(keys, given, BODY.replace(b" ", b""))  # the same JSON, other bytes
    with pytest.raises(RefusedError):
        check(keys, {**given, "webhook-id": "call_18"})
    with pytest.raises(RefusedError):
        check(keys, {**given, "webhook-timestamp": str(int(given["webhook-timestamp"]) + 1)})


def test_during_a_rotation_either_secret_and_either_signature_will_do():
    old, new = signed(BODY, SECRET), signed(BODY, OTHER_SECRET)
    both = {**old, "webhook-signature": f"{new['webhook-signature']} {old['webhook-signature']}"}

    for keys in (Keys([SECRET]), Keys([OTHER_SECRET]), Keys([SECRET, OTHER_SECRET])):
        check(keys, both)
    for given in (old, new):
        check(Keys([OTHER_SECRET, SECRET]), given)


def test_signatures_of_other_versions_are_passed_over():
    given = signed(BODY)
    beside = f"v1a,{'A' * 88} v2,x , v1 {given['webhook-signature']}"
    check(Keys([SECRET]), {**given, "webhook-signature": beside})

    with pytest.raises(RefusedError):
        check(
            Keys([SECRET]),
            {**given, "webhook-signature": given["webhook-signature"].replace("v1,", "v2,")},
        )


@pytest.mark.parametrize(
    ("seconds", "taken"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)]
)
def test_a_signature_is_valid_for_five_minutes_either_way(seconds, taken):
    given = signed(BODY, at=1_800_000_000)
    if taken:
        check(Keys([SECRET]), given, now=1_800_000_000 + seconds)
    else:
        with pytest.raises(RefusedError, match="300 s"):
            check(Keys([SECRET]), given, now=1_800_000_000 + seconds)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": ""},
        {"webhook-id": "a.b"},
        {"webhook-id": "x" * 129},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1.8e9"},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": "\u00b2\u00b3"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "\xff" * 50},
    ],
)
def test_headers_that_say_nothing_are_refused(changed):
    with pytest.raises(RefusedError):
        check(Keys([SECRET]), {**signed(BODY), **changed})


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_or_comes_twice_is_refused(missing):
    given = signed(BODY)
    pairs = [(name.encode(), value.encode()) for name, value in given.items()]
    keys = Keys([SECRET])
    with pytest.raises(RefusedError, match=f"0 headers {missing}"):
        keys.signed(headers_of([pair for pair in pairs if pair[0] != missing.encode()]), time.time())
    with pytest.raises(RefusedError, match=f"2 headers {missing}"):
        keys.signed(headers_of([*pairs, (missing.encode(), given[missing].encode())]), time.time())


def test_a_flood_of_signatures_is_not_worked_through():
    given = signed(BODY)
    with pytest.raises(RefusedError, match="signatures"):
        check(Keys([SECRET]), {**given, "webhook-signature": " ".join([given["webhook-signature"]] * 11)})


def test_a_bearer_token_is_one_of_the_secrets_as_they_are_written():
    keys = Keys([SECRET, OTHER_SECRET])
    for token in (f"Bearer {SECRET}", f"bearer {OTHER_SECRET}", f"BEARER  {SECRET}"):
        keys.check_bearer(read({"authorization": token}))
    for token in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {SECRET}",
        SECRET,
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[6:]}",
    ):
        with pytest.raises(RefusedError):
            keys.check_bearer(read({"authorization": token}))


def test_tokens_and_signatures_are_compared_in_constant_time_and_all_of_them(monkeypatch):
    """A spy, for time cannot be asserted: every comparison goes through hmac.compare_digest, over values of one length."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def spy(one, other):
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", spy)
    keys = Keys([SECRET, OTHER_SECRET])
    keys.check_bearer(read({"authorization": f"Bearer {SECRET}"}))
    with pytest.raises(RefusedError):
        keys.check_bearer(read({"authorization": "Bearer short"}))
    assert compared == [(32, 32)] * 4  # SHA-256 of both sides, each secret each time

    compared.clear()
    check(keys, signed(BODY))
    assert len(compared) == 2


def test_without_a_secret_nobody_is_authenticated():
    keys = Keys([])
    assert not keys
    with pytest.raises(RefusedError):
        keys.check_bearer(read({"authorization": "Bearer "}))
    with pytest.raises(RefusedError):
        check(keys, signed(BODY))


def test_a_whsec_that_encodes_nothing_is_refused_at_once_without_being_shown():
    broken = "whsec_" + "not*base64*" * 4
    with pytest.raises(SettingsError, match="whsec_") as refused:
        Keys([broken])
    assert "not*base64" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_no_reason_shows_a_secret_or_what_was_sent():
    keys = Keys([SECRET])
    for token in (f"Bearer {OTHER_SECRET}", f"Basic {OTHER_SECRET}"):
        with pytest.raises(RefusedError) as refused:
            keys.check_bearer(read({"authorization": token}))
        assert OTHER_SECRET not in str(refused.value)
        assert SECRET not in str(refused.value)
