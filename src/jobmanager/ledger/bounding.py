"""Bound what handlers leave behind before anything searches or stores it: plain JSON of 64 KiB, short texts, no code of theirs.

Every step costs what is kept, never what was given: no C call runs over a value of unknown size, because such a call keeps
the interpreter's lock, and with it the heartbeat, for as long as it takes.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any

from jobmanager.run import Failure
from jobmanager.validation.texts import unkeepable_within

MAX_JSON = 64 * 1024
MAX_START = MAX_JSON // 2 - 100  # as a JSON text in JSON it may double
MAX_TRACEBACK = 16 * 1024
MAX_MESSAGE = 2000
MAX_TYPE = 200
LONGEST_NAME = 100
MAX_DEPTH = 200
MAX_SHOWN = 1000
MAX_DIGITS_BITS = 14_000  # 4,214 decimal digits: Python itself refuses more than 4,300

_MOST_LOOKED_AT = 2000
_MOST_REFERENCES = 500
_MOST_CHARACTERS = 10_000
_FEW = 6
_NOT_LOOKED_INTO = (
    type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, GeneratorType, CoroutineType, AsyncGeneratorType,
)  # fmt: skip

HIDDEN = "[redacted]"

Hide = Callable[[str], str]
"""Returns a text without its secrets."""
IsSecret = Callable[[str], bool]
"""Returns whether the value of this key must not show."""


class NotJsonError(ValueError):
    """The value has no JSON, for the reason that is the error's text."""


class _TooLargeError(Exception):
    """The budget is used up; what was copied so far is the beginning."""


def bounded_json(value: Any, *, hide: Hide, is_secret: IsSecret) -> Any:
    """Return the value as plain JSON of at most 64 KiB without secrets; a marker says what was cut or has no JSON."""
    if value is None:
        return None
    copy = _Copy(hide, is_secret)
    try:
        whole = copy.of(value)
        copy.result = hide_named(copy.result, is_secret)
    except BaseException as error:  # noqa: BLE001 - the value's own code may raise anything, and its run is recorded all the same
        return {
            "not_json": (text_of(error) or name_of(type(error)))[:200],
            "repr": hide(described(value, hide=hide))[:MAX_SHOWN],
        }
    try:
        text = json.dumps(copy.result, allow_nan=False)
    except ValueError as error:  # a key that JSON writes as another text than it has here
        return {"not_json": str(error)[:200], "repr": hide(described(value, hide=hide))[:MAX_SHOWN]}
    if whole and len(text) <= MAX_JSON:
        return copy.result
    return {"clipped": "more than 64 KiB of JSON", "start": text[:MAX_START]}


def hide_named(value: Any, is_secret: IsSecret) -> Any:
    """Hide, within a JSON value, what stands beside the name of a secret: in a pair, as headers are, or in a dict of name and value."""
    if isinstance(value, list):
        if len(value) == 2 and is_name(value[0], is_secret):
            value[1] = HIDDEN
        for item in value:
            hide_named(item, is_secret)
    elif isinstance(value, dict):
        if any(is_name(value.get(key), is_secret) for key in ("name", "key", "header", "field")):
            value.update(dict.fromkeys({"value", "val"} & value.keys(), HIDDEN))
        for item in value.values():
            hide_named(item, is_secret)
    return value


def is_name(value: Any, is_secret: IsSecret) -> bool:
    """Return whether the value is one word, and the name of a secret."""
    return (
        isinstance(value, str)
        and len(value) <= LONGEST_NAME
        and not set(value) & set(" =:")
        and is_secret(value)
    )


_ITSELF = (bool, int)  # what JSON gives back as it was, if it is not too large
MAX_ITSELF = 10**15
_exact = json.JSONEncoder(allow_nan=False).encode


def exact_json(value: Any) -> Any:
    """Return the value as JSON gives it back; ValueError, TypeError or RecursionError for what is none, or is larger than 64 KiB."""
    if value is None or (type(value) in _ITSELF and abs(value) < MAX_ITSELF):
        return value
    text = _exact(value)
    if len(text) > MAX_JSON:
        raise ValueError(f"it has {len(text):,} bytes, more than {MAX_JSON:,} (64 KiB)")
    kept = json.loads(text)
    if found := unkeepable_within(kept):
        raise ValueError(f"it contains {found}, which no store can keep")
    return kept


def bounded_failure(failure: Failure | None, *, hide: Hide) -> Failure | None:
    """Return the failure with a message of 2,000 and a traceback of 16 Ki characters, without secrets."""
    if failure is None:
        return None
    return replace(
        failure,
        type=failure.type[:MAX_TYPE],
        message=bounded_text(failure.message, MAX_MESSAGE, hide=hide),
        traceback=_ends_of(failure.traceback, MAX_TRACEBACK, hide),
    )


