"""Markers for values of a column that Python cannot represent: one stands in its place, so that one such row does not end the reading of the others."""

from __future__ import annotations

import json
from typing import Any


class Unreadable:
    """Stands for a stored value that cannot be read. Where rows become values, it makes its row an unreadable one."""

    __slots__ = ("_raw",)

    def __init__(self, raw: object) -> None:
        self._raw = raw

    def __repr__(self) -> str:
        return repr(self._raw)


def json_from(text: Any) -> Any:
    """Return the value of a JSON text, or the marker of one that is none or is nested too deep."""
    if isinstance(text, int | float):  # SQLite keeps the text of a number as a number
        return text
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return Unreadable(text)


def text_from(raw: bytes) -> Any:
    """Return the text of these bytes, or the marker of what is no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Unreadable(raw)
