"""The policies of a job as the fields of a form: made from the description of the options, and read back as words of the decorator."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from jobmanager.job import GROUPS, POLICY_OPTIONS, RETRY_OPTIONS
from jobmanager.ledger.definition import OF_CODE
from jobmanager.ledger.job_view import JobView
from jobmanager.ledger.overrides import OVERRIDABLE
from jobmanager.validation.kinds import Delays, Duration, Flag, Kind, Number, OneOf, Seconds, Several, Whole
from jobmanager.validation.options import Option

RETRY = "retry."
"""The beginning of the names of the fields for `retry`."""
_ELSEWHERE = OF_CODE | {"config", "retry"}
_RETRY_OF_CODE = frozenset({"retry_on", "give_up_on"})
_RETRY_FIELDS = {RETRY + name: item for name, item in RETRY_OPTIONS.items() if name not in _RETRY_OF_CODE}
OF_STORED: Mapping[str, Option] = {
    **_RETRY_FIELDS,
    **{name: item for name, item in POLICY_OPTIONS.items() if name not in _ELSEWHERE},
}
"""The options that a stored job has, by their fields."""
OF_DECLARED: Mapping[str, Option] = {
    key: item
    for key, item in OF_STORED.items()
    if key.removeprefix(RETRY) in OVERRIDABLE and item.overridable
}
"""The options of a job that code declares which an operator may override, by their fields."""
_LABELS = {
    "overlap": "If the run before still works",
    "catch_up": "Instants whose tick never came",
    "retry.max_attempts": "Attempts",
    "retry.base": "First delay",
    "retry.jitter": "Jitter of delays",
    "ping_url": "Ping URL",
}
_CHOICES: Mapping[str, Mapping[str, str]] = {
    "overlap": {
        "skip": "skip this instant",
        "queue": "wait, one at most",
        "queue_all": "wait in line",
        "cancel_running": "ask it to end",
        "allow": "run beside it",
    },
    "catch_up": {"latest": "run the latest", "all": "run all", "none": "only record them"},
    "isolation": {"thread": "in this process", "process": "in a process of its own"},
    "visibility": {
        "team": "everybody",
        "project": "its scopes see their runs",
        "system": "administrators only",
    },
}
_LENGTH = "seconds, or 5m, 1h30m, 2d"
_LINK = re.compile(r",? see \[[^\]]*\]\([^)]*\)")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyField:
    """One option in a form. `value` is its text as it is or was typed, `error` what is wrong with that."""

    key: str
    label: str
    kind: Literal["choice", "number", "text", "lines"]
    hint: str
    value: str
    choices: Sequence[tuple[str, str]] = ()
    error: str = ""
    is_default: bool = True


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """The fields that a form shows together."""

    title: str
    fields: Sequence[PolicyField]

    @property
    def changed(self) -> int:
        """The number of them that differ from their defaults."""
        return sum(not field.is_default for field in self.fields)

    @property
    def is_wrong(self) -> bool:
        """Whether one of them has an error."""
        return any(field.error for field in self.fields)


def offered(view: JobView | None) -> Mapping[str, Option]:
    """Return the options that the form of a job offers, by their fields; those of a stored job for one that is to be made."""
    return OF_STORED if view is None or view.source == "stored" else OF_DECLARED


def policy_values(view: JobView | None) -> dict[str, str]:
    """Return the fields of a job as they are; without a job their defaults."""
    return {key: _text(item.kind, _value(view, key, item)) for key, item in offered(view).items()}


def _value(view: JobView | None, key: str, item: Option) -> Any:
    if view is None:
        return item.default
    if view.job is None:
        return view.declared.get(item.column, item.default)
    return getattr(view.job.retry if key.startswith(RETRY) else view.job, item.name)


def policy_groups(
    options: Mapping[str, Option], values: Mapping[str, str], errors: Mapping[str, str]
) -> list[PolicyGroup]:
    """Return the groups of the fields that have any."""
    groups: dict[str, list[PolicyField]] = {title: [] for title in GROUPS}
    for key, item in options.items():
        groups[item.group].append(_field(key, item, values, errors))
    return [PolicyGroup(title, fields) for title, fields in groups.items() if fields]


def _field(key: str, item: Option, values: Mapping[str, str], errors: Mapping[str, str]) -> PolicyField:
    default = _text(item.kind, item.default)
    value = values.get(key, default)
    return PolicyField(
        key=key,
        label=_LABELS.get(key, item.name.replace("_", " ").capitalize()),
        kind=_kind(item.kind),
        hint=_hint(item, default),
        value=value,
        choices=_choices(key, item.kind),
        error=errors.get(key, ""),
        is_default=value == default,
    )


def _kind(kind: Kind) -> Literal["choice", "number", "text", "lines"]:
    match kind:
        case OneOf() | Flag():
            return "choice"
        case Whole() | Number():
            return "number"
        case Several(each) if not isinstance(each, OneOf):
            return "lines"
    return "text"


def _choices(key: str, kind: Kind) -> Sequence[tuple[str, str]]:
    if isinstance(kind, Flag):
        return (("true", "yes"), ("false", "no"))
    told = _CHOICES.get(key, {})
    return [(word, told.get(word, word)) for word in kind.words] if isinstance(kind, OneOf) else ()


def _hint(item: Option, default: str) -> str:
    """Return what the option means, what the field takes, and what it is without a word."""
    takes = "" if isinstance(item.kind, (OneOf, Flag)) else _takes(item.kind)
    without = "" if _kind(item.kind) == "choice" else f"default {default}" if default else "optional"
    return "; ".join(part for part in (_LINK.sub("", item.help), takes, without) if part)


def _takes(kind: Kind) -> str:
    match kind:
        case Duration() | Seconds():
            return _LENGTH
        case Delays():
            return f"delays with commas between, each {_LENGTH}"
        case Several(OneOf(words)):
            return f"with commas between: {', '.join(words)}"
        case Several(_, most):
            return f"one on each line, at most {most}"
    return kind.takes


# ---------------------------------------------------------------- read back


def read_policies(
    options: Mapping[str, Option], typed: Mapping[str, str], changed: Collection[str], *, stored: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the words that changed fields mean, and by field what is wrong.

    An empty field of a stored job gives the default back. The options of `retry` are one word of a stored job, and a word each of one
    that code declares.
    """
    words: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for key, item in options.items():
        if key in changed:
            try:
                words[key] = _read(item, typed.get(key, "").strip(), has_default=stored)
            except ValueError as refused:
                errors[key] = str(refused)
    if not any(key.startswith(RETRY) for key in words):
        return words, errors
    if not stored:
        return {key.removeprefix(RETRY): value for key, value in words.items()}, errors
    plain = {key: value for key, value in words.items() if not key.startswith(RETRY)}
    return {**plain, "retry": _retry(options, typed)}, errors


