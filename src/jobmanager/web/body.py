"""The body of a call: strict JSON of a bounded size, and of exactly one shape."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic_core import from_json

from jobmanager.errors import JobManagerError

LARGEST = 64 * 1024
DEEPEST = 32
MOST_RUNS = 1600
"""So many ids fit into 64 KiB."""

Kind = Literal["ticks", "plan", "sweep"]

_KINDS = frozenset(get_args(Kind))
_KEYS = {"v", "call", "kind", "runs"}
_INTEGERS = range(-(2**63), 2**63)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_RUN_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


class BodyError(JobManagerError, ValueError):
    """The body is no strict JSON or no call; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the database. `digest` of its bytes tells a repeat from another call under the same number."""

    call: int
    kind: Kind
    runs: tuple[str, ...]
    digest: bytes


def read_call(body: bytes) -> Call:
    """Return the call in these bytes; BodyError."""
    said = strict_json(body)
    if type(said) is not dict:
        raise BodyError("a call is an object")
    if not said.keys() <= _KEYS:
        raise BodyError("a call has the keys v, call, kind and runs, and no other")
    version, number, kind = said.get("v"), said.get("call"), said.get("kind")
    if type(version) is not int or version != 1:
        raise BodyError("v must be 1: this release knows no other form of a call")
    if type(number) is not int or number < 0:
        raise BodyError("call must be a whole number, 0 or more")
    if type(kind) is not str or kind not in _KINDS:
        raise BodyError("kind must be ticks, plan or sweep")
    runs = said.get("runs", None if kind == "ticks" else [])
    return Call(number, _as_kind(kind), _run_ids(runs, kind), hashlib.sha256(body).digest())


def read_instant(body: bytes) -> datetime | None:
    """Return the instant that the body of a tick names as `scheduled_for`; None if it names none. BodyError for what is no instant.

    A body that is no JSON object is a ticker's own, and says nothing to us.
    """
    try:
        said = strict_json(body)
    except BodyError:
        return None
    named = said.get("scheduled_for") if type(said) is dict else None
    if named is None:
        return None
    try:
        moment = datetime.fromisoformat(named)
    except (TypeError, ValueError):
        raise BodyError("scheduled_for must be an instant such as 2026-03-11T02:00:00Z") from None
    if moment.tzinfo is None:
        raise BodyError("scheduled_for needs an offset, such as the Z of 2026-03-11T02:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise BodyError("scheduled_for lies beyond the calendar") from None


def strict_json(body: bytes, *, largest: int = LARGEST) -> Any:
    """Return the value, as every reader would read it; BodyError for what readers differ on.

    Refused are, beside what is no JSON: other encodings than UTF-8, NaN and infinities, numbers outside of 64 bits, keys that
    come twice, U+0000, lone surrogates, more than 32 levels and more than 64 KiB, or `largest` bytes.
    """
    if len(body) > largest:
        raise BodyError(f"the body is larger than {largest // 1024} KiB")
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BodyError(f"no strict JSON: {error}") from None
    # The parser keeps the last of two equal keys: then fewer are left than stand there.
    if _checked(value, 0) != _STRING.sub(b"", body).count(b":"):
        raise BodyError("a key comes twice")
    return value


def _checked(value: Any, depth: int) -> int:
    """Return how many members the objects in it have; BodyError if something in it is refused."""
    match value:
        case str():
            if "\0" in value:
                raise BodyError("U+0000 in a text")
        case int():
            if value not in _INTEGERS:
                raise BodyError("a number outside of 64 bits")
        case float():
            if not math.isfinite(value):
                raise BodyError("a number outside of 64 bits")
        case list() | dict() if depth == DEEPEST:
            raise BodyError(f"more than {DEEPEST} levels")
        case list():
            return sum([_checked(one, depth + 1) for one in value])
        case dict():
            inner = [_checked(key, depth) + _checked(one, depth + 1) for key, one in value.items()]
            return len(value) + sum(inner)
    return 0


def _run_ids(said: Any, kind: str) -> tuple[str, ...]:
    if type(said) is not list:
        raise BodyError("runs must be a list of run ids")
    if kind != "ticks" and said:
        raise BodyError(f"a call of kind {kind} has no runs")
    if len(said) > MOST_RUNS:
        raise BodyError(f"more than {MOST_RUNS} runs in one call")
    for one in said:
        if type(one) is not str or not _RUN_ID.fullmatch(one):
            raise BodyError("a run id is a UUID in lower case")
    return tuple(dict.fromkeys(said))


def _as_kind(kind: str) -> Kind:
    return kind  # type: ignore[return-value]  # one of them, as was checked
