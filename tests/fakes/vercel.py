"""A fake of the API of Vercel's Schedules: pages by cursor, and switching; what calls a path comes from `deploy` alone."""

from __future__ import annotations

import json
from typing import Any

from jobmanager.testing.fake_api import FakeApi, FakeEntry, Reply, Request

SCHEDULES = "/v1/schedules"


class FakeVercelSchedules(FakeApi):
    """The production schedules of one project."""

    def deploy(self, vercel_json: str) -> None:
        """Take over the static schedules of a vercel.json, as a deployment does; what was switched off stays so."""
        before = self.entries
        self.entries = {
            name: FakeEntry(
                key=name,
                text=said["schedule"],
                zone=said.get("timezone", "UTC"),
                target=f"{said.get('requestMethod', 'GET')} {said['path']}",
                paused=name in before and before[name].paused,
            )
            for name, said in json.loads(vercel_json).get("schedules", {}).items()
        }

    def respond(self, request: Request) -> Reply:
        name, _, verb = request.path.removeprefix(SCHEDULES).removeprefix("/").partition("/")
        if request.method == "GET" and not name:
            return self._page(request.query)
        if name not in self.entries:
            return Reply(404, {"error": {"code": "not_found", "message": f"no schedule {name}"}})
        if request.method == "POST" and verb in ("enable", "disable"):
            self.entries[name].paused = verb == "disable"
            return Reply(200, _row(self.entries[name]))
        return Reply(
            400, {"error": {"code": "static", "message": "a static schedule is changed by a deployment"}}
        )

    def _page(self, query: dict[str, str]) -> Reply:
        begin, size = int(query.get("cursor", "0")), int(query.get("limit", "20"))
        rows = [_row(entry) for entry in self.entries.values()]
        more = begin + size < len(rows)
        return Reply(200, {"data": rows[begin : begin + size], "cursor": str(begin + size) if more else None})


def _row(entry: FakeEntry) -> dict[str, Any]:
    method, _, path = entry.target.partition(" ")
    return {
        "scheduleId": f"sch_{entry.key}",
        "name": entry.key,
        "namespace": "default",
        "expression": {"type": "cron", "cron": entry.text},
        "timezone": entry.zone,
        "target": {"type": "path", "path": path, "requestMethod": method},
        "state": "inactive" if entry.paused else "active",
        "source": "static",
    }
