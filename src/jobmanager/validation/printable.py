"""Texts of others as people may see them: no control character, no change of the writing direction, no line that they made up.

Every text that reaches a terminal, a JSON document or a log line passes one of these functions on its way out.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Mapping
from numbers import Number
from typing import Any

MOST_OF_A_TRACEBACK = 16 * 1024

_UNUSUAL = re.compile(r"[^\x20-\x7e]")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # letters and emoji are written with them
_LIBRARY = __name__.partition(".")[0]
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Return the text on one line, with an escape as in Python's own literals for each character that is not seen."""
    return text if text.isprintable() else _UNUSUAL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """Return the text as `printable` does, but with its lines and tabs."""
    return text if text.isprintable() else _UNUSUAL.sub(_escape_in_line, text)


def printable_json(document: Any, *, indent: int | None = None) -> str:
    """Return the value as JSON in which what is not seen is escaped; what reads it gets the value itself."""
    return _UNUSUAL.sub(_escape_in_json, json.dumps(document, indent=indent, ensure_ascii=False, default=str))


def get_logger(name: str) -> logging.Logger:
    """Return the logger of that name, whose records have one line: texts of others in it are escaped, tracebacks are indented."""
    logger = logging.getLogger(name)
    if _escape_record not in logger.filters:
        logger.addFilter(_escape_record)
    return logger


def announce(logger: logging.Logger, text: str, *args: object) -> None:
    """Log a line at INFO that an operator needs to see; where no logging is set up at all, write it where warnings go then.

    uvicorn and gunicorn set up only loggers of their own, and without a handler Python drops INFO. A NullHandler on the logger
    `jobmanager`, a level above INFO there, or `logging.lastResort = None` keeps it silent.
    """
    last = logging.lastResort
    if last is None or logger.hasHandlers() or logging.getLogger(_LIBRARY).level > logging.INFO:
        logger.info(text, *args)
        return
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, args, None)
    if not logger.disabled and logger.filter(record):
        last.handle(record)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN and character not in _JOINERS


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if not _is_unseen(character):
        return character
    return _SHORT.get(character) or character.encode("unicode_escape", "backslashreplace").decode()


def _escape_in_line(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escape(found)


def _escape_in_json(found: re.Match[str]) -> str:
    character = found[0]
    return json.dumps(character)[1:-1] if character != "\n" and _is_unseen(character) else character


def _escape_record(record: logging.LogRecord) -> bool:
    """Escape what the record says. A filter of the logger, so that whatever handler the application has sees the result."""
    record.msg = _argument(record.msg)
    if isinstance(record.args, Mapping):
        record.args = {name: _argument(value) for name, value in record.args.items()}
    elif record.args:
        record.args = tuple(_argument(value) for value in record.args)
    if record.exc_info and not record.exc_text:
        record.exc_text = _indented(record.exc_info)
    return True


def _argument(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return value if value is None or isinstance(value, Number) else _Shown(value)


class _Shown:
    """A value in a record, whose texts are escaped when a handler asks for them."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return printable(str(self._value))

    def __repr__(self) -> str:
        return printable(repr(self._value))


def _indented(raised: Any) -> str:
    try:
        text = logging.Formatter().formatException(raised)
    except BaseException as error:  # noqa: BLE001 - the exception's own code may raise anything
        text = f"<no traceback: {type(error).__name__}>"
    if len(text) > MOST_OF_A_TRACEBACK:
        text = f"{text[: MOST_OF_A_TRACEBACK // 2]}\n[... cut ...]\n{text[-MOST_OF_A_TRACEBACK // 2 :]}"
    return "\n".join(f"  {line}" for line in printable_lines(text).split("\n"))
