"""Handlers that do their worst, as one table: what each does, and how its run may end on record.

`case` takes the shapes (status/kind of error, or status/reason) that are right; `modes` says where the handler makes sense: t(hread), c(oroutine),
i(solated). All of them are functions at the top of this module, so that a child process finds them.
"""

# ruff: noqa: S102, PLE0307, PLE1206, ASYNC251 - what these warn of is what the handlers are for

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import datetime as dt
import decimal
import gc
import locale
import logging
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections import UserDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import MagicMock, Mock

from jobmanager import CancelRun, Retry, RetryLater, RunContext
from jobmanager.context import current_run
from jobmanager.errors import HandlerNotFoundError, PayloadError, RunCancelledError, StoreUnavailableError

MIB = 1024 * 1024
SUCCEEDED = "succeeded/None"
RAISED = "failed/exception"
INTERNAL = "failed/internal"
TIMEOUT = "failed/timeout"
CRASHED = "failed/crashed"
EITHER = (SUCCEEDED, RAISED)

Function = Callable[[RunContext], Any]


@dataclass(frozen=True)
class Case:
    """One handler; `error` is the type on record where only one is right, `ruins` says that the process may not be used further."""

    name: str
    function: Function
    shapes: tuple[str, ...]
    modes: str
    error: str
    timeout: float | None
    retry: Retry
    large: bool

    @property
    def is_quick(self) -> bool:
        """Whether it may be run a hundred times a second: it is no matter of seconds or megabytes, and starts no process or thread."""
        return self.timeout is None and not self.large and not SLOW.search(self.name)


SLOW = re.compile(
    "fork|thread|loop|recursion|progress|trace|-mb|executor|deep|chain|blocks|behind|stack|gone|huge|mapping|meanwhile"
)
CASES: dict[str, Case] = {}


def case(
    *shapes: str,
    modes: str = "tci",
    error: str = "",
    timeout: float | None = None,
    retry: Retry | None = None,
    large: bool = False,
) -> Callable[[Function], Function]:
    """Put the function into the table under its own name."""

    def put(function: Function) -> Function:
        name = function.__name__.replace("_", "-")
        assert name not in CASES
        CASES[name] = Case(
            name, function, shapes or (SUCCEEDED,), modes, error, timeout, retry or Retry(), large
        )
        return function

    return put


def fails(error: str = "", *shapes: str, **options: Any) -> Callable[[Function], Function]:
    return case(RAISED, *shapes, error=error, **options)


# ---------------------------------------------------------------- exceptions


class NoTextError(Exception):
    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        raise self.error


class EndlessTextError(Exception):
    def __str__(self) -> str:
        while True:
            time.sleep(0.01)


class NumberTextError(Exception):
    def __str__(self) -> Any:
        return 5


class AroundTextError(Exception):
    def __str__(self) -> str:
        return str(self)


class NoNotesError(Exception):
    @property
    def __notes__(self) -> Any:
        raise SystemExit