def bounded_text(text: str, most: int, *, hide: Hide) -> str:
    """Return the beginning of the text. Twice of what is kept is searched: a secret cut by the search lies beyond what is kept."""
    found = hide(text[: 2 * most])
    return found if len(text) <= most else f"{found[:most]} [... cut]"


def _ends_of(text: str, most: int, hide: Hide) -> str:
    """Both ends of the text: the last lines of a traceback name the error, the first ones the way to it."""
    if len(text) <= most:
        return hide(text)
    half = most // 2
    head, tail = hide(text[:most]), hide(text[-most:])
    return f"{head[:half]}\n[... {len(text) - most:,} characters cut ...]\n{tail[-half:]}"


class _Copy:
    """A copy of one value in plain dicts, lists, texts and numbers, as far as 64 KiB reach."""

    def __init__(self, hide: Hide, is_secret: IsSecret) -> None:
        self.result: Any = None
        self._hide = hide
        self._is_secret = is_secret
        self._left = MAX_JSON
        self._open: list[tuple[Iterator[Any], Any]] = []

    def of(self, value: Any) -> bool:
        """Copy into `result`; False if the budget did not reach. A loop, since a nest may be deeper than the stack."""
        try:
            self.result = self._one(value)
            while self._open:
                items, into = self._open[-1]
                for item in items:
                    if isinstance(into, list):
                        into.append(self._one(item))
                    else:
                        key = self._key(item[0])
                        hidden = self._is_secret(key)
                        into[key] = self._text(HIDDEN) if hidden else self._one(item[1])
                    if self._open[-1][0] is not items:
                        break
                else:
                    self._open.pop()
        except _TooLargeError:
            return False
        return True

    def _spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise _TooLargeError

    def _text(self, text: str) -> str:
        self._spend(len(text) + 3)
        return text

    def _key(self, key: Any) -> str:
        kind = type(key)
        if issubclass(kind, str):
            return self._text(self._hide(str.__getitem__(key, slice(0, MAX_JSON))))
        if key is None or kind is bool:
            return self._text(json.dumps(key))
        if issubclass(kind, int):
            return self._text(json.dumps(self._whole_number(key)))
        if issubclass(kind, float):
            return self._text(json.dumps(self._real_number(float.__float__(key))))
        raise NotJsonError(f"keys must be str, int, float, bool or None, not {name_of(kind)}")

    def _one(self, value: Any) -> Any:
        """Return a plain value, or a container whose items follow."""
        self._spend(2)
        kind = type(value)
        if issubclass(kind, str):
            return self._string(value)
        if value is None or kind is bool:
            return value
        if issubclass(kind, int):
            self._spend(int.bit_length(value) // 4)
            return self._whole_number(value)
        if issubclass(kind, float):
            return self._real_number(float.__float__(value))
        return self._container(value, kind)

    def _string(self, value: Any) -> str:
        # A secret that the search does not see whole lies beyond what is kept.
        hidden = self._hide(str.__getitem__(value, slice(0, MAX_JSON)))
        if str.__len__(value) > MAX_JSON or len(hidden) > self._left:
            raise self._last(hidden)
        self._spend(len(hidden))
        return hidden

    def _last(self, text: str) -> _TooLargeError:
        """Keep the beginning of the text that used the budget up."""
        if self._open:
            into = self._open[-1][1]
            into.append(text) if isinstance(into, list) else into.update({"...": text})
        else:
            self.result = text
        return _TooLargeError()

    def _whole_number(self, value: int) -> int:
        if int.bit_length(value) > MAX_DIGITS_BITS:
            raise NotJsonError(f"an int of {int.bit_length(value):,} bits is too large")
        return int.__add__(value, 0)

    def _real_number(self, value: float) -> float:
        if not math.isfinite(value):
            raise NotJsonError(f"out of range float values are not JSON compliant: {value!r}")
        return value

    def _container(self, value: Any, kind: type) -> Any:
        if len(self._open) >= MAX_DEPTH:
            raise NotJsonError(f"nested deeper than {MAX_DEPTH}, or around in a circle")
        into: Any
        if issubclass(kind, dict):
            into, items = {}, iter(value.items() if kind is OrderedDict else dict.items(value))
        elif issubclass(kind, list):
            into, items = [], list.__iter__(value)
        elif issubclass(kind, tuple):
            into, items = [], tuple.__iter__(value)
        elif isinstance(value, Mapping):
            into, items = {}, ((key, value[key]) for key in value)
        elif isinstance(value, (list, tuple)):  # a proxy of one
            into, items = [], iter(value)
        else:
            raise NotJsonError(f"Object of type {name_of(kind)} is not JSON serializable")
        self._open.append((items, into))
        return into


# ---------------------------------------------------------------- texts about values


def name_of(kind: type) -> str:
    """Return the name of a class, whatever its metaclass makes of names."""
    return _TYPE_NAME(kind)[:200]


def text_of(error: BaseException) -> str:
    """Return the message of an exception: at most 4,000 characters, and a text even where the exception has none."""
    arguments = _ARGUMENTS(error)
    try:
        makes_text: Any = type(error).__str__
        if makes_text is _PLAIN_TEXT and len(arguments) == 1 and type(arguments[0]) is str:
            return str(arguments[0][:_MOST_TEXT])
        if isinstance(makes_text, FunctionType) or makes_text in _SHORT_BY_NATURE or _is_small(arguments):
            return str.__getitem__(str(error), slice(0, _MOST_TEXT))
    except BaseException as another:  # noqa: BLE001 - the text is made by the exception's own code
        return f"<no text: {name_of(type(another))}>"
    return ", ".join(described(argument) for argument in arguments[:_FEW])


def described(value: Any, *, hide: Hide = str) -> str:
    """Return what the value looks like in at most 2,000 characters; its own `__repr__` is asked only if it has little to go through."""
    try:
        return _described(value, 3, hide)[: 2 * MAX_SHOWN]
    except BaseException as error:  # noqa: BLE001 - the value's own code may raise anything
        return f"<no repr: {name_of(type(error))}>"


def _described(value: Any, depth: int, hide: Hide) -> str:
    kind = type(value)
    if kind in _TEXTS:
        kept = value[:MAX_SHOWN]  # hidden before quotes and escapes stand around it
        return repr(hide(kept) if kind is str else kept) + ("..." if len(value) > MAX_SHOWN else "")
    if kind in _BRACKETS:
        return _items_described(value, kind, depth, hide)
    shows: Any = kind.__repr__
    if shows is _PLAIN_REPR or _is_small(value):
        return str.__getitem__(repr(value), slice(0, MAX_SHOWN))
    return f"<{name_of(kind)} object, too large to show>"


def _items_described(value: Any, kind: type, depth: int, hide: Hide) -> str:
    opening, closing = _BRACKETS[kind]
    if not depth:
        return f"{opening}...{closing}"
    items = itertools.islice(value.items() if kind is dict else value, _FEW)
    if kind is dict:
        shown = [
            f"{_described(key, depth - 1, hide)}: {_described(item, depth - 1, hide)}" for key, item in items
        ]
    else:
        shown = [_described(item, depth - 1, hide) for item in items]
    more = [f"... {len(value) - _FEW:,} more"] if len(value) > _FEW else []
    return f"{opening}{', '.join([*shown, *more])}{closing}"


def _is_small(value: Any) -> bool:
    """Return whether all that the value refers to is so little that one C call over it is short. Runs none of its code."""
    seen: set[int] = set()
    looked_at = [value]
    for _ in range(_MOST_LOOKED_AT):
        if not looked_at:
            return True
        one = looked_at.pop()
        if id(one) in seen or issubclass(type(one), _NOT_LOOKED_INTO):
            continue
        seen.add(id(one))
        if not _has_little(one):
            return False
        looked_at += gc.get_referents(one)
    return False


def _has_little(one: Any) -> bool:
    kind = type(one)
    for sized in _SIZED:
        if issubclass(kind, sized):
            return bool(sized.__len__(one) <= (_MOST_CHARACTERS if sized in _TEXTS else _MOST_REFERENCES))
    return not issubclass(kind, int) or int.bit_length(one) <= MAX_DIGITS_BITS


_MOST_TEXT = 4000
_TYPE_NAME: Callable[[type], str] = type.__dict__["__name__"].__get__
_ARGUMENTS: Callable[[BaseException], tuple[Any, ...]] = BaseException.__dict__["args"].__get__
_PLAIN_TEXT: Any = BaseException.__str__
_PLAIN_REPR: Any = object.__repr__
_SHORT_BY_NATURE: tuple[Any, ...] = (
    UnicodeDecodeError.__str__, UnicodeEncodeError.__str__, UnicodeTranslateError.__str__, BaseExceptionGroup.__str__,
)  # fmt: skip
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), frozenset: ("frozenset({", "})"), dict: ("{", "}"), deque: ("deque([", "])"),
}  # fmt: skip
_TEXTS = (str, bytes, bytearray)
_SIZED: tuple[Any, ...] = (str, bytes, bytearray, list, tuple, dict, set, frozenset, deque, array)
