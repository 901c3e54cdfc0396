"""Trigger.dev: one schedule of a task of ours for each job; the task calls the endpoint (`jobmanager export trigger-dev` writes it)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

from jobmanager.backends.tickers.api import Api
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.remote import Planned
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import ConfigurationError, TickerError
from jobmanager.settings import Settings

SCHEDULES, PER_PAGE = "/api/v1/schedules", 100
HOUR = 3_600.0
DEPLOY = "`jobmanager export trigger-dev --out trigger`, then `npx trigger.dev deploy`"
TASK = "jobmanager-tick"


class TriggerDevBackend(TickerBackend):
    """Ticks from schedules of Trigger.dev. They hold the ids of jobs; the URL and the secret are in the environment of the task."""

    name: ClassVar[str] = "trigger_dev"
    title: ClassVar[str] = "Trigger.dev"
    api: Api

    def __init__(self, api: Api, *, task: str = TASK, **common: Any) -> None:
        super().__init__(api, **common)
        self._task = task

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> TriggerDevBackend:  # noqa: B008
        if settings.trigger_dev_api_key is None:
            raise ConfigurationError(
                "Backend 'trigger_dev' needs JOBMANAGER_TRIGGER_DEV_API_KEY, the secret key of an environment in Trigger.dev."
            )
        key = settings.trigger_dev_api_key.get_secret_value()
        if key.startswith("tr_") and key.startswith("tr_prod_") is not settings.is_production:
            raise ConfigurationError(
                f"JOBMANAGER_TRIGGER_DEV_API_KEY begins with {key[:8]!r} and JOBMANAGER_ENVIRONMENT is {settings.environment}: give "
                "the key of this environment. Production has tr_prod_, and nothing else has."
            )
        api = Api(cls.title, settings.trigger_dev_api_url, key)
        return cls(api, task=settings.trigger_dev_task, **cls.common(settings, clock))

    def target(self, job_id: str | None) -> str:
        return f"task {self._task}" + ("" if job_id is None else f" for {job_id}")

    def fetch(self) -> Iterator[Planned]:
        page, pages = 0, 1
        while page < pages:
            page += 1
            reply = self.api.ask("GET", SCHEDULES, params={"page": str(page), "perPage": str(PER_PAGE)})
            yield from map(_planned, self.api.rows_of(reply, "data"))
            pages = int((reply.get("pagination") or {}).get("totalPages") or 0)

    def put(self, wanted: Planned, found: Planned | None) -> None:
        body = {
            "task": self._task,
            "cron": wanted.text,
            "timezone": wanted.zone,
            "deduplicationKey": wanted.key,  # creates or updates; of the whole project, so it names the environment
            **({} if wanted.job_id is None else {"externalId": wanted.job_id}),
        }
        try:
            self.api.ask("POST", SCHEDULES, body=body)
        except TickerError as error:
            if error.status == 422 and "Task with identifier" in str(error):
                raise TickerError(f"{error} Deploy the task: {DEPLOY}.", retry_after=HOUR) from None
            raise

    def remove(self, found: Planned) -> None:
        self.api.ask("DELETE", f"{SCHEDULES}/{found.remote_id}", gone_is_fine=True)

    def switch(self, found: Planned, *, active: bool) -> None:
        self.api.ask("POST", f"{SCHEDULES}/{found.remote_id}/{'activate' if active else 'deactivate'}")

    def fix(self, error: TickerError) -> str:
        return f"Run {DEPLOY}." if "Deploy the task" in str(error) else super().fix(error)


def _planned(row: dict[str, Any]) -> Planned:
    job, generator = row.get("externalId"), row.get("generator") or {}
    return Planned(
        key=str(row.get("deduplicationKey") or ""),
        text=str(generator.get("expression", "")),
        zone=str(row.get("timezone") or "UTC"),
        target=f"task {row.get('task', '')}" + (f" for {job}" if job else ""),
        remote_id=str(row.get("id", "")),
        paused=not row.get("active", True),
        next_due_at=_moment(row.get("nextRun")),
    )


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError):
        return None
