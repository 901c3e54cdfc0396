"""Kinds of option values. Each reads what a caller gave into the one form that is kept, or says what it takes instead."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jobmanager.clock import LONGEST, as_duration
from jobmanager.validation.texts import unkeepable, unkeepable_within

ZERO, MICROSECOND = timedelta(0), timedelta(microseconds=1)


class Refused(ValueError):  # noqa: N818 - never leaves the library: the option's name and value make an error of it
    """The end of a sentence that begins with the option and its value: `timeout='abc'` ..."""


class Kind(ABC):
    """What an option takes."""

    @property
    @abstractmethod
    def takes(self) -> str:
        """The values it takes, in words that complete `use ...`."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return the value in the form that is kept; `Refused` for what is none of this kind. Reading twice changes nothing."""

    def refusal(self) -> Refused:
        """Return the error of this kind."""
        return Refused(f"cannot be used; use {self.takes}")


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number of a range. A bool is none."""

    low: int
    high: int
    unit: str = ""

    @property
    def takes(self) -> str:
        return f"a whole number{self.unit and f' of {self.unit}'}, {self.low:,} to {self.high:,}"

    def read(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise self.refusal()
        return int(value)


PRIORITY = Whole(-(2**15), 2**15 - 1)
"""What the column of a run's priority holds."""
ATTEMPTS = Whole(1, 1_000)
"""The number of attempts that a run may have."""


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A finite number of a range. A bool is none."""

    low: float
    high: float

    @property
    def takes(self) -> str:
        return f"a number, {self.low:g} to {self.high:g}"

    def read(self, value: Any) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not self.low <= value <= self.high
        ):
            raise self.refusal()
        return value


@dataclass(frozen=True, slots=True)
class Duration(Kind):
    """A timedelta, given as one, as seconds or as a text; at most a century."""

    low: timedelta = ZERO

    @property
    def takes(self) -> str:
        least = "from 0" if self.low == ZERO else "longer than 0"
        return f"seconds ({least}, at most a century), a timedelta, or a text such as '5m' or '1h30m'"

    def read(self, value: Any) -> timedelta:
        try:
            length = as_duration(value)
        except ValueError:
            raise self.refusal() from None
        if length < self.low:
            raise self.refusal()
        return length


@dataclass(frozen=True, slots=True)
class Seconds(Kind):
    """A duration that is kept as a number of seconds."""

    @property
    def takes(self) -> str:
        return Duration().takes

    def read(self, value: Any) -> float:
        if type(value) in (int, float) and 0 <= value <= LONGEST.total_seconds():
            return value  # type: ignore[no-any-return]  # an int or float, as just seen
        return Duration().read(value).total_seconds()


@dataclass(frozen=True, slots=True)
class Delays(Kind):
    """A list of durations, at least one, kept as a tuple of seconds."""

    @property
    def takes(self) -> str:
        return "a list of at least one delay, each in seconds from 0, a timedelta or a text such as '5m'"

    def read(self, value: Any) -> tuple[float, ...]:
        try:
            delays = tuple(Seconds().read(delay) for delay in _members(value))
        except Refused:
            raise self.refusal() from None
        if not delays:
            raise self.refusal()
        return delays


@dataclass(frozen=True, slots=True)
class Exceptions(Kind):
    """Exception classes, kept as a tuple; one class alone stands for itself."""

    @property
    def takes(self) -> str:
        return "a tuple of exception classes, such as (OSError, TimeoutError)"

    def read(self, value: Any) -> tuple[type[BaseException], ...]:
        classes = (value,) if isinstance(value, type) else _members(value)
        if not all(isinstance(item, type) and issubclass(item, BaseException) for item in classes):
            raise self.refusal()
        return classes


@dataclass(frozen=True, slots=True)
class OneOf(Kind):
    """One of a few words."""

    words: Sequence[str]

    @property
    def takes(self) -> str:
        return f"one of {', '.join(self.words)}"

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise self.refusal()
        return next(word for word in self.words if word == value)


@dataclass(frozen=True, slots=True)
class Several(Kind):
    """A list of values of another kind, kept as a tuple; one value alone stands for itself."""

    each: Kind
    most: int = 20

    @property
    def takes(self) -> str:
        return f"a list of at most {self.most}, each {self.each.takes}"

    def read(self, value: Any) -> tuple[Any, ...]:
        given = (value,) if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or len(given) > self.most:
            raise self.refusal()
        try:
            return tuple(self.each.read(item) for item in given)
        except Refused:
            raise self.refusal() from None


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    """True or False, and nothing that merely counts as such."""

    @property
    def takes(self) -> str:
        return "True or False"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.refusal()
        return value


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """A text of bounded length that every store can keep and, with a pattern, that matches it."""

    most: int = 1_000
    pattern: re.Pattern[str] | None = None
    described: str = "a text"
    least: int = 1

    @property
    def takes(self) -> str:
        return f"{self.described}, {self.least} to {self.most:,} characters"

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not self.least <= len(value) <= self.most:
            raise self.refusal()
        if found := unkeepable(value):
            raise Refused(f"contains {found}, which no store can keep; use {self.takes}")
        if self.pattern is not None and not self.pattern.fullmatch(value):
            raise self.refusal()
        return value


@dataclass(frozen=True, slots=True)
class EventName(Text):
    """The name of an event, alone or as `On`, which has it."""

    most: int = 200
    described: str = "the name of an event"

    def read(self, value: Any) -> str:
        return Text.read(self, getattr(value, "event", value))


@dataclass(frozen=True, slots=True)
class TextMapping(Kind):
    """A mapping whose keys are texts; every text in it can be kept."""

    @property
    def takes(self) -> str:
        return "a dict with text keys"

    def read(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.refusal()
        if found := value and unkeepable_within(dict(value)):
            raise Refused(f"contains {found}, which no store can keep; leave it out")
        return value


@dataclass(frozen=True, slots=True)
class Condition(Kind):
    """A bool, the name of an environment variable, or a function without arguments."""

    @property
    def takes(self) -> str:
        return "True, False, the name of an environment variable, or a function without arguments"

    def read(self, value: Any) -> bool | str | Callable[[], bool]:
        named = isinstance(value, str) and value and "=" not in value and not unkeepable(value)
        if not (named or isinstance(value, bool) or callable(value)):
            raise self.refusal()
        return value  # type: ignore[no-any-return]  # one of the three, as just seen


def _members(value: Any) -> tuple[Any, ...]:
    """Return the members of a list, tuple or set; nothing else is taken for a list, least of all a text."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise Refused
    return tuple(value)
