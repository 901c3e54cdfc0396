"""The same answer for a repeated call."""

from __future__ import annotations

import time
from concurrent.futures import Future

from jobmanager.web import remembered
from jobmanager.web.body import Call
from jobmanager.web.remembered import SECONDS, ResponseCache
from jobmanager.web.response import UNAVAILABLE, json_response

FINE = json_response(202, {"call": 17})


def call(number: int = 17, digest: bytes = b"x") -> Call:
    return Call(number, "ticks", (), digest)


def test_a_repeat_gets_the_answer_of_the_first():
    memory = ResponseCache(time.monotonic)
    assert memory.begin(call()) is None
    memory.complete(call(), FINE)
    assert memory.begin(call()) is FINE


def test_another_body_under_the_same_number_is_another_call():
    memory = ResponseCache(time.monotonic)
    memory.begin(call())
    memory.complete(call(), FINE)
    assert memory.begin(call(digest=b"y")) is None


def test_a_repeat_that_comes_during_the_first_waits_for_its_answer():
    memory = ResponseCache(time.monotonic)
    memory.begin(call())
    waiting = memory.begin(call())
    assert isinstance(waiting, Future)
    assert not waiting.cancel()  # whoever waits may go away, the answer stays
    memory.complete(call(), FINE)
    assert waiting.result(0) is FINE


def test_what_failed_is_tried_again():
    memory = ResponseCache(time.monotonic)
    memory.begin(call())
    memory.complete(call(), UNAVAILABLE)
    assert memory.begin(call()) is None


def test_answers_are_forgotten_when_no_signature_can_be_valid_any_more_and_beyond_a_bound(monkeypatch):
    monkeypatch.setattr(remembered, "MOST", 3)
    now = 0.0
    memory = ResponseCache(lambda: now)
    for number in range(5):
        memory.begin(call(number))
        memory.complete(call(number), FINE)
    assert memory.begin(call(0)) is None  # more than three
    assert memory.begin(call(4)) is FINE
    now = SECONDS
    assert memory.begin(call(4)) is None
    assert SECONDS >= 600  # signed five minutes ahead, repeated five minutes after
