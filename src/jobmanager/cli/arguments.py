"""Reading of typed moments, durations and payloads into values; the error for any other text says how to write it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobmanager.cli.output.failures import UsageError
from jobmanager.clock import HOW_TO_WRITE, parse_duration
from jobmanager.validation.call_arguments import FIRST_YEAR, LAST_YEAR

if TYPE_CHECKING:
    from jobmanager.validation.options import Option


def duration(text: str) -> timedelta:
    """Read `90` (seconds), `30s`, `5m`, `1h30m`, `90d`, `2w`; UsageError for any other text."""
    try:
        return parse_duration(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a length of time.", hint=f"Write it as {HOW_TO_WRITE}.") from None


def moment(text: str, now: datetime) -> datetime:
    """Read an ISO date or time (without a zone: local time), `14:30`, `now`, `today`, `tomorrow`, `+2h` or `-30m`; return UTC."""
    found = _moment(text, now)
    if not FIRST_YEAR <= found.year <= LAST_YEAR:
        raise UsageError(
            f"{text!r} lies outside of the years {FIRST_YEAR} to {LAST_YEAR}.", hint="Give a nearer moment."
        )
    return found


def _moment(text: str, now: datetime) -> datetime:
    word = text.strip()
    midnight = datetime.combine(now.astimezone().date(), time())
    named = {"now": now, "today": midnight, "tomorrow": midnight + timedelta(days=1)}
    if word.lower() in named:
        return named[word.lower()].astimezone(UTC)
    if word[:1] in ("+", "-"):
        length = duration(word[1:])
        return (now + length if word[0] == "+" else now - length).astimezone(UTC)
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", word):
            return datetime.combine(midnight.date(), time.fromisoformat(word.zfill(5))).astimezone(UTC)
        return datetime.fromisoformat(word).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a moment.",
            hint="Write it as 2026-11-23T14:30, 2026-11-23T13:30Z, 14:30, now, tomorrow, +2h or -30m.",
        ) from None


def payload(text: str | None) -> dict[str, Any] | None:
    """Read a JSON object given as text, as `@file`, or as `-` for standard input."""
    if text is None:
        return None
    value = json_value(text, "payload")
    if not isinstance(value, dict):
        raise UsageError(
            f"The payload from {_source(text, 'payload')} is a JSON {_KINDS.get(type(value), 'value')}, not an object.",
            hint="""The handler's arguments go by name: --payload '{"days": 7}'""",
        )
    return value


def json_value(text: str, noun: str) -> Any:
    """Read the JSON of the option `--noun`, given as text, as `@file`, or as `-` for standard input."""
    try:
        written = (
            sys.stdin.read() if text == "-" else Path(text[1:]).read_text() if text.startswith("@") else text
        )
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The {noun} {text} cannot be read: {error}.", hint=f"Name a readable file: --{noun} @file.json"
        ) from None
    try:
        return json.loads(written)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"The {noun} from {_source(text, noun)} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            hint=f"""Quote it for the shell: --{noun} '{{"days": 7}}'""",
        ) from None


def _source(text: str, noun: str) -> str:
    return "standard input" if text == "-" else text if text.startswith("@") else f"--{noun}"


def option_words(texts: Sequence[str], options: Mapping[str, Option], now: datetime) -> dict[str, Any]:
    """Read `word=value` for each option as it takes it: durations, numbers, moments, `none`, and JSON for config and retry."""
    return dict(_option_word(text, options, now) for text in texts)


def _option_word(text: str, options: Mapping[str, Option], now: datetime) -> tuple[str, Any]:
    from jobmanager.validation.kinds import Duration, Flag, Whole

    word, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"{text!r} says nothing.", hint="Write word=value, for example timeout=5m.")
    described = options.get(word)
    kind = None if described is None else described.kind
    if value.lower() in ("none", "null") and (described is None or described.optional):
        return word, None
    if word == "config":
        return word, payload(value)
    if word == "retry":
        return word, _retry(value)
    if word in ("at", "until"):
        return word, moment(value, now)
    if word == "every" or isinstance(kind, Duration):
        return word, duration(value)
    if isinstance(kind, Flag):
        return word, _choice(word, value, {"true": True, "false": False})
    if not isinstance(kind, Whole):
        return word, value
    try:
        return word, int(value)
    except ValueError:
        raise UsageError(f"{word}={value!r} is not a number.", hint=f"Write {word}=3.") from None


def _choice(word: str, value: str, choices: Mapping[str, Any]) -> Any:
    try:
        return choices[value.lower()]
    except KeyError:
        raise UsageError(f"{word}={value!r} is neither {' nor '.join(choices)}.") from None


def _retry(value: str) -> Any:
    """Read a number of attempts, or the words of a Retry as JSON."""
    from jobmanager.job import Retry

    if value.isdecimal():
        return int(value)
    try:
        return Retry(**(payload(value) or {}))
    except TypeError as error:
        raise UsageError(
            f"retry={value!r}: {error}.", hint="""Write retry=3 or retry='{"max_attempts": 3, "base": 10}'."""
        ) from None


_KINDS: dict[type, str] = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "value",
    type(None): "null",
}
