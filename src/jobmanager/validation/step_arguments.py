"""Arguments of the calls that a handler makes for its steps, checked before anything of a step is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from jobmanager.clock import as_duration
from jobmanager.errors import StepError
from jobmanager.validation.kinds import MICROSECOND, Duration, Refused
from jobmanager.validation.texts import shown


def duration_of(call: str, step: object, name: str, value: Any) -> timedelta:
    """Return the duration that the argument `name` of a call for this step means; StepError if it means none."""
    try:
        return as_duration(value)
    except ValueError:
        raise refusal(call, step, name, value, Duration().takes) from None


def timeout_of(step: object, timeout: Any) -> timedelta:
    """Return the time that one try of a step may take; StepError for what is none."""
    kind = Duration(MICROSECOND)
    try:
        return kind.read(timeout)
    except Refused:
        raise refusal("step", step, "timeout", timeout, kind.takes) from None


def rest_of(step: object, duration: Any, units: Mapping[str, Any]) -> timedelta:
    """Return how long a run is to rest: a duration, and numbers of days and shorter units beside it; StepError for what is none."""
    length = duration_of("sleep", step, "duration", duration)
    for unit, number in units.items():
        try:
            length += timedelta(**{unit: number})
        except (TypeError, ValueError, OverflowError):
            raise refusal("sleep", step, unit, number, "a number, at most a century together") from None
    return length


def moment_of(step: object, moment: Any) -> datetime:
    """Return the moment until which a run is to rest, in UTC; StepError for what is no aware datetime."""
    use = "an aware datetime, for example datetime.now(UTC) + timedelta(days=1)"
    if not isinstance(moment, datetime):
        raise refusal("sleep_until", step, "moment", moment, use)
    if moment.utcoffset() is None:
        raise StepError(f"sleep_until {shown(step)}: {moment.isoformat()} has no time zone; use {use}.")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise refusal(
            "sleep_until", step, "moment", moment, "one within the years 1 to 9999 in UTC"
        ) from None


def function_of(step: object, function: Any) -> Callable[..., Any]:
    """Return the function of a step; StepError for what cannot be called, such as the result of a call."""
    if not callable(function):
        use = "a function, and its arguments behind it: step(name, function, argument)"
        raise refusal("step", step, "function", function, use)
    return function  # type: ignore[no-any-return]  # it is callable, as just seen


def payloads_of(step: object, payloads: Any) -> list[Any]:
    """Return the payloads of the runs to gather; StepError for what is no list."""
    if isinstance(payloads, (str, bytes, Mapping)) or not isinstance(payloads, Iterable):
        raise refusal("gather", step, "payloads", payloads, "a list of payloads, one for each run")
    return list(payloads)


def limit_of(step: object, limit: Any) -> int | None:
    """Return how many gathered runs may be open at a time; StepError for what is no whole number from 1."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise refusal("gather", step, "limit", limit, "a whole number from 1: less would start nothing")
    return limit


def refusal(call: str, step: object, name: str, value: Any, use: str) -> StepError:
    """Return the error of an argument, with the call, the step, the value and what to use."""
    return StepError(f"{call} {shown(step)}: {name}={shown(value)} cannot be used; use {use}.")
