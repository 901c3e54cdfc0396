"""Arguments of the manager's methods, checked before the store sees them: all stores take the same, and refuse the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from jobmanager.errors import PayloadError
from jobmanager.validation.kinds import ATTEMPTS, PRIORITY, Duration, Flag, Kind, OneOf, Refused, Text, Whole
from jobmanager.validation.texts import shown, unkeepable

# A key and a scope stand in indexes: PostgreSQL keeps 2,704 bytes in an entry of one, and a character has up to four.
_NAME, _REMARK = Text(500, least=0), Text(4_000, least=0)
_KINDS: dict[str, Kind] = {
    "priority": PRIORITY,
    "max_attempts": ATTEMPTS,
    "key": _NAME,
    "once": Text(500),
    "scope": _NAME,
    "requested_by": _NAME,
    "by": _NAME,
    "reason": _REMARK,
    "notify": Flag(),
    "dry_run": Flag(),
    "from_start": Flag(),
    "plan": Flag(),
    "active": Flag(),
    "again": Flag(),
    "limit": Whole(0, 1_000_000),
}
_NEVER_NONE = frozenset({"once", "notify", "dry_run", "from_start", "plan", "active", "again", "limit"})
FIRST_YEAR, LAST_YEAR = 1970, 9998
Word = TypeVar("Word", bound=StrEnum)


def check_arguments(**arguments: Any) -> None:
    """Raise PayloadError for the first argument whose value its column cannot keep; None stands for a text left out."""
    for name, value in arguments.items():
        if value is not None or name in _NEVER_NONE:
            _read(_KINDS[name], name, value)


def may_be_id(value: object) -> bool:
    """Return whether a store can be asked for this id of a job or run; no store holds any other."""
    return isinstance(value, str) and not unkeepable(value)


def one_of(name: str, value: Any, words: Collection[str]) -> Any:
    """Return the word that an argument gives, which is one of these; PayloadError for any other."""
    return _read(OneOf(tuple(words)), name, value)


def position_of(name: str, value: Any) -> int:
    """Return the place in a list that an argument means; PayloadError for what is no whole number from -1, which stands before all."""
    position: int = _read(Whole(-1, 2**62), name, value)
    return position


def ids_of(name: str, value: Any) -> list[str]:
    """Return those ids of a collection that a store can be asked for; PayloadError for what is no collection, such as a single id."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise PayloadError(f"{name}={shown(value)} cannot be used; use a list of ids.")
    return [each for each in value if may_be_id(each)]


def texts_of(name: str, value: Any, most: int = 500) -> list[str]:
    """Return the texts of a collection; PayloadError for what is no collection, and for one with anything else in it."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise PayloadError(f"{name}={shown(value)} cannot be used; use a list of texts.")
    return [text_of(name, each, most) for each in value]


def mapping_of(name: str, value: Any) -> dict[str, Any]:
    """Return a mapping whose keys are texts; PayloadError for anything else."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise PayloadError(f"{name}={shown(value)} cannot be used; use a mapping of names.")
    return dict(value)


def duration_of(name: str, value: Any) -> timedelta:
    """Return the duration that an argument means; PayloadError if it means none, or one below 0."""
    length: timedelta = _read(Duration(), name, value)
    return length


def text_of(name: str, value: Any, most: int, *, least: int = 1) -> str:
    """Return the text of an argument; PayloadError for what is none, is too long, or cannot be kept."""
    text: str = _read(Text(most, least=least), name, value)
    return text


def words_of(name: str, value: Any, words: type[Word]) -> list[Word]:
    """Return the words that an argument gives, one or several; PayloadError for any other word."""
    given = value if isinstance(value, Collection) and not isinstance(value, (str, bytes)) else [value]
    return [words(_read(OneOf(tuple(words)), name, word)) for word in given]


def moment_of(name: str, value: Any) -> datetime:
    """Return the instant that an argument means, in UTC; PayloadError for what is no aware datetime."""
    if not isinstance(value, datetime):
        raise PayloadError(
            f"{name}={shown(value)} is no datetime; pass an aware one, for example datetime.now(UTC)."
        )
    if value.tzinfo is None or value.utcoffset() is None:
        raise PayloadError(f"{name} needs a zone: pass an aware datetime, for example datetime.now(UTC).")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PayloadError(f"{name}={shown(value)} lies outside of the years 1 to 9999 in UTC.") from None


def planned_moment_of(name: str, value: Any) -> datetime:
    """Return an instant that schedules can be asked about, in UTC; PayloadError for another, and for what is no aware datetime."""
    moment = moment_of(name, value)
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise PayloadError(f"{name}={shown(value)} lies outside of the years {FIRST_YEAR} to {LAST_YEAR}.")
    return moment


def _read(kind: Kind, name: str, value: Any) -> Any:
    try:
        return kind.read(value)
    except Refused as refused:
        raise PayloadError(f"{name}={shown(value)} {refused}.") from None
