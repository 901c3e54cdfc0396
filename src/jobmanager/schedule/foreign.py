"""Hints for expressions of other cron dialects: what to write here instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_ITEMS = {
    r"\?.*": "Write * for Quartz's '?'; mind that Quartz counts 1 = Sunday, here 1 is Monday.",
    r"L?W|\d+W|WL|LW-?\d*": "The nearest working day (W) is not supported; take fixed days and decide in the handler.",
    r"L-\d+": "Days before the last one are not supported; L is the last day of the month.",
    r"\$|LAST": "The last day of the month is written L.",
    r"(LAST|L)-?[A-Z]{3}": "The last weekday of the month is written FRIL or 5L.",
    r"(H|R)(\(.*\))?(/\d+)?": "Hashed and random times are not supported; choose one, or give the job jitter.",
    r".*~.*": "Random ranges are not supported; choose a time, or give the job jitter.",
    r".*@.*": "An alias such as @daily stands alone.",
}
_WEEKDAY_ITEMS = {r"L": "The last Friday of the month is FRIL; Saturday, which Quartz means by L, is SAT."}
_WEEKDAY_NAMES = re.compile(r"(SUN|MON|TUES?|WED(NES)?|THU(RS?)?|FRI|SAT(UR)?)(DAY)?")
_MONTH_NAMES = re.compile(
    r"JAN(UARY)?|FEB(RUARY)?|MAR(CH)?|APR(IL)?|MAY|JUNE?|JULY?|AUG(UST)?|SEP(T(EMBER)?)?|OCT(OBER)?|NOV(EMBER)?|DEC(EMBER)?"
)


def character(char: str) -> str:
    """Say what to write for a character that no expression contains."""
    if char.isdecimal():
        return f"Write the digit {int(char)}."
    if char in "\r\n":
        return "An expression is one line."
    return "Use ASCII letters and digits, separated by blanks."


def word(text: str) -> str | None:
    """Say what to write for a word that stands before or behind the fields in crontab files."""
    if text.startswith("#"):
        return "Comments do not belong to the expression."
    if "=" in text:
        return "Give the zone as the argument timezone='Europe/Berlin'."
    return None


def count(fields: int) -> str:
    """How to come to the right number of fields."""
    if fields == 7:
        return "There is no year field; mind that Quartz counts 1 = Sunday, here 1 is Monday."
    return "They are: minute hour day-of-month month day-of-week."


def alias(text: str, known: Iterable[str]) -> str:
    """Say what to write for an `@word` that is no alias here."""
    if text.lower() == "@reboot":
        return "A job cannot be bound to a restart; start it by hand with trigger_job()."
    if text.lower() == "@every":
        return "Intervals are schedules of their own: Every(seconds), or every= in the decorator."
    near = get_close_matches(text.lower(), list(known), n=1)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."


def item(field: str, text: str) -> str | None:
    """Say what to write for an item (upper case) that only another dialect has."""
    if re.fullmatch(r"[0-9*/-]*", text):
        return None
    known = _ITEMS | _WEEKDAY_ITEMS if field == "day-of-week" else _ITEMS
    return next((hint for pattern, hint in known.items() if re.fullmatch(pattern, text)), None)


def value(field: str, text: str) -> str | None:
    """Say what to write for a value (upper case) that is neither number nor name of this field."""
    if _WEEKDAY_NAMES.fullmatch(text) or _MONTH_NAMES.fullmatch(text):
        named = "day-of-week" if _WEEKDAY_NAMES.fullmatch(text) else "month"
        return f"Write {text[:3]}." if field == named else f"{text} belongs into the field {named}."
    if text == "L":
        return "L stands alone in day-of-month, or behind a weekday as in FRIL."
    if not text:
        return "Something is missing here."
    return None


def number(found: int) -> str | None:
    """Say what to write for a number outside its field's range."""
    return "There is no year field." if 1900 <= found <= 2999 else None