class NoAttributesError(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class NoClassError(Exception):
    @property
    def __class__(self) -> Any:
        raise SystemExit


class NoLinksError(Exception):
    @property
    def __cause__(self) -> Any:
        raise SystemExit

    @property
    def __context__(self) -> Any:
        raise KeyboardInterrupt

    @property
    def __traceback__(self) -> Any:
        raise ValueError

    @property
    def __suppress_context__(self) -> Any:
        raise ValueError


class NoEqualityError(Exception):
    def __eq__(self, other: object) -> bool:
        raise SystemExit

    def __hash__(self) -> int:
        raise SystemExit

    def __bool__(self) -> bool:
        raise SystemExit


class NoReprError(Exception):
    def __repr__(self) -> str:
        raise SystemExit


class NoTracebackError(Exception):
    def with_traceback(self, tb: Any) -> Any:
        raise SystemExit


class OddMeta(type):
    @property
    def __name__(cls) -> Any:
        raise SystemExit

    @property
    def __module__(cls) -> Any:
        raise SystemExit

    def __eq__(cls, other: object) -> bool:
        raise SystemExit

    def __hash__(cls) -> int:
        raise SystemExit


class OddClassError(Exception, metaclass=OddMeta):
    pass


class NotPortableError(Exception):
    """Cannot be pickled, copied or made again from its arguments."""

    def __init__(self, one: Any, two: Any) -> None:
        super().__init__()
        self.kept = (one, two, lambda: None, threading.Lock())

    def __reduce__(self) -> Any:
        raise SystemExit


class MissingDeleteError(Exception):
    def __del__(self) -> None:
        raise SystemExit


@fails("RuntimeError")
def plain_error(context: RunContext) -> None:
    raise RuntimeError("plain")


@fails("NoTextError", INTERNAL)
def text_raises(context: RunContext) -> None:
    raise NoTextError(ValueError("no text"))


@fails("NoTextError", INTERNAL)
def text_exits(context: RunContext) -> None:
    raise NoTextError(SystemExit(3))


@fails("NoTextError", INTERNAL)
def text_interrupts(context: RunContext) -> None:
    raise NoTextError(KeyboardInterrupt())


@fails("NoTextError", INTERNAL)
def text_raises_itself(context: RunContext) -> None:
    error = NoTextError(ValueError())
    error.error = error
    raise error


@case(RAISED, INTERNAL, TIMEOUT, CRASHED, modes="ti", timeout=1)
def text_never_ends(context: RunContext) -> None:
    raise EndlessTextError


@fails("NumberTextError", INTERNAL)
def text_is_a_number(context: RunContext) -> None:
    raise NumberTextError


@fails("AroundTextError", INTERNAL)
def text_asks_for_itself(context: RunContext) -> None:
    raise AroundTextError


@fails("RuntimeError", large=True)
def text_is_huge(context: RunContext) -> None:
    raise RuntimeError("x" * 100 * MIB)


@fails("ValueError", large=True)
def text_of_a_huge_list(context: RunContext) -> None:
    raise ValueError([{"a": number} for number in range(500_000)])


@fails("RuntimeError")
def text_no_store_can_keep(context: RunContext) -> None:
    raise RuntimeError("\ud800 \x00 \x1b[31m \u202e password=x")


@fails("SyntaxError")
def syntax_error_with_odd_details(context: RunContext) -> None:
    raise SyntaxError("m", ("f", 1, "x", "text"))  # type: ignore[arg-type]


@fails("SyntaxError")
def syntax_error_with_odd_attributes(context: RunContext) -> None:
    error = SyntaxError("m", ("f", 1, 1, "text"))
    error.lineno, error.text, error.filename, error.offset = "one", 5, object(), []  # type: ignore[assignment]
    raise error


@fails("SyntaxError")
def real_syntax_error(context: RunContext) -> None:
    compile("a b\nc", "x", "exec")


def noted(notes: Any) -> BaseException:
    error = ValueError("noted")
    error.__notes__ = notes
    return error


@fails("ValueError")
def notes_are_a_number(context: RunContext) -> None:
    raise noted(5)


@fails("ValueError")
def notes_have_no_text(context: RunContext) -> None:
    raise noted([NoTextError(SystemExit()), NoRepr(KeyboardInterrupt()), None, 5])


@fails("ValueError", large=True)
def notes_are_huge(context: RunContext) -> None:
    raise noted(["x\n" * MIB] * 50)


@fails("NoNotesError", INTERNAL)
def notes_exit(context: RunContext) -> None:
    raise NoNotesError


@fails("ValueError")
def causes_go_round(context: RunContext) -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


@fails("ValueError")
def contexts_go_round(context: RunContext) -> None:
    first, second, third = ValueError("1"), ValueError("2"), ValueError("3")
    second.__context__, third.__context__ = third, second
    first.__context__ = second
    raise first


@fails("ValueError")
def cause_has_no_text(context: RunContext) -> None:
    raise ValueError("outer") from NoTextError(SystemExit())


@fails("ValueError")
def chain_of_thousands(context: RunContext) -> None:
    error = last = ValueError("newest")
    for number in range(5000):
        another = ValueError(number)
        last.__cause__ = another
        last = another
    raise error


@fails("ExceptionGroup")
def group_deep(context: RunContext) -> None:
    error: Exception = ValueError("leaf")
    for _ in range(500):
        error = ExceptionGroup("group", [error])
    raise error


@fails("ExceptionGroup")
def group_wide(context: RunContext) -> None:
    raise ExceptionGroup("group", [ValueError(number) for number in range(50_000)])


@fails("ExceptionGroup")
def group_around(context: RunContext) -> None:
    member = ValueError("member")
    group = ExceptionGroup("group", [member, NoTextError(SystemExit())])
    member.__cause__ = group
    raise group


@fails("BaseExceptionGroup")
def group_of_interrupts(context: RunContext) -> None:
    raise BaseExceptionGroup("group", [KeyboardInterrupt(), SystemExit()])


@fails("NoAttributesError", INTERNAL)
def attributes_exit(context: RunContext) -> None:
    raise NoAttributesError


@fails("NoClassError", INTERNAL)
def class_exits(context: RunContext) -> None:
    raise NoClassError


@fails("NoLinksError", INTERNAL)
def links_exit(context: RunContext) -> None:
    raise NoLinksError


@fails("NoEqualityError", INTERNAL)
def equality_exits(context: RunContext) -> None:
    raise NoEqualityError


@fails("NoReprError", INTERNAL)
def repr_of_the_error_exits(context: RunContext) -> None:
    raise NoReprError


@fails("ValueError", INTERNAL)
def argument_has_no_repr(context: RunContext) -> None:
    raise ValueError(NoRepr(SystemExit()), 2)


@fails("NoTracebackError", INTERNAL)
def with_traceback_exits(context: RunContext) -> None:
    raise NoTracebackError


@fails("OddClassError", INTERNAL)
def metaclass_exits(context: RunContext) -> None:
    raise OddClassError


@fails("OddClassError", INTERNAL, retry=Retry(max_attempts=2, delays=[0]))
def metaclass_exits_and_is_asked_whether_to_retry(context: RunContext) -> None:
    raise OddClassError


@fails("", large=True)
def name_of_the_class_is_huge(context: RunContext) -> None:
    raise type("T" * MIB, (Exception,), {})("x")


@fails("NotPortableError")
def cannot_be_pickled(context: RunContext) -> None:
    raise NotPortableError(1, 2)


@fails("MissingDeleteError")
def error_raises_when_deleted(context: RunContext) -> None:
    raise MissingDeleteError


@fails("ZeroDivisionError")
def traceback_names_a_device(context: RunContext) -> None:
    exec(compile("1/0", "/dev/zero", "exec"), {"__name__": 5})


@fails("ZeroDivisionError")
def traceback_names_a_pipe(context: RunContext) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(f"{folder}/pipe.py")
        exec(compile("1/0", f"{folder}/pipe.py", "exec"), {})


@fails("ZeroDivisionError")
def traceback_names_no_file(context: RunContext) -> None:
    exec(compile("1/0", "no such file\x1b[31m", "exec"), {"__loader__": 5, "__spec__": object()})


@fails("RecursionError")
def recursion(context: RunContext) -> None:
    recursion(context)


@fails("RecursionError")
def recursion_with_a_higher_limit(context: RunContext) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        recursion_with_a_higher_limit.__wrapped__ = down  # type: ignore[attr-defined]
        down()
    finally:
        sys.setrecursionlimit(before)


def down() -> None:
    down()


@fails("StopIteration", modes="ti")
def stop_iteration(context: RunContext) -> None:
    raise StopIteration(1)


@fails("StopAsyncIteration")
def stop_async_iteration(context: RunContext) -> None:
    raise StopAsyncIteration(1)


@fails("GeneratorExit")
def generator_exit(context: RunContext) -> None:
    raise GeneratorExit


@fails("KeyboardInterrupt")
def keyboard_interrupt(context: RunContext) -> None:
    raise KeyboardInterrupt


@fails("SystemExit")
def sys_exit(context: RunContext) -> None:
    sys.exit(0)


@fails("SystemExit")
def sys_exit_with_an_object(context: RunContext) -> None:
    sys.exit(NoRepr(SystemExit()))  # type: ignore[arg-type]


@fails("BaseException")
def base_exception(context: RunContext) -> None:
    raise BaseException("base")


@fails("CancelledError")
def cancelled_error(context: RunContext) -> None:
    raise asyncio.CancelledError


@fails("TimeoutError")
def timeout_error(context: RunContext) -> None:
    raise TimeoutError("not the job's own")


@fails("MemoryError")
def memory_error(context: RunContext) -> None:
    bytearray(1 << 62)


@fails("UnicodeDecodeError", large=True)
def undecodable(context: RunContext) -> None:
    (b"x" * 10 * MIB + b"\xff").decode()


@case("failed/exception", "cancelled/requested", error="")
def run_cancelled_error_of_nobody(context: RunContext) -> None:
    raise RunCancelledError("nobody asked")


@case("cancelled/exception")
def cancel_run_with_odd_text(context: RunContext) -> None:
    raise CancelRun("\ud800\x00")


@case("cancelled/exception", large=True)
def cancel_run_with_huge_text(context: RunContext) -> None:
    raise CancelRun("x" * 10 * MIB)


@case(RAISED, INTERNAL, retry=Retry(max_attempts=3, delays=[0]))
def retry_in_ten_thousand_years(context: RunContext) -> None:
    raise RetryLater(dt.timedelta.max)


@case(RAISED, INTERNAL, retry=Retry(max_attempts=3, delays=[0]))
def retry_in_the_past(context: RunContext) -> None:
    raise RetryLater(-dt.timedelta.max)


@case(RAISED, INTERNAL, retry=Retry(max_attempts=3, delays=[0]))
def retry_at_no_time(context: RunContext) -> None:
    error = RetryLater(dt.timedelta(0))
    error.delay = "soon"  # type: ignore[assignment]
    raise error


@case(RAISED, "failed/handler_missing", INTERNAL)
def handler_not_found_of_its_own(context: RunContext) -> None:
    raise HandlerNotFoundError("mine")


@case(RAISED, "failed/payload_invalid", INTERNAL)
def payload_error_of_its_own(context: RunContext) -> None:
    raise PayloadError("mine")


@fails("StoreUnavailableError")
def store_error_of_its_own(context: RunContext) -> None:
    raise StoreUnavailableError("mine")


# ---------------------------------------------------------------- results


class NoRepr:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class EndlessRepr:
    def __repr__(self) -> str:
        while True:
            time.sleep(0.01)


class HugeRepr:
    def __repr__(self) -> str:
        return "x" * 100 * MIB


class NumberRepr:
    def __repr__(self) -> Any:
        return 5


class NoItems(dict[str, int]):
    def items(self) -> Any:
        raise SystemExit

    def __iter__(self) -> Any:
        raise SystemExit

    def __len__(self) -> int:
        raise SystemExit


class NoList(list[int]):
    def __iter__(self) -> Any:
        raise SystemExit

    def __len__(self) -> int:
        raise SystemExit


class OddText(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise SystemExit

    def __str__(self) -> str:
        raise SystemExit

    def __getitem__(self, key: Any) -> str:
        raise SystemExit

    def __hash__(self) -> int:
        return 1


class OddNumber(int):
    def __add__(self, other: int) -> int:
        raise SystemExit

    def __repr__(self) -> str:
        raise SystemExit


class EndlessMapping(UserDict[str, int]):
    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield str(number := number + 1)

    def __getitem__(self, key: str) -> int:
        return 1


class Pretender:
    @property
    def __class__(self) -> Any:
        raise SystemExit


class NoDelete:
    def __del__(self) -> None:
        raise SystemExit


class NoTruth:
    def __bool__(self) -> bool:
        raise SystemExit

    def __eq__(self, other: object) -> bool:
        raise SystemExit

    def __hash__(self) -> int:
        return 1


@dataclass
class Report:
    rows: list[dict[str, int]]


def circle() -> Any:
    around: list[Any] = []
    around.append({"again": around})
    return around


def nest(depth: int) -> Any:
    deep: Any = []
    for _ in range(depth):
        deep = [deep]
    return deep


def numbers() -> Iterator[int]:
    yield from range(1 << 62)


async def nothing() -> None:
    """A coroutine that nobody awaits."""


@case()
def returns_a_text_of_10_mb(context: RunContext) -> Any:
    return "x" * 10 * MIB


@case(large=True)
def returns_a_text_of_100_mb(context: RunContext) -> Any:
    return "x" * 100 * MIB


@case(large=True)
def returns_words_like_keys_of_10_mb(context: RunContext) -> Any:
    return "token" * (2 * MIB) + "://"


@case(large=True)
def returns_bytes_of_100_mb(context: RunContext) -> Any:
    return b"x" * 100 * MIB


@case(large=True)
def returns_a_wide_dict(context: RunContext) -> Any:
    return {str(number): number for number in range(500_000)}


@case(large=True)
def returns_many_rows(context: RunContext) -> Any:
    return [{"id": number} for number in range(500_000)]


@case(large=True)
def returns_a_huge_set(context: RunContext) -> Any:
    return set(range(1_000_000))


@case(large=True)
def returns_a_dataclass_of_many_rows(context: RunContext) -> Any:
    return Report([{"id": number} for number in range(300_000)])


@case(large=True)
def returns_a_huge_key(context: RunContext) -> Any:
    return {"k" * 20 * MIB: 1}


@case(large=True)
def returns_a_huge_repr(context: RunContext) -> Any:
    return HugeRepr()


@case(SUCCEEDED, TIMEOUT, INTERNAL, CRASHED, modes="ti", timeout=1)
def returns_an_endless_repr(context: RunContext) -> Any:
    return EndlessRepr()


@case()
def returns_a_repr_that_exits(context: RunContext) -> Any:
    return NoRepr(SystemExit())


@case()
def returns_a_repr_that_interrupts(context: RunContext) -> Any:
    return [NoRepr(KeyboardInterrupt())]


@case()
def returns_a_repr_that_is_a_number(context: RunContext) -> Any:
    return NumberRepr()


@case()
def returns_itself_around(context: RunContext) -> Any:
    return circle()


@case()
def returns_a_deep_nest(context: RunContext) -> Any:
    return nest(100_000)


@case()
def returns_a_nest_as_deep_as_the_stack(context: RunContext) -> Any:
    return nest(sys.getrecursionlimit() // 2)


@case()
def returns_a_deep_nest_under_a_high_limit(context: RunContext) -> Any:
    sys.setrecursionlimit(1_000_000)
    return {"deep": nest(200_000), "shown": {1, 2}}


@case()
def returns_nan(context: RunContext) -> Any:
    return [float("nan"), float("inf")]


@case()
def returns_a_huge_number(context: RunContext) -> Any:
    return 1 << 10_000_000


@case()
def returns_a_huge_number_where_any_may_be_written(context: RunContext) -> Any:
    sys.set_int_max_str_digits(0)
    return {"a": 1 << 10_000_000, 1 << 10_000_000: "b"}


@case()
def returns_text_no_store_can_keep(context: RunContext) -> Any:
    return {"\ud800\x00": "\udfff \x00 \U0001f600", "a": ["\x00"]}


@case()
def returns_bytes(context: RunContext) -> Any:
    return {"a": b"\xff\x00"}


@case()
def returns_a_generator(context: RunContext) -> Any:
    return numbers()


@case()
def returns_a_coroutine(context: RunContext) -> Any:
    return nothing()


@case()
def returns_an_endless_mapping(context: RunContext) -> Any:
    return EndlessMapping()


@case()
def returns_a_proxy_of_what_is_gone(context: RunContext) -> Any:
    return weakref.proxy(Report([]))


@case()
def returns_a_mapping_proxy(context: RunContext) -> Any:
    return MappingProxyType({"a": deque([1])})


@case()
def returns_mocks(context: RunContext) -> Any:
    return [Mock(), MagicMock(spec=dict), MagicMock()]


@case()
def returns_classes_functions_and_modules(context: RunContext) -> Any:
    return {"a": [int, print, sys, threading.Lock(), sys.stderr, type, Report, OddClassError]}


@case()
def returns_a_class_that_exits(context: RunContext) -> Any:
    return OddClassError


@case()
def returns_subclasses_that_exit(context: RunContext) -> Any:
    return [NoItems(a=1), NoList([1]), OddText("x"), OddNumber(5), {OddText("y"): 1, OddNumber(6): 2}]


@case()
def returns_a_pretender(context: RunContext) -> Any:
    return Pretender()


@case()
def returns_what_raises_when_deleted(context: RunContext) -> Any:
    return NoDelete()


@case()
def returns_what_has_no_truth(context: RunContext) -> Any:
    return NoTruth()


@case()
def returns_keys_that_are_no_text(context: RunContext) -> Any:
    return {(1, 2): 3, NoTruth(): 4}


@case()
def returns_an_exception(context: RunContext) -> Any:
    return NoTextError(SystemExit())


@case()
def returns_its_own_context(context: RunContext) -> Any:
    return {"context": context, "job": [1]}


@case()
def returns_a_dict_that_changes_meanwhile(context: RunContext) -> Any:
    changing = {str(number): number for number in range(2000)}
    until = time.monotonic() + 0.3

    def change() -> None:
        while time.monotonic() < until:
            key = str(random.random())
            changing[key] = 1
            del changing[key]

    threading.Thread(target=change, daemon=True).start()
    return changing


# ---------------------------------------------------------------- what is said while it runs


@case(*EITHER)
def progress_of_nonsense(context: RunContext) -> None:
    context.progress("many", object(), NoRepr(SystemExit()))  # type: ignore[arg-type]
    time.sleep(0.7)


@case(*EITHER)
def progress_beyond_every_number(context: RunContext) -> None:
    context.progress(1 << 70, 10**400, "\ud800\x00")
    time.sleep(0.7)


@case(*EITHER)
def progress_with_a_huge_message(context: RunContext) -> None:
    context.progress(1, 2, "x" * 20 * MIB)
    time.sleep(0.7)


@case(large=True)
def a_hundred_thousand_lines(context: RunContext) -> None:
    for number in range(100_000):
        context.log.info("line %d", number)


@case(large=True)
def a_line_of_50_mb(context: RunContext) -> None:
    context.log.info("x" * 50 * MIB)
    context.log.info("%s", "password=" * MIB)


@case()
def lines_no_store_can_keep(context: RunContext) -> None:
    context.log.warning("\ud800 \x00 \x1b[31m %s", "\udfff")
    logging.getLogger("hostile").warning("\ud800 \x00")
    logging.getLogger("hostile").warning("%d %s", "x")
    context.log.warning("%d", "x")


@case(*EITHER)
def lines_whose_arguments_exit(context: RunContext) -> None:
    with contextlib.suppress(SystemExit):
        context.log.info("%s", NoRepr(SystemExit()))
    with contextlib.suppress(SystemExit):
        logging.getLogger("hostile").warning("%s", NoRepr(SystemExit()))


@case()
def exceptions_logged_that_have_no_text(context: RunContext) -> None:
    for error in (NoTextError(ValueError()), noted(5), SyntaxError("m", ("f", 1, "x", "text"))):  # type: ignore[arg-type]
        with contextlib.suppress(ValueError, TypeError):
            context.log.error("it failed", exc_info=error)
        with contextlib.suppress(ValueError, TypeError):
            logging.getLogger("hostile").error("it failed", exc_info=error)


@case(*EITHER, INTERNAL, "failed/crashed")
def facts_of_the_context_are_overwritten(context: RunContext) -> None:
    for name in ("attempt", "run_id", "job", "config", "payload", "scheduled_for", "locale"):
        with contextlib.suppress(Exception):
            setattr(context, name, object())
    raise RuntimeError("now")


@case()
def the_context_is_used_long_after(context: RunContext) -> None:
    def late() -> None:
        for _ in range(20):
            time.sleep(0.02)
            context.progress(1)
            context.log.info("late")
            bool(context.cancelled)

    threading.Thread(target=late, daemon=True).start()


# ---------------------------------------------------------------- never ending


@case(TIMEOUT, modes="ti", timeout=1)
def sleeps_for_ever(context: RunContext) -> None:
    threading.Event().wait()


@case(TIMEOUT, modes="ti", timeout=1)
def computes_for_ever(context: RunContext) -> None:
    until = time.monotonic() + 30  # in a thread nobody can end it
    while time.monotonic() < until:
        pass


@case(TIMEOUT, modes="ti", timeout=1)
def swallows_every_exception_for_ever(context: RunContext) -> None:
    while True:
        with contextlib.suppress(BaseException):
            context.raise_if_cancelled()
            time.sleep(0.01)


@case(TIMEOUT, modes="i", timeout=1)
def one_regular_expression_for_ever(context: RunContext) -> None:
    re.match(r"(a+)+b", "a" * 60)


@case(TIMEOUT, modes="i", timeout=1)
def stops_itself(context: RunContext) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@case(TIMEOUT, modes="i", timeout=1)
def ignores_every_signal(context: RunContext) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    threading.Event().wait()


# ---------------------------------------------------------------- the process it runs in


@case()
def starts_threads_that_stay(context: RunContext) -> None:
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(20,), daemon=True).start()


@case(modes="i")
def starts_a_thread_that_would_keep_the_process(context: RunContext) -> None:
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()


@case()
def starts_threads_that_fail(context: RunContext) -> None:
    def fail() -> None:
        raise NoTextError(SystemExit())

    threading.excepthook = lambda _: None
    for _ in range(5):
        threading.Thread(target=fail).start()
    for _ in range(5):
        threading.Thread(target=sys.exit).start()


@case(modes="ti")
def forks_and_forgets_to_exit(context: RunContext) -> Any:
    child = os.fork()
    if child == 0:
        return "from the child"
    return {"child": child}


@fails("ValueError", modes="ti")
def forks_and_the_child_raises(context: RunContext) -> Any:
    if os.fork() == 0:
        raise RuntimeError("from the child")
    time.sleep(0.3)
    raise ValueError("from the parent")


@case(modes="ti")
def forks_and_the_child_exits(context: RunContext) -> Any:
    if os.fork() == 0:
        sys.exit(3)
    time.sleep(0.3)
    return "from the parent"


@case(modes="c")
def forks_in_a_coroutine(context: RunContext) -> Any:
    if os.fork() == 0:
        return "from the child"
    time.sleep(0.3)
    return "from the parent"


@case(modes="i")
def leaves_a_grandchild_with_its_pipes(context: RunContext) -> None:
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)


@case(CRASHED, modes="i")
def exits_without_a_word(context: RunContext) -> None:
    os._exit(0)


@case(CRASHED, modes="i")
def exits_with_three(context: RunContext) -> None:
    os._exit(3)


@case(CRASHED, modes="i")
def aborts(context: RunContext) -> None:
    os.abort()


@case(CRASHED, modes="i")
def reads_where_nothing_is(context: RunContext) -> None:
    ctypes.string_at(0)


@case(CRASHED, modes="i")
def kills_itself(context: RunContext) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@case(CRASHED, modes="i")
def terminates_itself(context: RunContext) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


@case(CRASHED, RAISED, INTERNAL, SUCCEEDED, modes="i")
def closes_every_file(context: RunContext) -> None:
    os.closerange(0, 1000)


@case(CRASHED, RAISED, INTERNAL, SUCCEEDED, modes="i")
def forgets_every_module(context: RunContext) -> None:
    sys.modules.clear()


@case(CRASHED, *EITHER, modes="i")
def may_open_no_file(context: RunContext) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


@case(CRASHED, *EITHER, modes="i")
def has_a_tiny_stack(context: RunContext) -> None:
    with contextlib.suppress(RecursionError):
        sys.setrecursionlimit(60)


@case(modes="i")
def becomes_another_session(context: RunContext) -> None:
    os.setsid()


@case(*EITHER, modes="i")
def interrupts_itself(context: RunContext) -> None:
    signal.raise_signal(signal.SIGINT)


@case(modes="i")
def sets_signal_handlers_that_raise(context: RunContext) -> None:
    def refuse(number: int, frame: object) -> None:
        raise SystemExit

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, refuse)
    signal.setitimer(signal.ITIMER_REAL, 5)


