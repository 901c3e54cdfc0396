"""Runs as the API shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from jobmanager.run import ErrorKind, Trigger
from jobmanager.web.api.models import Instant, JsonObject, Seconds, Shown

Status = Literal["pending", "running", "succeeded", "failed", "cancelled", "skipped", "missed"]
RUN_ID = "01959b3e-7a00-7123-8123-456789abcdef"


class FailureModel(Shown):
    """Why an attempt failed."""

    kind: ErrorKind | str = Field(examples=["exception"])
    type: str = Field(examples=["OSError"])
    message: str
    traceback: str


class ProgressModel(Shown):
    """The progress that a handler recorded."""

    processed: int
    total: int | None
    message: str


class RunModel(Shown):
    """A run: one tick, or one start by hand. Payloads show no secret."""

    id: str = Field(examples=[RUN_ID])
    job: str = Field(examples=["nightly-report"])
    status: Status
    reason: str | None
    trigger: Trigger
    requested_by: str | None
    scheduled_for: Instant | None
    first_for: Instant | None
    ticks: int
    due_at: Instant
    opened_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    duration_seconds: Seconds | None
    queue_delay_seconds: Seconds | None
    attempt: int
    max_attempts: int
    owner: str | None
    priority: int
    scope: str | None
    idempotency_key: str | None
    blocked_by: str | None
    parent_id: str | None
    cancel_requested_at: Instant | None
    payload: JsonObject | None
    output: Any
    error: FailureModel | None
    progress: ProgressModel | None


class AttemptModel(Shown):
    """One attempt that was followed by another; the run itself is the last one."""

    attempt: int
    outcome: str
    owner: str | None
    started_at: Instant | None
    ended_at: Instant
    error: FailureModel | None


class LineModel(Shown):
    """One captured log line; with its `cursor` the lines after it are listed."""

    cursor: str = Field(examples=["3.1"])
    at: Instant
    level: str
    attempt: int
    text: str
