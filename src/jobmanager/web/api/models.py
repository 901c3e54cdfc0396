"""The building blocks of what the API takes and returns: strict models, instants, pages, problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

T = TypeVar("T")
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")
EXAMPLE = "2026-03-02T12:00:00Z"
MOST_ON_A_PAGE = 200


def _as_moment(given: object) -> object:
    if not isinstance(given, str) or not RFC_3339.fullmatch(given):
        raise ValueError(f"is no instant of RFC 3339, such as {EXAMPLE}")
    try:
        return datetime.fromisoformat(given.upper())
    except ValueError as error:
        raise ValueError(f"is no instant: {error}") from None


Moment = Annotated[
    datetime,
    BeforeValidator(_as_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": [EXAMPLE]}),
]
"""An instant that a request names, with its offset."""
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time", "examples": [EXAMPLE]})]
"""An instant of a response: RFC 3339, UTC, with a Z."""
Seconds = float
JsonObject = dict[str, Any]
# Regular expressions of OpenAPI are those of ECMAScript; U+0000 is refused by the store, and so by all texts.
PRINTABLE = r"^[^\u0000]*$"


def text(most: int, *, least: int = 1, **more: Any) -> Any:
    """Return the bounds of a text, beside `str` in an `Annotated`: so many characters, and none that no store keeps."""
    return Field(min_length=least, max_length=most, pattern=PRINTABLE, **more)


JobId = Annotated[str, text(128, examples=["nightly-report"])]
Name = Annotated[str, text(500)]
Remark = Annotated[str, text(4_000)]
Length = (
    Annotated[float, Field(ge=0, le=3_155_760_000)] | Annotated[str, Field(max_length=50, examples=["10m"])]
)
"""A length of time: seconds, or a text such as `10m`."""


class Given(BaseModel):
    """The body of a request: an unknown field is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _open(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)


class Shown(BaseModel):
    """The body of a response. Later versions may add fields: clients ignore those that they do not know."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_open)


class Page(Shown, Generic[T]):
    """A page of a list, and the cursor of the next one; null on the last page."""

    items: list[T]
    next: str | None = Field(
        description="Give it as `cursor` for the next page; null if this is the last one.",
        examples=["0195-cursor"],
    )


class ProblemModel(Shown):
    """A problem, as RFC 9457 has it. `type` is stable, `hint` says what to do."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_open, title="Problem")

    type: str = Field(examples=["urn:jobmanager:problem:run-conflict"])
    title: str = Field(examples=["A run of this job is active"])
    status: int = Field(examples=[409])
    detail: str | None = None
    hint: str | None = Field(default=None, examples=["Wait for its end, or cancel it."])
    request_id: str | None = Field(default=None, examples=["9f86d081884c7d65"])
    active_run: str | None = Field(default=None, description="The id of the run that stands in the way.")
    fields: list[JsonObject] | None = Field(
        default=None, description="The fields that do not fit, each with `field` and `message`."
    )
    reauth: str | None = Field(
        default=None, description="Where a person signs in again before a dangerous action."
    )


def page_of(found: Sequence[T], limit: int, cursor: Callable[[T], str]) -> dict[str, Any]:
    """Return a page of the first `limit` things of one more that were asked for; `next` is the cursor of its last one."""
    items = list(found[:limit])
    return {"items": items, "next": cursor(items[-1]) if len(found) > limit and items else None}
