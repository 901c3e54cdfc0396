"""An imported job: its declaration as source text, with remarks for the person who pastes it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal

from jobmanager.errors import JobManagerError
from jobmanager.job import RETRY_OPTIONS, Retry, make_job
from jobmanager.registry import parameters_of

Mark = Literal["same", "changed", "manual"]
LINE = 79


@dataclass(frozen=True, slots=True)
class Remark:
    """`same`: nothing to do. `changed`: the job will behave otherwise. `manual`: a person has to decide or write something."""

    mark: Mark
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedJob:
    """One entry of the other scheduler, or its file as a whole. `source` is Python, '' if no job can be written."""

    entry: str
    job_id: str = ""
    source: str = ""
    remarks: tuple[Remark, ...] = ()

    @property
    def unchanged(self) -> bool:
        """Whether the job needs no attention."""
        return all(remark.mark == "same" for remark in self.remarks)


def same(text: str) -> Remark:
    """Remark on what behaves as before."""
    return Remark("same", text)


def changed(text: str) -> Remark:
    """Remark on what will behave otherwise."""
    return Remark("changed", text)


def manual(text: str) -> Remark:
    """Remark on what a person has to decide or write."""
    return Remark("manual", text)


def skipped(entry: str, text: str) -> ImportedJob:
    """Leave out an entry that makes no job, with the reason."""
    return ImportedJob(entry=entry, remarks=(manual(text),))


def written(
    entry: str, job_id: str, handler: str, options: Mapping[str, Any], remarks: Sequence[Remark]
) -> ImportedJob:
    """Write the entry as a call of `add_job`; a call that this version would refuse becomes a remark."""
    refusal = refused(job_id, options)
    if refusal:
        return ImportedJob(entry=entry, remarks=(*remarks, refusal))
    source = call("jobs.add_job", (job_id, handler), options)
    return ImportedJob(entry=entry, job_id=job_id, source=source, remarks=tuple(remarks))


def refused(job_id: str, options: Mapping[str, Any]) -> Remark | None:
    """Say why these options make no job; None if they make one."""
    try:
        make_job(job_id, job_id, options)  # type: ignore[arg-type]  # make_job refuses unknown options
    except JobManagerError as error:
        return manual(str(error))
    return None


def call(name: str, positional: Sequence[str], options: Mapping[str, Any]) -> str:
    """Write a call as Python, on one line if that fits."""
    words = [*map(literal, positional), *(f"{word}={literal(value)}" for word, value in options.items())]
    line = f"{name}({', '.join(words)})"
    return line if len(line) <= LINE else "\n    ".join([f"{name}(", *(f"{word}," for word in words)]) + "\n)"


def literal(value: Any) -> str:
    """Write a value as Python."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case datetime():
            return f'datetime.fromisoformat("{value.isoformat()}")'
        case Retry():
            given = {name: getattr(value, name) for name in RETRY_OPTIONS}
            different = {name: kept for name, kept in given.items() if kept != RETRY_OPTIONS[name].default}
            return f"Retry({', '.join(f'{name}={literal(kept)}' for name, kept in different.items())})"
        case Mapping():
            return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def titled(title: str, taken: set[str]) -> tuple[str, dict[str, Any]]:
    """Make a free job id of the title, add it to `taken`, and return it with the option that keeps a differing title."""
    stem = re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._")[:120] or "job"
    job_id = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, 10_000))) if name not in taken)
    taken.add(job_id)
    return job_id, {} if job_id == title else {"name": title}


def zone_name(zone: tzinfo | None) -> str:
    """Return the IANA name; '' for an offset without a name."""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    return "UTC" if zone is UTC or name == "Etc/UTC" else name or ""


def arguments(
    function: Callable[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Remark]]:
    """Return the options that give a function these arguments, with remarks on what does not fit.

    `function` is None if it was not found.
    """
    named, remarks = dict(kwargs), []
    if args and function is None:
        remarks.append(manual(f"name its arguments {literal(list(args))} in config."))
    elif function is not None:
        try:
            if "context" in _parameters(function):
                remarks.append(
                    manual("rename its parameter 'context': here that is the RunContext of the run.")
                )
            named = _named(function, args, kwargs)
            parameters_of(function).fill(getattr(function, "__name__", "handler"), named, {})
        except Exception as error:  # noqa: BLE001 - a foreign signature or annotation may raise anything
            remarks.append(manual(f"its arguments do not fit: {error}"))
    foreign = [word for word, value in named.items() if not _storable(value)]
    for word in foreign:
        value = named.pop(word)
        remarks.append(
            manual(f"{word}={value!r} is no JSON value, which config needs: create it in the handler.")
        )
    return ({"config": named} if named else {}), remarks


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _named(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(function).bind(*args, **kwargs).arguments
    named: dict[str, Any] = {}
    for word, value in bound.items():
        kind = _parameters(function)[word].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise TypeError(
                f"{word} takes {value!r} by position; a handler gets keyword arguments from config."
            )
        named.update(value if kind is inspect.Parameter.VAR_KEYWORD else {word: value})
    return named


def _storable(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
