"""The options of a job as the API takes them: fields made from the description that the decorator reads, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import pydantic
from pydantic import Field

from jobmanager.job import POLICY_OPTIONS, RETRY_OPTIONS
from jobmanager.ledger.definition import OF_CODE
from jobmanager.schedule.dst import Fold, Gap
from jobmanager.validation.kinds import (
    Delays,
    Duration,
    Flag,
    Kind,
    Number,
    OneOf,
    Seconds,
    Several,
    Text,
    TextMapping,
    Whole,
)
from jobmanager.validation.options import Option
from jobmanager.web.api.models import Given, JobId, JsonObject, Length, Moment, Name, text

RETRY_OF_CODE = ("retry_on", "give_up_on")
# The fields are made, and no type checker can know them.
create_model: Any = pydantic.create_model
CRON = Annotated[str, text(1_000, examples=["0 3 * * *"])]
ZONE = Annotated[str, text(100, examples=["Europe/Berlin"])]


class DstModel(Given):
    """The rule for times of day that a change of the clocks skips (`gap`) or shows twice (`fold`)."""

    gap: Gap = "end"
    fold: Fold = "first"


def _type(kind: Kind) -> Any:
    match kind:
        case Whole(low, high):
            return Annotated[int, Field(ge=low, le=high)]
        case Number(low, high):
            return Annotated[float, Field(ge=low, le=high)]
        case Duration() | Seconds():
            return Length
        case Delays():
            return Annotated[list[Length], Field(min_length=1, max_length=1_000)]
        case OneOf(words):
            return Literal[tuple(words)]
        case Flag():
            return bool
        case Several(each, most):
            return Annotated[list[_type(each)], Field(max_length=most)]  # type: ignore[misc]  # made while this is imported
        case Text(most, _, _, least):
            return Annotated[str, text(most, least=least)]
        case TextMapping():
            return JsonObject
    raise TypeError(kind)  # pragma: no cover - of a new kind of option, at import


def _optional(kind: Any) -> Any:
    """Return the type with null."""
    return kind | None


def _field(item: Option) -> tuple[Any, Any]:
    return _optional(_type(item.kind)), Field(default=None, description=item.help)


RetryModel = create_model(
    "Retry",
    __base__=Given,
    __doc__="When another attempt follows a failed one.",
    **{name: _field(item) for name, item in RETRY_OPTIONS.items() if name not in RETRY_OF_CODE},
)
_RETRY = Annotated[int, Field(ge=1, le=1_000)] | RetryModel
_FIELDS: Mapping[str, tuple[Any, Any]] = {
    "name": (_optional(Name), Field(default=None, description="A title for people; without it the id.")),
    "cron": (_optional(CRON), Field(default=None, description="A cron line.")),
    "timezone": (_optional(ZONE), Field(default=None, description="The zone of the cron line.")),
    "dst": (
        _optional(DstModel),
        Field(
            default=None,
            description="What clock changes do to the cron line; without it the rule of Debian's cron.",
        ),
    ),
    "every": (_optional(Length), Field(default=None, description="An interval.")),
    "at": (_optional(Moment), Field(default=None, description="A single instant.")),
    "until": (
        _optional(Moment),
        Field(default=None, description="After it the cron line or the interval has no instant."),
    ),
    "exclude": (
        _optional(Annotated[str, text(1_000, examples=["weekends; holidays DE-BY; 2026-12-24"])]),
        Field(
            default=None, description="Instants that are recorded as skipped: dates, cron lines, calendars."
        ),
    ),
    **{
        name: (_optional(_RETRY), Field(default=None, description=item.help))
        if name == "retry"
        else _field(item)
        for name, item in POLICY_OPTIONS.items()
        if name not in OF_CODE
    },
}

if TYPE_CHECKING:
    NewJob: TypeAlias = Given
    Edit: TypeAlias = Given
else:
    NewJob = create_model(
        "NewJob",
        __base__=Given,
        __doc__="A job to make: it names a registered handler. At most one of `cron`, `every` and `at`; without any it is started by hand only.",
        id=(JobId, ...),
        handler=(Annotated[str, text(128, examples=["export-orders"])], ...),
        **_FIELDS,
    )
    Edit = create_model(
        "Edit",
        __base__=Given,
        __doc__="What changes of a job; what is left out stays, and null gives an option its default back.",
        handler=(_optional(Annotated[str, text(128)]), None),
        max_attempts=(
            _optional(Annotated[int, Field(ge=1, le=1_000)]),
            Field(default=None, description="Of a job that code declares: how often it is tried."),
        ),
        **_FIELDS,
    )


def words_of(given: Given) -> dict[str, Any]:
    """Return the options that a request gives, as the manager takes them."""
    return given.model_dump(exclude_unset=True)