def _retry(options: Mapping[str, Option], typed: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the options of `retry` that differ from their defaults; a field that cannot be read is told where it was changed."""
    found: dict[str, Any] = {}
    for key, item in options.items():
        text = typed.get(key, "").strip()
        if key.startswith(RETRY) and text and text != _text(item.kind, item.default):
            try:
                found[item.name] = _read(item, text, has_default=True)
            except ValueError:
                continue
    return found or None


def _read(item: Option, text: str, *, has_default: bool) -> Any:
    """Return what was typed as a value of the option; ValueError, in words for people, for what is none."""
    if not text:
        if item.optional or has_default:
            return None
        raise ValueError("Give a value. “Back to the code” on the page of the job removes every override.")
    try:
        value = _raw(item.kind, text)
        item.kind.read(value)
    except (ValueError, KeyError):
        raise ValueError(f"Cannot be read. It takes {_takes(item.kind)}.") from None
    return value


def _raw(kind: Kind, text: str) -> Any:
    match kind:
        case Whole():
            return int(text)
        case Number():
            return float(text)
        case Duration() | Seconds():
            return number_or_text(text)
        case Delays():
            return [number_or_text(part) for part in re.split(r"[,\s]+", text.strip(", "))]
        case Flag():
            return {"true": True, "false": False}[text]
        case Several(OneOf()):
            return [part for part in re.split(r"[,\s]+", text) if part]
        case Several():
            return [line.strip() for line in text.splitlines() if line.strip()]
    return text


def number_or_text(text: str) -> Any:
    """Return a number as a number; other texts, as `5m`, are read where they are used."""
    text = text.strip()
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _text(kind: Kind, value: Any) -> str:
    """Return a value as its field shows it."""
    if value is None:
        return ""
    match kind:
        case Duration() | Seconds():
            return _length(value)
        case Delays():
            return ", ".join(_length(delay) for delay in value)
        case Flag():
            return "true" if value else "false"
        case Number():
            return f"{value:.15g}"
        case Several(each):
            return (", " if isinstance(each, OneOf) else "\n").join(map(str, value))
    return str(value)


def _length(value: timedelta | float) -> str:
    """Return a length as it may be typed: `90s`, `5m`, `2d`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    for size, unit in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.15g}{'s' if seconds else ''}"
