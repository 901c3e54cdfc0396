"""Upstash QStash: one schedule for each job, which posts to the endpoint and signs what it posts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote

from jobmanager.backends.tickers.api import Api
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.remote import Planned
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import ConfigurationError
from jobmanager.settings import Settings

RETRIES = "3"
SCHEDULES = "/v2/schedules"


class QStashBackend(TickerBackend):
    """Ticks from schedules of QStash. The endpoint verifies their signature, so no secret of ours is in any schedule."""

    name: ClassVar[str] = "qstash"
    title: ClassVar[str] = "QStash"

    api: Api

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> QStashBackend:  # noqa: B008
        if settings.qstash_token is None or settings.qstash_current_signing_key is None:
            raise ConfigurationError(
                "Backend 'qstash' needs JOBMANAGER_QSTASH_TOKEN and JOBMANAGER_QSTASH_CURRENT_SIGNING_KEY, from QStash's console."
            )
        api = Api(cls.title, settings.qstash_url, settings.qstash_token.get_secret_value())
        return cls(api, **cls.common(settings, clock))

    def fetch(self) -> Iterator[Planned]:
        yield from map(_planned, self.api.rows_of(self.api.ask("GET", SCHEDULES)))

    def put(self, wanted: Planned, found: Planned | None) -> None:
        headers = {
            "upstash-cron": wanted.text if wanted.zone == "UTC" else f"CRON_TZ={wanted.zone} {wanted.text}",
            "upstash-schedule-id": wanted.key,
            "upstash-method": "POST",
            "upstash-retries": RETRIES,
        }
        self.api.ask("POST", f"{SCHEDULES}/{wanted.target.removeprefix('POST ')}", headers=headers)

    def remove(self, found: Planned) -> None:
        self.api.ask("DELETE", _path(found), gone_is_fine=True)

    def switch(self, found: Planned, *, active: bool) -> None:
        self.api.ask("PATCH", f"{_path(found)}/{'resume' if active else 'pause'}")


def _path(found: Planned) -> str:
    return f"{SCHEDULES}/{quote(found.key, safe=':~')}"


def _planned(row: dict[str, Any]) -> Planned:
    zone, text = "UTC", str(row.get("cron", ""))
    if text.startswith(("CRON_TZ=", "TZ=")):
        zone, _, text = text.partition("=")[2].partition(" ")
    due = row.get("nextScheduleTime")
    return Planned(
        key=str(row.get("scheduleId", "")),
        text=text,
        zone=zone,
        target=f"{row.get('method', 'POST')} {row.get('destination', '')}",
        paused=bool(row.get("isPaused")),
        next_due_at=datetime.fromtimestamp(due / 1000, UTC)
        if isinstance(due, (int, float)) and due
        else None,
    )
