"""Texts that every store can keep, and values as error sentences show them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

from jobmanager.errors import (
    ConfigurationError,
    CronError,
    JobManagerError,
    JobNotFoundError,
    PayloadError,
)

MOST_SHOWN = 80
_LIBRARY = __name__.partition(".")[0]
P = ParamSpec("P")
R = TypeVar("R")
MISTAKES = (ConfigurationError, CronError, PayloadError, JobNotFoundError)
"""Mistakes in the call itself: these errors name its line."""

_NOT_ITS_CALLERS = (f"{_LIBRARY}.cli.", f"{_LIBRARY}.web.")


def unkeepable(text: str) -> str | None:
    """Name what keeps PostgreSQL from storing the text, or return None: NUL and lone surrogates are no characters there."""
    if "\0" in text:
        return "the character NUL"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair"
    return None


def unkeepable_within(value: Any) -> str | None:
    """Name what keeps a JSON value from being stored: an unkeepable text among its keys and values, at any depth."""
    return next((found for text in _texts(value) if (found := unkeepable(text))), None)


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)


def shown(value: object) -> str:
    """Return the value's repr, bounded; the name of its type where repr itself fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the sentence about a wrong value must not fail over the value
        return f"<{type(value).__name__}>"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def calling_line(*, awaited: bool = False) -> str | None:
    """Return `file:line` of the code that called the library, with `awaited` of the coroutine that awaits it.

    Return None for calls from the command line, from a web server, from `dataclasses`, from a thread that the standard library
    began, and for a coroutine that is a task of its own: no line there says what the application asked for.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - public in all but name, and cheap
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module == "dataclasses" or module.startswith(_NOT_ITS_CALLERS):
            return None
        room = module.partition(".")[0]
        if room != _LIBRARY and (room == "__main__" or room not in sys.stdlib_module_names):
            is_coroutine = frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)
            return None if awaited and not is_coroutine else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


class Located:
    """A block whose errors about options and arguments name their subject and the line of the caller."""

    __slots__ = ("_subject",)

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (ConfigurationError, CronError, PayloadError)):
            locate(error, self._subject)


def locate(error: JobManagerError, subject: str) -> None:
    """Complete the text of an error: its subject in front, unless it is there, and the line of the caller behind."""
    text = str(error)
    if not text.startswith(subject):
        error.args = (f"{subject}: {text}",)
    add_place(error)


def add_place(error: JobManagerError, *, awaited: bool = False) -> None:
    """Complete the text of an error by the line of the caller, where it is known and not there; see `calling_line`."""
    text, place = str(error), calling_line(awaited=awaited)
    if place and place not in text:
        error.args = (f"{text} (at {place})",)


def naming_its_caller(method: Callable[P, R]) -> Callable[P, R]:
    """Return the method so that errors about its arguments name the line that called it."""

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except MISTAKES as error:
            add_place(error)
            raise

    return called
