"""Runs in steps over the API: the steps and children of a run, and events that are sent."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import Field

from jobmanager.access.principal import READ, WRITE
from jobmanager.present.records import run_record
from jobmanager.present.steps import MOST_COUNTED, event_record, step_record
from jobmanager.step import StepKind, StepStatus
from jobmanager.web.api.models import Given, Instant, Page, Seconds, Shown, text
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


router.add("GET", "/runs/{run_id}/steps", READ, list_steps, response_model=Page[StepModel])
router.add("GET", "/runs/{run_id}/children", READ, list_children, response_model=Page[RunModel])
router.add("POST", "/events", WRITE, send_event, status_code=201, response_model=EventModel)
