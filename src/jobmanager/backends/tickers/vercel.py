"""Vercel: its Schedules come from the file vercel.json with each deployment (`jobmanager export vercel`); here they are read and compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from jobmanager.backends.base import AuditRow, Entry, Found, OutsideAdmin
from jobmanager.backends.external import ExternalBackend
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.remote import Keys, Planned
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import UnsupportedError
from jobmanager.job import Job
from jobmanager.settings import Settings

API = "https://vercel-schedules.com"
SCHEDULES, PER_PAGE = "/v1/schedules", "100"
EXPORT = "`jobmanager export vercel --out .`, and deploy"


class VercelBackend(TickerBackend):
    """Ticks from Vercel's Schedules or Cron Jobs. Without a token the entries are not known, and calls are all that is seen of them.

    `params`: the team and the project, which an access token needs and a deployment's own token does not.
    """

    name: ClassVar[str] = "vercel"
    title: ClassVar[str] = "Vercel"

    def __init__(self, api: Any = None, *, params: dict[str, str] | None = None, **common: Any) -> None:
        super().__init__(api, **common)
        self.keys = Keys.of_project()
        self._params = params or {}

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> VercelBackend:  # noqa: B008
        given = {"teamId": settings.vercel_team_id, "projectId": settings.vercel_project_id}
        params = {name: value for name, value in given.items() if value}
        common: dict[str, Any] = {
            "tick_url": settings.tick_path,
            "clock": clock,
            "grace": settings.grace,
            "is_locked": not settings.secrets,
        }
        token = settings.vercel_token.get_secret_value() if settings.vercel_token else _own_token()
        if not token:
            return cls(**common)
        from jobmanager.backends.tickers.api import Api  # noqa: PLC0415 - without a token no extra is needed

        return cls(Api(cls.title, settings.vercel_api_url, token), params=params, **common)

    def target(self, job_id: str | None) -> str:
        return f"GET {urlsplit(self._tick_url).path}" + ("" if job_id is None else f"/{job_id}")

    def fetch(self) -> Iterator[Planned]:
        assert self.api is not None  # noqa: S101 - asked before
        cursor: str | None = ""
        while cursor is not None:
            params = {**self._params, "limit": PER_PAGE, **({"cursor": cursor} if cursor else {})}
            reply = self.api.ask("GET", SCHEDULES, params=params)
            yield from map(_planned, self.api.rows_of(reply, "data"))
            cursor = reply.get("cursor") or None

    def put(self, wanted: Planned, found: Planned | None) -> None:
        """Raise UnsupportedError: what calls a path comes from the file alone."""
        raise UnsupportedError(f"Vercel takes schedules that call a path from vercel.json alone: {EXPORT}.")

    def remove(self, found: Planned) -> None:
        """Raise UnsupportedError, as `put` does."""
        self.put(found, found)

    def switch(self, found: Planned, *, active: bool) -> None:
        assert self.api is not None  # noqa: S101 - asked before
        verb = "enable" if active else "disable"
        self.api.ask("POST", f"{SCHEDULES}/{quote(found.key, safe='')}/{verb}", params=self._params)

    # ---------------------------------------------------------------- what is known of it

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        ExternalBackend.sync(self, jobs)
        self._elsewhere = frozenset() if self._host is None else self._host.elsewhere()

    def settle(self, timeout: timedelta) -> None:
        """Return at once: nothing is written."""

    def entries(self) -> list[Entry]:
        return super().entries() if self.api is not None else ExternalBackend.entries(self)

    def admin(self, *, actor: str, audit: AuditRow) -> OutsideAdmin:
        if self.api is None:
            raise UnsupportedError(
                "What Vercel has planned is not known here: set JOBMANAGER_VERCEL_TOKEN. Its dashboard shows it, too."
            )
        return super().admin(actor=actor, audit=audit)

    def findings(self, jobs: Sequence[Job]) -> Iterator[Found]:
        if self.api is None or self._is_locked:
            yield from ExternalBackend.findings(self, jobs)
            return
        for found in super().findings(jobs):
            paused = "resume" in found.fix
            yield (
                found
                if found.level != "warning" or paused
                else Found(level="warning", text=found.text, fix=f"Run {EXPORT}.")
            )


def _own_token() -> str:
    """Return the token that a deployment on Vercel has of itself, '' elsewhere."""
    return os.environ.get("VERCEL_OIDC_TOKEN", "")


def _planned(row: dict[str, Any]) -> Planned:
    target, expression = row.get("target") or {}, row.get("expression") or {}
    return Planned(
        key=str(row.get("name", "")),
        text=str(expression.get("cron", "")),
        zone=str(row.get("timezone") or "UTC"),
        target=f"{target.get('requestMethod') or 'GET'} {target.get('path', '')}",
        remote_id=str(row.get("scheduleId", "")),
        paused=row.get("state") == "inactive",
    )
