"""What handlers return becomes plain JSON of 64 KiB, in a time that does not grow with what they returned."""

from __future__ import annotations

import enum
import json
import time
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import MagicMock, Mock

import pytest

from jobmanager.ledger.bounding import (
    MAX_JSON,
    MAX_MESSAGE,
    MAX_TRACEBACK,
    bounded_failure,
    bounded_json,
    described,
    text_of,
)
from jobmanager.ledger.redaction import HIDDEN, Redactor
from jobmanager.run import Failure


class Point(NamedTuple):
    x: int
    y: int


SECRET = "horse-battery-staple"
REDACTOR = Redactor([SECRET])


def bounded(value: Any) -> Any:
    return bounded_json(value, hide=REDACTOR.text, is_secret=REDACTOR.is_secret)


class Colour(enum.IntEnum):
    RED = 1


class Loud(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class Quiet(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Endless(UserDict[str, int]):
    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield str(number := number + 1)

    def __getitem__(self, key: str) -> int:
        return 1


class NoRepr:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class Pretender:
    @property
    def __class__(self) -> Any:
        raise SystemExit


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"Holder({self.held!r})"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        ("text", "text"),
        ("\ud800\x00", "\ud800\x00"),
        ([1, (2, [3])], [1, [2, [3]]]),
        (Point(1, 2), [1, 2]),
        ({1: "a", None: "b", False: "c", 2.5: "d"}, {"1": "a", "null": "b", "false": "c", "2.5": "d"}),
        (Colour.RED, 1),
        ({Colour.RED: Colour.RED}, {"1": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (UserDict(a=1), {"a": 1}),
        (ChainMap({"a": 1}, {"b": 2}), {"b": 2, "a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ([[], {}, [[]], ""], [[], {}, [[]], ""]),
    ],
    ids=repr,
)
def test_what_has_json_is_kept(value: Any, kept: Any) -> None:
    found = bounded(value)

    assert found == kept
    assert json.loads(json.dumps(found)) == found


def test_a_subclass_is_read_past_what_it_makes_of_its_methods() -> None:
    assert bounded([Loud(a=1), Quiet("text")]) == [{"a": 1}, "text"]


def around() -> Any:
    circle: list[Any] = []
    circle.append({"again": circle})
    return circle


def nested() -> Any:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return deep


# Made inside the test: pytest looks at its parameters, and some of these do not bear that.
WITHOUT_JSON: list[Callable[[], Any]] = [
    object, lambda: {1, 2}, lambda: b"bytes", lambda: (one for one in [1]), lambda: float("nan"), lambda: float("-inf"),
    lambda: 10**5000, lambda: -(10**5000), lambda: {"a": 10**5000}, lambda: {(1, 2): 3}, lambda: {float("nan"): 1}, lambda: {10**5000: 1},
    around, nested, lambda: NoRepr(ValueError()), lambda: NoRepr(KeyboardInterrupt()), lambda: [NoRepr(SystemExit())], Pretender, Mock,
    lambda: int, lambda: print, lambda: json, lambda: type("meta", (type,), {"__repr__": None})("odd", (), {}), lambda: deque([1]),
    lambda: range(10**12), lambda: memoryview(b"x"), lambda: 1j,
]  # fmt: skip


@pytest.mark.parametrize("make", WITHOUT_JSON)
def test_what_has_no_json_is_described(make: Callable[[], Any]) -> None:
    found = bounded(make())

    assert found.keys() == {"not_json", "repr"}
    assert found["not_json"]
    assert 0 < len(found["repr"]) <= 1000


def test_a_mapping_that_never_ends_is_cut() -> None:
    assert bounded(Endless())["clipped"] == "more than 64 KiB of JSON"


def test_a_mock_of_a_dict_is_recorded_whatever_it_says() -> None:
    assert bounded(MagicMock(spec=dict)) == {}


BIG = [
    ("text", lambda size: "x" * size),
    ("bytes", bytes),
    ("list", lambda size: [1] * (size // 8)),
    ("dicts", lambda size: [{"a": number} for number in range(size // 100)]),
    ("wide dict", lambda size: {str(number): number for number in range(size // 100)}),
    ("set", lambda size: set(range(size // 50))),
    ("deque", lambda size: deque(range(size // 20))),
    ("held", lambda size: Holder(list(range(size // 20)))),
    ("view", lambda size: dict.fromkeys(range(size // 50)).keys()),
    ("key", lambda size: {"x" * size: 1}),
    ("escapes", lambda size: "\ud800" * (size // 4)),
    ("number", lambda size: 1 << size),
    ("words", lambda size: "token" * (size // 5) + "://"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make"), BIG, ids=[name for name, _ in BIG])
def test_the_time_does_not_grow_with_the_value(name: str, make: Callable[[int], Any]) -> None:
    """Fails if any step runs over all of it: fifty times as much would take fifty times as long."""
    small, large = make(200_000), make(10_000_000)

    def fastest(value: Any) -> float:
        times = []
        for _ in range(5):
            begun = time.thread_time()
            bounded(value)
            times.append(time.thread_time() - begun)
        return min(times)

    assert fastest(large) < 10 * fastest(small) + 0.005, name
    assert len(json.dumps(bounded(large))) <= 2 * MAX_JSON


def test_a_clipped_output_is_not_clipped_again() -> None:
    once = bounded({"a": '"\\' * MAX_JSON})

    assert once.keys() == {"clipped", "start"}
    assert bounded(once) == once


def test_secrets_do_not_show_in_what_is_kept() -> None:
    value = {
        "password": "x",
        f"key {SECRET}": [f"in a {SECRET} text"],
        "nested": {"api_key": {"deep": 1}},
        "url": "https://ana:s3cret@host/",
    }

    assert bounded(value) == {
        "password": HIDDEN,
        f"key {HIDDEN}": [f"in a {HIDDEN} text"],
        "nested": {"api_key": HIDDEN},
        "url": f"https://ana:{HIDDEN}@host/",
    }


@pytest.mark.parametrize("cut", [MAX_JSON, MAX_JSON // 2 - 101, MAX_JSON // 2])
def test_a_cut_leaves_no_part_of_a_secret(cut: int) -> None:
    for before in range(len(SECRET)):
        text = "x" * (cut - before) + SECRET + "x" * MAX_JSON
        assert SECRET[:4] not in json.dumps(bounded(text))
        assert SECRET[:4] not in json.dumps(bounded({"a": text}))


def test_a_long_failure_keeps_the_beginning_of_its_message_and_both_ends_of_its_traceback() -> None:
    failure = Failure(
        kind="exception", type="T" * 5000, message="m" * 10**7, traceback="a" + "t" * 10**7 + "z"
    )
    kept = bounded_failure(failure, hide=REDACTOR.text)

    assert kept is not None
    assert len(kept.type) == 200
    assert len(kept.message) < MAX_MESSAGE + 20
    assert len(kept.traceback) < MAX_TRACEBACK + 60
    assert (kept.traceback[0], kept.traceback[-1]) == ("a", "z")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("plain"), "plain"),
        (ValueError(), ""),
        (ValueError("a", 1), "('a', 1)"),
        (KeyError("a"), "'a'"),
        (OSError(2, "gone", "file"), "[Errno 2] gone: 'file'"),
        (ExceptionGroup("several", [ValueError()] * 3), "several (3 sub-exceptions)"),
        (UnicodeDecodeError("utf-8", b"\xff" * 10**6, 0, 1, "bad"), "'utf-8' codec can't decode byte 0xff in position 0: bad"),
        (SyntaxError("m", ("f", 1, "x", "text")), "m (f, line 1)"),
    ],
    ids=repr,
)  # fmt: skip
def test_the_message_is_what_python_says(error: BaseException, text: str) -> None:
    assert text_of(error) == text


def test_the_message_of_an_exception_without_one_says_why() -> None:
    assert text_of(ValueError(NoRepr(SystemExit()))) == "<no text: SystemExit>"


def test_the_message_about_a_large_value_does_not_go_through_all_of_it() -> None:
    assert text_of(ValueError([10**4000] * 10**6)).startswith("[")
    assert text_of(KeyError("x" * 10**7)).startswith("'xxx")
    assert len(text_of(ValueError("x" * 10**7))) == 4000


def test_a_value_is_described_by_its_own_words_if_it_has_little_to_go_through() -> None:
    assert described(Holder([1])) == "Holder([1])"
    assert described(Holder([1] * 10**6)) == "<Holder object, too large to show>"
    assert described([[[[[1]]]]]) == "[[[[...]]]]"
    assert described(list(range(10**6))) == "[0, 1, 2, 3, 4, 5, ... 999,994 more]"