@case()
def signals_itself_with_what_is_ignored(context: RunContext) -> None:
    for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG):
        os.kill(os.getpid(), number)


@fails("ValueError", modes="t")
def sets_a_signal_handler_in_a_thread(context: RunContext) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@case()
def changes_to_a_folder_that_is_gone(context: RunContext) -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    Path(folder).rmdir()


@case()
def takes_every_right_from_new_files(context: RunContext) -> None:
    os.umask(0o777)


@case(modes="ti")
def empties_the_environment(context: RunContext) -> None:
    os.environ.clear()


@case()
def sets_a_locale(context: RunContext) -> None:
    for name in ("de_DE.UTF-8", "tr_TR.UTF-8", "C"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)


@case()
def closes_the_standard_streams(context: RunContext) -> None:
    sys.stdout.close()
    sys.stderr.close()


@case()
def takes_the_standard_streams_away(context: RunContext) -> None:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


@case()
def disables_logging(context: RunContext) -> None:
    logging.disable(logging.CRITICAL)
    logging.getLogger().handlers.clear()


@case()
def shuts_logging_down(context: RunContext) -> None:
    logging.shutdown()


@case()
def adds_a_log_handler_that_raises(context: RunContext) -> None:
    class Refuses(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk of the log is full")

    logging.getLogger("jobmanager").addHandler(Refuses())


@case()
def adds_a_log_handler_that_exits(context: RunContext) -> None:
    class Exits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit

    logging.getLogger("jobmanager").addHandler(Exits())


@case()
def wraps_the_log_record_factory(context: RunContext) -> None:
    def refuse(*args: Any, **kwargs: Any) -> logging.LogRecord:
        raise RuntimeError("no record")

    logging.setLogRecordFactory(refuse)


@case()
def disables_the_collector(context: RunContext) -> None:
    gc.disable()


@case()
def raises_the_recursion_limit(context: RunContext) -> None:
    sys.setrecursionlimit(1_000_000)


@case(*EITHER, INTERNAL)
def traces_and_raises(context: RunContext) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("traced")

    sys.settrace(refuse)


@case(modes="t")
def traces_every_new_thread_and_raises(context: RunContext) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("traced")

    threading.settrace(refuse)


@case(*EITHER, INTERNAL)
def profiles_and_raises(context: RunContext) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("profiled")

    sys.setprofile(refuse)


@case()
def sets_the_clock_to_nothing(context: RunContext) -> None:
    time.time = lambda: 0.0


@case()
def sets_traps_for_decimals(context: RunContext) -> None:
    for trap in decimal.getcontext().traps:
        decimal.getcontext().traps[trap] = True
    decimal.getcontext().prec = 1


@case()
def leaves_a_context_variable(context: RunContext) -> None:
    contextvars.ContextVar[int]("left").set(5)
    current_run.set("nonsense")  # type: ignore[arg-type]


@case()
def turns_warnings_into_errors(context: RunContext) -> None:
    warnings.simplefilter("error")


@case()
def gives_sockets_no_time(context: RunContext) -> None:
    socket.setdefaulttimeout(0.000001)


@case()
def renames_its_thread(context: RunContext) -> None:
    threading.current_thread().name = "\ud800\x00"


@case(modes="ti")
def closes_the_loop_of_its_thread(context: RunContext) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()


@case(modes="ti")
def runs_a_loop_of_its_own(context: RunContext) -> None:
    asyncio.run(asyncio.sleep(0.01))


@case()
def raises_in_the_hooks(context: RunContext) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("hooked")

    sys.excepthook = refuse
    threading.excepthook = refuse
    sys.unraisablehook = refuse
    NoDelete()


# ---------------------------------------------------------------- coroutines: functions that return one, called on the loop


@case(RAISED, modes="c", error="CancelledError")
async def cancels_itself(context: RunContext) -> None:
    current_task().cancel()
    await asyncio.sleep(1)


@case(modes="c")
async def cancels_itself_and_goes_on(context: RunContext) -> None:
    current_task().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(1)
    await asyncio.sleep(0.01)


@case(modes="c")
async def cancels_itself_and_returns(context: RunContext) -> str:
    current_task().cancel()
    return "done"


@case(*EITHER, modes="c")
async def cancels_every_task(context: RunContext) -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0.01)


