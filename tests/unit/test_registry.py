"""Handlers under keys: lazy imports, and arguments checked by annotations."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header
from pydantic import BaseModel, Field

from jobmanager import RunContext
from jobmanager.errors import (
    ConfigurationError,
    DuplicateJobError,
    HandlerNotFoundError,
    JobNotFoundError,
    PayloadError,
)
from jobmanager.job import Job
from jobmanager.registry import Handler, Registry


class Colour(Enum):
    RED = "red"


class Address(BaseModel):
    street: str


def takes(
    day: date, colour: Colour, address: Address, count: Annotated[int, Field(gt=0)] = 1, anything: Any = None
) -> None: ...


def fill(function: Any, config: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    return Handler("key", function).arguments(config, payload)


def test_json_becomes_what_the_annotations_say() -> None:
    arguments = fill(
        takes,
        {"day": "2026-03-01", "colour": "red"},
        {"address": {"street": "Main"}, "count": "2", "anything": [1]},
    )

    assert arguments == {
        "day": date(2026, 3, 1),
        "colour": Colour.RED,
        "address": Address(street="Main"),
        "count": 2,
        "anything": [1],
    }


def test_the_payload_overrides_the_config() -> None:
    def handler(days: int, hours: int = 0) -> None: ...

    assert fill(handler, {"days": 1, "hours": 2}, {"days": 3}) == {"days": 3, "hours": 2}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"day": "soon", "colour": "red", "address": {"street": "x"}}, "day='soon'"),
        ({"day": "2026-01-01", "colour": "red", "address": {"street": "x"}, "count": 0}, "greater than 0"),
        ({"day": "2026-01-01", "colour": "red"}, "needs address"),
        ({"colr": "red"}, "Did you mean 'colour'"),
    ],
)
def test_what_does_not_fit_is_named(payload: dict[str, Any], says: str) -> None:
    with pytest.raises(PayloadError, match=says):
        fill(takes, {}, payload)


def test_a_handler_that_takes_only_the_context_reads_config_and_payload_there() -> None:
    def reads(context: RunContext) -> None: ...
    def named(context: RunContext, days: int = 1) -> None: ...
    def nothing() -> None: ...
    def everything(**rest: Any) -> None: ...

    assert fill(reads, {"a": 1}, {"b": 2}) == {}
    assert fill(everything, {"a": 1}, {"b": 2}) == {"a": 1, "b": 2}
    for strict in (named, nothing):
        with pytest.raises(PayloadError, match="'a' is unknown"):
            fill(strict, {"a": 1}, {})


def test_an_annotation_that_cannot_be_resolved_says_so() -> None:
    def broken(value: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(PayloadError, match="NoSuchName"):
        fill(broken, {}, {"value": 1})


@pytest.mark.parametrize(
    "path", ["no_module:f", "os.path:no_function", "os:sep", "os.path", ":f", "os:", "os..path:join"]
)
def test_a_path_that_leads_nowhere_is_a_handler_not_found(path: str) -> None:
    with pytest.raises(HandlerNotFoundError):
        _ = Handler("key", path).function


def test_keys_and_ids_are_unique_and_the_same_twice_is_once() -> None:
    registry = Registry()
    registry.add_handler("key", takes)
    registry.add_handler("key", takes)
    registry.add_job(Job(id="a-job", name="a", handler="key"))
    registry.add_job(Job(id="a-job", name="a", handler="key"))

    with pytest.raises(DuplicateJobError, match="registered twice"):
        registry.add_handler("key", fill)
    with pytest.raises(DuplicateJobError, match="declared twice"):
        registry.add_job(Job(id="a-job", name="b", handler="key"))
    with pytest.raises(JobNotFoundError, match="Did you mean 'a-job'"):
        registry.job("a_job")
    with pytest.raises(HandlerNotFoundError, match="Did you mean 'key'"):
        registry.handler("kye")


def by_default(session: str = Depends(print)) -> None: ...
def by_keyword(*, token: str = Header()) -> None: ...
def by_text(session: Annotated[str, Depends(print)]) -> None: ...
def by_type(session: str) -> None: ...


by_type.__annotations__ = {"session": Annotated[str, Depends(print)]}


@pytest.mark.parametrize(
    ("function", "named"),
    [(by_default, "Depends"), (by_keyword, "Header"), (by_type, "Depends"), (by_text, "Depends")],
)
def test_what_only_a_request_of_fastapi_would_fill_is_refused(function, named):
    """Fails if a handler is called with an object of FastAPI in place of what it depends on."""
    with pytest.raises(ConfigurationError, match=rf"Handler 'key' has a parameter with FastAPI's {named}"):
        Registry().add_handler("key", function)


def test_the_schema_of_arguments_is_made_once_and_given_as_a_copy():
    handler = Handler("key", lambda address, count=1: None)
    handler.function.__annotations__.update(address=Address, count=int)
    first = handler.info().arguments
    first["properties"]["address"]["title"] = "changed by its reader"
    assert handler.info().arguments["properties"]["address"]["title"] == "Address"
