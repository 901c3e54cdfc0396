"""Any exception is shown, in bounded time, as Python would show it where Python can."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobmanager.ledger.exception_text import traceback_of


def raised_by(act: Callable[[], Any]) -> BaseException:
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def with_cause() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("because\nof two lines") from error


def with_context() -> None:
    try:
        {}["missing"]
    except KeyError:
        raise ValueError("during")  # noqa: B904 - that is the case


def without_context() -> None:
    try:
        {}["missing"]
    except KeyError:
        raise ValueError("alone") from None


def with_notes() -> None:
    error = OSError(2, "gone", "a file")
    error.add_note("first")
    error.add_note("second\nline")
    raise error


def without_text() -> None:
    raise ValueError


@pytest.mark.parametrize("act", [with_cause, with_context, without_context, with_notes, without_text])
def test_an_ordinary_exception_is_shown_as_python_shows_it(act: Callable[[], None]) -> None:
    error = raised_by(act)

    assert traceback_of(error) == "".join(traceback.format_exception(error))


def test_a_group_shows_its_members_and_their_causes() -> None:
    error = ExceptionGroup(
        "several", [raised_by(with_cause), OSError(2, "gone"), ExceptionGroup("inner", [ValueError("deep")])]
    )
    text = traceback_of(error)

    assert text.startswith("ExceptionGroup: several (3 sub-exceptions)\n")
    for part in (
        "ValueError: because",
        "direct cause",
        "KeyError: 'missing'",
        "FileNotFoundError",
        "  |   | ValueError: deep",
    ):
        assert part in text


def test_our_own_frames_before_the_handler_are_left_out() -> None:
    error = raised_by(with_notes)

    assert "with_notes" in traceback_of(error, without="nothing")
    assert "raised_by" not in traceback_of(error, without=__name__)
    assert "with_notes" in traceback_of(error, without=__name__)


class OddTextError(Exception):
    def __str__(self) -> str:
        raise SystemExit


class OddNotesError(Exception):
    @property
    def __notes__(self) -> Any:
        raise KeyboardInterrupt


class OddAttributesError(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class OddClassError(Exception):
    @property
    def __class__(self) -> Any:
        raise SystemExit

    @property
    def __cause__(self) -> Any:
        raise SystemExit

    @property
    def __traceback__(self) -> Any:
        raise SystemExit

    def __eq__(self, other: object) -> bool:
        raise SystemExit

    def __hash__(self) -> int:
        raise SystemExit


class OddMeta(type):
    @property
    def __name__(cls) -> Any:
        raise SystemExit

    def __eq__(cls, other: object) -> bool:
        raise SystemExit

    def __hash__(cls) -> int:
        raise SystemExit


class OddKindError(Exception, metaclass=OddMeta):
    __module__ = 5  # type: ignore[assignment]


def notes(value: Any) -> BaseException:
    error = ValueError("noted")
    error.__notes__ = value
    return error


def circle() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def chain(length: int) -> BaseException:
    error = last = ValueError("last")
    for number in range(length):
        last.__cause__ = last = ValueError(str(number))
    return error


def group(depth: int, width: int) -> BaseException:
    error: Exception = ValueError("leaf")
    for _ in range(depth):
        error = ExceptionGroup("group", [error] * width)
    return error


def compiled_as(filename: str) -> BaseException:
    return raised_by(lambda: exec(compile("\n\n1/0", filename, "exec"), {"__name__": 5}))  # noqa: S102


def recursion(depth: int) -> BaseException:
    def down(left: int) -> None:
        if not left:
            raise ValueError("bottom")
        down(left - 1)

    return raised_by(lambda: down(depth))


HOSTILE: list[Callable[[], BaseException]] = [
    lambda: SyntaxError("m", ("f", 1, "x", "text")),  # type: ignore[arg-type]
    lambda: raised_by(lambda: compile("a b c", "x", "exec")),
    OddTextError, OddNotesError, OddAttributesError, OddClassError, OddKindError,
    lambda: notes(5), lambda: notes([OddTextError(), 5, None, "text"]), lambda: notes("x" * 10**7), lambda: notes(["x\n" * 10**7] * 10**5),
    circle, lambda: chain(50_000), lambda: group(90, 2), lambda: group(2, 100_000), lambda: recursion(900),
    lambda: compiled_as("/dev/zero"), lambda: compiled_as("\0"), lambda: compiled_as("x" * 10**6), lambda: compiled_as(""),
    lambda: ValueError("x" * 10**8), lambda: ValueError([1] * 10**7), lambda: KeyError({1: [2] * 10**7}), type("T" * 10**6, (Exception,), {}),
    lambda: UnicodeDecodeError("utf-8", b"x" * 10**7, 0, 1, "bad"), lambda: RuntimeError("\ud800 \x00"), lambda: ImportError(name=5), lambda: OSError(None, None, OddTextError()),
]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_a_hostile_exception_is_shown_in_a_moment(make: Callable[[], BaseException]) -> None:
    error = make()
    begun = time.perf_counter()
    text = traceback_of(error)

    assert time.perf_counter() - begun < 1
    assert 0 < len(text) < 200_000
    assert text.endswith("\n")


def test_a_file_that_is_none_is_not_read(tmp_path: Path) -> None:
    """Fails if the line of a traceback is looked up in a pipe, where nobody writes."""
    os.mkfifo(tmp_path / "pipe.py")

    assert "pipe.py" in traceback_of(compiled_as(str(tmp_path / "pipe.py")))
