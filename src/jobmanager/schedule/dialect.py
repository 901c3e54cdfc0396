"""The grammar of cron expressions: from text to canonical sets, or a CronError with place and hint."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, NoReturn

from jobmanager.errors import CronError
from jobmanager.schedule import foreign
from jobmanager.schedule.fields import DayRule, Fields

WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One position of an expression: what it is called and which numbers it takes."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


SECOND = Part("second", 0, 59)
MINUTE = Part("minute", 0, 59)
HOUR = Part("hour", 0, 23)
DAY = Part("day-of-month", 1, 31)
MONTH = Part("month", 1, 12, MONTHS)
WEEKDAY = Part("day-of-week", 0, 7, WEEKDAYS)
PARTS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@lru_cache(maxsize=8192)
def read(expression: str) -> Fields:
    """Parse an expression into its canonical sets; CronError if it is invalid."""
    words = _words(expression)
    with_seconds = len(words) == 6
    if not with_seconds:
        words = [_Word("0", 0), *words]
    second, minute, hour, day, month, weekday = (
        _Field(part, word) for part, word in zip(PARTS, words, strict=True)
    )
    return Fields(
        seconds=_sorted(second.values),
        minutes=_sorted(minute.values),
        hours=_sorted(hour.values),
        days=_sorted(day.values),
        last_day=day.last_day,
        months=_sorted(month.values),
        weekdays=_sorted(value % 7 for value in weekday.values),
        nth=tuple(sorted(weekday.nth)),
        last_weekdays=_sorted(weekday.last_weekdays),
        either=not (day.star or weekday.star),
        wildcard=second.star or minute.star or hour.star,
        with_seconds=with_seconds,
    )


@lru_cache(maxsize=8192)
def day_rules(expression: str) -> tuple[DayRule, ...]:
    """Parse the dates of an expression, as `Fields.day_rules` returns them; CronError if it is invalid."""
    return read(expression).day_rules()


class _Word(NamedTuple):
    """A piece of the expression and where it begins."""

    text: str
    position: int

    def cut(self, start: int, end: int | None = None) -> _Word:
        return _Word(self.text[start:end], self.position + start)


def _words(expression: str) -> list[_Word]:
    """Split an expression into its 5 or 6 fields, an alias spelled out."""
    words = [_Word(match[0], match.start()) for match in re.finditer(r"[^ \t]+", expression)]
    for index, word in enumerate(words, start=-len(words)):
        if strange := re.search(r"[^!-~]", word.text):
            field = PARTS[index].name if len(words) in {5, 6} else None
            char, problem = word.cut(*strange.span()), "is no character of a cron expression"
            _refuse("bad_value", field, char, problem, foreign.character(char.text))
    if words and words[0].text.startswith("@"):
        return _alias(words)
    for word in words:
        if hint := foreign.word(word.text):
            _refuse("unsupported_token", None, word, "is not part of a cron expression", hint)
    if len(words) not in {5, 6}:
        raise CronError(
            f"A cron expression has 5 fields, or 6 with the seconds first; {expression!r} has {len(words)}.",
            kind="field_count",
            value=expression,
            hint=foreign.count(len(words)),
        )
    return words


def _alias(words: list[_Word]) -> list[_Word]:
    expansion = ALIASES.get(words[0].text.lower())
    if expansion is None:
        _refuse("unknown_alias", None, words[0], "is not an alias", foreign.alias(words[0].text, ALIASES))
    if len(words) > 1:
        _refuse("field_count", None, words[1], f"follows the alias {words[0].text}", "An alias stands alone.")
    return [_Word(text, words[0].position) for text in expansion.split()]


class _Field:
    """One field, read item by item into what its items add up to."""

    def __init__(self, part: Part, word: _Word) -> None:
        self.part = part
        self.star = word.text.startswith("*")
        self.values: set[int] = set()
        self.last_day = False
        self.nth: set[tuple[int, int]] = set()
        self.last_weekdays: set[int] = set()
        start = 0
        for text in word.text.split(","):
            self._read(word.cut(start, start + len(text)))
            start += len(text) + 1

    def _read(self, item: _Word) -> None:
        text = item.text.upper()
        if self.part is DAY and text == "L":
            self.last_day = True
        elif self.part is WEEKDAY and "#" in text:
            self.nth.add(self._nth(item))
        elif self.part is WEEKDAY and (last := re.fullmatch(r"L(\d+)|([^/]+)L", text)):
            self.last_weekdays.add(self._value(item.cut(*last.span(last.lastindex or 0))) % 7)
        elif hint := foreign.item(self.part.name, text):
            self._refuse("unsupported_token", item, "is a word of another dialect", hint)
        else:
            self.values.update(self._range(item))

    def _nth(self, item: _Word) -> tuple[int, int]:
        """Parse `d#n` into weekday and count."""
        middle = item.text.index("#")
        weekday, count = self._value(item.cut(0, middle)), item.cut(middle + 1)
        if not count.text.isdigit():
            self._refuse("bad_value", count, "does not count weekdays", "Write 1 to 5 after the '#'.")
        if not 1 <= _number(count.text) <= 5:
            self._refuse("out_of_range", count, "is outside 1 to 5", "For the last one write L, as in FRIL.")
        return weekday % 7, _number(count.text)

    def _range(self, item: _Word) -> range:
        """List the values of `*`, `a`, `a-b` and their `/step` forms; a single value with a step runs to the end."""
        head, slash, _ = item.text.partition("/")
        step = self._step(item.cut(len(head) + 1)) if slash else 1
        first, _, second = head.partition("-")
        if head == "*":
            return range(self.part.low, self.part.high + 1, step)
        if not (first and second):
            low = self._value(item.cut(0, len(head)))
            return range(low, (self.part.high if slash else low) + 1, step)
        low = self._value(item.cut(0, len(first)))
        high = self._value(item.cut(len(first) + 1, len(head)))
        if second.upper() == "SUN" and low > 0:
            high = 7  # FRI-SUN: Vixie cron takes it and never fires
        if low > high:
            rewritten = self._rewritten(low, high, step, named=first.isalpha())
            self._refuse("reversed_range", item, "runs backwards", f"Write {rewritten}.")
        return range(low, high + 1, step)

    def _step(self, word: _Word) -> int:
        if not word.text.isdigit() or _number(word.text) == 0:
            self._refuse("bad_step", word, "is no step", "A step is a whole number from 1, as in */15.")
        return _number(word.text)

    def _value(self, word: _Word) -> int:
        """Parse a number or a name."""
        name = word.text.upper()
        if name in self.part.names:
            return self.part.names.index(name) + self.part.low
        names = f" or {self.part.names[0]} to {self.part.names[-1]}" if self.part.names else ""
        takes = f"It takes {self.part.low} to {self.part.high}{names}."
        if not name.isdigit():
            hint = foreign.value(self.part.name, name) or takes
            self._refuse("bad_value", word, f"is no {self.part.name}", hint)
        number = _number(name)
        if not self.part.low <= number <= self.part.high:
            self._refuse("out_of_range", word, f"is no {self.part.name}", foreign.number(number) or takes)
        return number

    def _rewritten(self, low: int, high: int, step: int, *, named: bool) -> str:
        """Write the list that a range over the end of the cycle was meant to be."""
        bottom = 1 if self.part is WEEKDAY else self.part.low  # Sunday ends the week, as 7
        if step > 1:
            cycle = [*range(low, self.part.high + 1), *range(bottom, high + 1)]
            return ",".join(self._told(value, named=named) for value in cycle[::step])
        stretches = [(low, self.part.high), (bottom, high)]
        return ",".join(
            "-".join(self._told(value, named=named) for value in dict.fromkeys(stretch))
            for stretch in stretches
            if stretch[0] <= stretch[1]
        )

    def _told(self, value: int, *, named: bool) -> str:
        return self.part.names[(value - self.part.low) % len(self.part.names)] if named else str(value)

    def _refuse(self, kind: str, word: _Word, problem: str, hint: str) -> NoReturn:
        _refuse(kind, self.part.name, word, problem, hint)


def _refuse(kind: str, field: str | None, word: _Word, problem: str, hint: str | None) -> NoReturn:
    where = f"in field {field}, " if field else ""
    raise CronError(
        f"{word.text!r} ({where}character {word.position}) {problem}.",
        kind=kind,
        field=field,
        position=word.position,
        value=word.text,
        hint=hint,
    )


def _number(digits: str) -> int:
    # Ten digits tell every number from every range; int() refuses more than 4,300.
    return int(digits.lstrip("0")[:10] or "0")


def _sorted(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))
