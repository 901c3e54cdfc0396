"""Texts that every store can keep, and values as error sentences show them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from jobmanager.errors import ConfigurationError, CronError, JobManagerError, PayloadError

MOST_SHOWN = 80
_LIBRARY = __name__.partition(".")[0]
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


def calling_line() -> str | None:
    """Return `file:line` of the code that called the library.

    Return None for calls from the command line, from a web server, from `dataclasses`, and from a thread that the standard
    library began, as those of `jobs.aio` are: no line there says what the application asked for.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - public in all but name, and cheap
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module == "dataclasses" or module.startswith(_NOT_ITS_CALLERS):
            return None
        room = module.partition(".")[0]
        if room != _LIBRARY and (room == "__main__" or room not in sys.stdlib_module_names):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
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
        text = f"{subject}: {text}"
    place = calling_line()
    if place and place not in text:
        text = f"{text} (at {place})"
    error.args = (text,)
