"""Runs in steps over the API: the steps and children of a run, and events that are sent."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import Field

from jobmanager.access.principal import READ, WRITE
from jobmanager.present.records import run_record
from jobmanager.present.steps import (
    MOST_COUNTED,
    event_record,
    sent_event_record,
    step_record,
    wait_record,
)
from jobmanager.step import StepKind, StepStatus
from jobmanager.web.api.models import MOST_ON_A_PAGE, Given, Instant, Page, Seconds, Shown, page_of, text
from jobmanager.web.api.routing import Routes
from jobmanager.web.api.run_models import RUN_ID, FailureModel, RunModel
from jobmanager.web.site import site_of

LONGEST_WORD = 200
router = Routes(tags=["steps"])


class AwaitedModel(Shown):
    """The event that a step waits for: the first of this name and key."""

    name: str = Field(examples=["user/confirmed"])
    key: str = Field(examples=["42"])


class StepModel(Shown):
    """One step of a run. A `retrying` one is tried again, a `waiting` one goes on, at `wakes_at` or before."""

    run_id: str = Field(examples=[RUN_ID])
    position: int = Field(description="Its place among the steps of the run, from 0.")
    name: str = Field(examples=["send-welcome"])
    occurrence: int = Field(description="How often the run had used the name before.")
    kind: StepKind
    status: StepStatus
    attempt: int = Field(description="The tries of the step.", examples=[1])
    started_at: Instant
    ended_at: Instant | None
    duration_seconds: Seconds | None = Field(description="With all tries, and the waits between them.")
    wakes_at: Instant | None
    awaits: AwaitedModel | None
    output: Any
    error: FailureModel | None


class EventModel(Shown):
    """An event as it is kept. Its data is not shown: with an id in use it may be that of another sender."""

    id: str = Field(examples=["stripe-1"])
    name: str = Field(examples=["user/confirmed"])
    key: str = Field(examples=["42"])
    sent_at: Instant


class StartedModel(Shown):
    """A run that an event started."""

    run_id: str = Field(examples=[RUN_ID])
    job_id: str = Field(examples=["welcome"])
    status: str = Field(examples=["succeeded"])


class ListedEventModel(EventModel):
    """An event that was sent, with the runs that it started."""

    runs: list[StartedModel]


class WaitModel(Shown):
    """A run that rests in a step until an event of this name and key comes; at `until` it goes on without."""

    run_id: str = Field(examples=[RUN_ID])
    job_id: str = Field(examples=["welcome"])
    step: str = Field(examples=["user/confirmed"])
    name: str = Field(examples=["user/confirmed"])
    key: str = Field(examples=["42"])
    since: Instant
    until: Instant | None


EventName = Annotated[
    str | None, Query(max_length=LONGEST_WORD, description="Only of this name.", examples=["user/confirmed"])
]


class SentEvent(Given):
    """An event to be sent."""

    name: Annotated[str, text(LONGEST_WORD, examples=["user/confirmed"])]
    key: Annotated[str, text(LONGEST_WORD, least=0, examples=["42"])] = Field(
        default="", description="The one it happened to; empty where there is none."
    )
    data: Any = Field(default=None, description="What the handlers get: JSON of at most 64 KiB.")
    id: Annotated[str, text(LONGEST_WORD, examples=["stripe-1"])] | None = Field(
        default=None, description="An event of an id is sent once: another request gets the first one."
    )


def list_steps(request: Request, run_id: str) -> dict[str, Any]:
    """List the steps of a run in the order in which they began, without secrets; none for a handler that uses none."""
    return {"items": [step_record(step) for step in site_of(request).jobs.steps(run_id)], "next": None}


def list_children(
    request: Request, run_id: str, limit: Annotated[int, Query(ge=1, le=MOST_COUNTED)] = 100
) -> dict[str, Any]:
    """List the runs that a run has started in its steps, oldest first."""
    found = site_of(request).jobs.children(run_id, limit=limit)
    return {"items": [run_record(child) for child in found], "next": None}


def send_event(request: Request, given: SentEvent) -> dict[str, Any]:
    """Say that something has happened: runs that wait for an event of this name and key go on."""
    words = given.model_dump()
    sent = event_record(site_of(request).jobs.send_event(words.pop("name"), **words))
    del sent["data"]
    return sent


def list_sent_events(
    request: Request,
    name: EventName = None,
    cursor: Annotated[str | None, Query(max_length=LONGEST_WORD)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE)] = 50,
) -> dict[str, Any]:
    """List the events that were sent, newest first, for the seven days that they are kept; none to a principal with scopes."""
    found = site_of(request).jobs.sent_events(name=name, before=cursor, limit=limit + 1)
    page = page_of(found, limit, lambda event: event.id)
    return page | {"items": [sent_event_record(event) for event in page["items"]]}


def list_event_waits(
    request: Request,
    name: EventName = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE)] = 50,
) -> dict[str, Any]:
    """List the runs that rest until an event comes, the longest first."""
    waits = site_of(request).jobs.event_waits(name=name, limit=limit)
    return {"items": [wait_record(wait) for wait in waits], "next": None}


router.add("GET", "/runs/{run_id}/steps", READ, list_steps, response_model=Page[StepModel])
router.add("GET", "/runs/{run_id}/children", READ, list_children, response_model=Page[RunModel])
router.add("GET", "/events/sent", READ, list_sent_events, response_model=Page[ListedEventModel])
router.add("GET", "/events/waits", READ, list_event_waits, response_model=Page[WaitModel])
router.add("POST", "/events", WRITE, send_event, status_code=201, response_model=EventModel)
