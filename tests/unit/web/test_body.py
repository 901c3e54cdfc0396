"""What a call says, and every way in which it could be misread. The corpus of strict JSON is in tests/security."""

from __future__ import annotations

import hashlib
import json

import pytest
from tests.calls import RUNS, body_of

from jobmanager.web.body import LARGEST, MOST_RUNS, BodyError, read_call, strict_json


def test_a_call_is_read_as_the_database_prints_it():
    body = body_of(17, RUNS[:3])
    call = read_call(body)

    assert (call.call, call.kind, call.runs) == (17, "ticks", tuple(RUNS[:3]))
    assert call.digest == hashlib.sha256(body).digest()


@pytest.mark.parametrize("kind", ["plan", "sweep"])
def test_a_call_that_orders_something_may_leave_the_runs_out(kind):
    assert read_call(body_of(1, [], kind)).runs == ()
    assert read_call(json.dumps({"v": 1, "call": 1, "kind": kind}).encode()).kind == kind
    with pytest.raises(BodyError, match="has no runs"):
        read_call(body_of(1, RUNS[:1], kind))


def test_a_run_named_twice_is_one():
    assert read_call(body_of(1, [RUNS[0], RUNS[1], RUNS[0]])).runs == (RUNS[0], RUNS[1])


def test_sixteen_hundred_runs_fit_and_one_more_is_refused():
    body = json.dumps(
        {"v": 1, "call": 2**63 - 1, "kind": "ticks", "runs": RUNS[:MOST_RUNS]}, separators=(",", ":")
    ).encode()
    assert len(body) <= LARGEST
    assert len(read_call(body).runs) == MOST_RUNS
    more = json.dumps(
        {"v": 1, "call": 1, "kind": "ticks", "runs": RUNS[: MOST_RUNS + 1]}, separators=(",", ":")
    )
    with pytest.raises(BodyError, match="more than 1600"):
        read_call(more.encode())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "object"),
        (b"null", "object"),
        (b'"ticks"', "object"),
        (b"{}", "v must be 1"),
        (body_of(extra=1), "no other"),
        (body_of(Runs=[]), "no other"),
        (body_of(v=2), "v must be 1"),
        (body_of(v=1.0), "v must be 1"),
        (body_of(v=True), "v must be 1"),
        (body_of(v="1"), "v must be 1"),
        (body_of(call=-1), "call"),
        (body_of(call=1.5), "call"),
        (body_of(call=True), "call"),
        (body_of(call="17"), "call"),
        (body_of(call=None), "call"),
        (body_of(call=2**63), "64 bits"),
        (b'{"v":1,"call":1e2,"kind":"ticks","runs":[]}', "call"),
        (body_of(kind="tick"), "kind"),
        (body_of(kind=["ticks"]), "kind"),
        (body_of(kind=None), "kind"),
        (b'{"v":1,"call":1,"kind":"ticks"}', "list"),
        (body_of(runs={}), "list"),
        (body_of(runs=RUNS[0]), "list"),
        (body_of(runs=[1]), "UUID"),
        (body_of(runs=[None]), "UUID"),
        (body_of(runs=[RUNS[0].upper()]), "UUID"),
        (body_of(runs=[RUNS[0] + "\n"]), "UUID"),
        (body_of(runs=[RUNS[0].replace("-", "")]), "UUID"),
        (body_of(runs=["{" + RUNS[0] + "}"]), "UUID"),
        (body_of(runs=["'; DROP TABLE runs; --"]), "UUID"),
        (body_of(runs=[[RUNS[0]]]), "UUID"),
        (b'{"v":1,"v":1,"call":1,"kind":"ticks","runs":[]}', "twice"),
        (b'{"v":1,"call":1,"call":2,"kind":"ticks","runs":[]}', "twice"),
        (b'{"v":1,"call":1,"c\\u0061ll":2,"kind":"ticks","runs":[]}', "twice"),
    ],
)
def test_anything_but_a_call_is_refused_with_what_is_wrong(body, says):
    with pytest.raises(BodyError, match=says):
        read_call(body)


def test_the_size_is_bounded():
    assert strict_json(b" " * (LARGEST - 2) + b"{}") == {}
    with pytest.raises(BodyError, match="64 KiB"):
        strict_json(b" " * (LARGEST - 1) + b"{}")


def test_thirty_two_levels_are_read_and_one_more_is_refused():
    assert strict_json(b"[" * 32 + b"]" * 32)
    with pytest.raises(BodyError, match="levels"):
        strict_json(b"[" * 33 + b"]" * 33)
    with pytest.raises(BodyError):
        strict_json(b'{"a":' * 33 + b"1" + b"}" * 33)


def test_colons_and_quotes_in_texts_are_no_keys():
    body = json.dumps({"a:b": 'c":"d', "e\\": {"f": ["\\", '"', ":", '\\\\":']}}).encode()
    assert strict_json(body) == json.loads(body)


@pytest.mark.parametrize(
    "body", [b'{"a":{"b":1,"b":1}}', b'[{"a":1},{"a":1,"a":2}]', b'{"":1,"":2}', b'{"a":1,"\\u0061":1}']
)
def test_keys_that_come_twice_are_found_at_every_level(body):
    with pytest.raises(BodyError, match="twice"):
        strict_json(body)
