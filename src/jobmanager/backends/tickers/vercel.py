"""Vercel: its Schedules come from the file vercel.json with each deployment (`jobmanager export vercel`); here they are read and compared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from jobmanager.backends.tickers.declared import DeclaredTicker
from jobmanager.backends.tickers.remote import Keys, Planned
from jobmanager.clock import Clock, SystemClock
from jobmanager.settings import Settings

SCHEDULES, PER_PAGE = "/v1/schedules", "100"


class VercelBackend(DeclaredTicker):
    """Ticks from Vercel's Schedules or Cron Jobs. Without a token the entries are not known, and calls are all that is seen of them.

    `params`: the team and the project, which an access token needs and a deployment's own token does not.
    """

    name: ClassVar[str] = "vercel"
    title: ClassVar[str] = "Vercel"
    remedy: ClassVar[str] = "`jobmanager export vercel --out .`, and deploy"
    unknown: ClassVar[str] = "set JOBMANAGER_VERCEL_TOKEN; Vercel's dashboard shows it, too"

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

    def switch(self, found: Planned, *, active: bool) -> None:
        assert self.api is not None  # noqa: S101 - asked before
        verb = "enable" if active else "disable"
        self.api.ask("POST", f"{SCHEDULES}/{quote(found.key, safe='')}/{verb}", params=self._params)


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