@case(TIMEOUT, modes="c", timeout=1)
async def awaits_for_ever(context: RunContext) -> None:
    await asyncio.Event().wait()


@case(TIMEOUT, modes="c", timeout=1)
async def awaits_for_ever_and_refuses_to_be_cancelled(context: RunContext) -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@case(TIMEOUT, modes="c", timeout=1)
async def refuses_to_be_cancelled_without_an_await(context: RunContext) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.Event().wait()


@case(modes="c")
async def blocks_the_loop_for_a_second(context: RunContext) -> None:
    time.sleep(1.5)


@case(TIMEOUT, modes="c", timeout=1)
async def blocks_the_loop_for_ever(context: RunContext) -> None:
    threading.Event().wait()


@case(*EITHER, INTERNAL, CRASHED, "failed/shutdown", modes="c")
async def stops_the_loop(context: RunContext) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)


@fails("RuntimeError", modes="c")
async def closes_the_loop(context: RunContext) -> None:
    asyncio.get_running_loop().close()


@fails("RuntimeError", modes="c")
async def runs_a_loop_in_the_loop(context: RunContext) -> None:
    waiting = asyncio.sleep(0)
    try:
        asyncio.run(waiting)
    finally:
        waiting.close()


@case(*EITHER, INTERNAL, CRASHED, modes="c")
async def a_task_of_its_own_exits(context: RunContext) -> None:
    async def leave() -> None:
        sys.exit(3)

    leaving = asyncio.create_task(leave())
    await asyncio.sleep(0.05)
    assert leaving


@case(*EITHER, INTERNAL, CRASHED, modes="c")
async def a_callback_of_its_own_interrupts(context: RunContext) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    asyncio.get_running_loop().call_soon(interrupt)
    await asyncio.sleep(0.05)


@case(modes="c")
async def leaves_tasks_behind(context: RunContext) -> None:
    TASKS.extend(asyncio.create_task(asyncio.sleep(20)) for _ in range(20))


@case(modes="c")
async def leaves_a_generator_open(context: RunContext) -> None:
    async def items() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(20)

    TASKS.append(items())
    await anext(TASKS[-1])


@case(modes="c")
async def sets_an_exception_handler_that_exits(context: RunContext) -> None:
    def leave(*_: Any) -> None:
        raise SystemExit

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(leave)
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
    loop.set_exception_handler(None)


@case(modes="c")
async def shuts_the_executor_down(context: RunContext) -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


@case(*EITHER, modes="c")
async def leaves_a_blocking_call_in_the_executor(context: RunContext) -> None:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 20)


@fails("RuntimeError", modes="c")
async def stop_iteration_in_a_coroutine(context: RunContext) -> None:
    raise StopIteration(1)


TASKS: list[Any] = []


def current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
