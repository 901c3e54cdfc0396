"""A fake of Trigger.dev's API of schedules, by the source of its routes: upsert by deduplicationKey, pages, and its own sentences."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from jobmanager.errors import CronError
from jobmanager.schedule import Cron
from jobmanager.testing.fake_api import FakeApi, FakeEntry, Reply, Request

SCHEDULES = "/api/v1/schedules"


class FakeTriggerDev(FakeApi):
    """A project with one deployed task, `jobmanager-tick`."""

    deployed = True

    def respond(self, request: Request) -> Reply:
        if request.path == SCHEDULES:
            return self._put(request.said) if request.method == "POST" else self._page(request.query)
        entry_id, _, verb = request.path.removeprefix(f"{SCHEDULES}/").partition("/")
        entry = next((one for one in self.entries.values() if _id(one) == entry_id), None)
        if entry is None:
            return Reply(404, {"error": "Schedule not found"})
        match request.method, verb:
            case "DELETE", "":
                del self.entries[entry.key]
                return Reply(200, {"id": entry_id})
            case "GET", "":
                return Reply(200, _row(entry))
            case "POST", "activate" | "deactivate":
                entry.paused = verb == "deactivate"
                return Reply(200, _row(entry))
        return Reply(405, {"error": "Method not allowed"})

    def _page(self, query: dict[str, str]) -> Reply:
        page, size = int(query.get("page", "1")), min(int(query.get("perPage", "20")), 100)
        rows = [_row(entry) for entry in self.entries.values()]
        pagination = {"currentPage": page, "totalPages": -(-len(rows) // size), "count": len(rows)}
        return Reply(200, {"data": rows[(page - 1) * size : page * size], "pagination": pagination})

    def _put(self, said: dict[str, Any]) -> Reply:
        if not {"task", "cron", "deduplicationKey"} <= said.keys():
            return Reply(400, {"error": "Invalid request body"})
        if not self.deployed:
            return Reply(422, {"error": f"Task with identifier {said['task']} not found in project."})
        try:
            Cron(said["cron"]), ZoneInfo(said.get("timezone", "UTC"))
        except CronError as error:
            return Reply(422, {"error": f"Invalid cron expression: {error}"})
        except (KeyError, ValueError):
            return Reply(422, {"error": f"Invalid IANA timezone: '{said['timezone']}'."})
        key = said["deduplicationKey"]
        if self.is_full(key):
            told = f"You have created {len(self.entries)}/{self.places} schedules so you'll need to increase your limits or delete some schedules."
            return Reply(422, {"error": told})
        before = self.entries.get(key)
        external = f" for {said['externalId']}" if said.get("externalId") else ""
        self.entries[key] = FakeEntry(
            key=key,
            text=said["cron"],
            zone=said.get("timezone", "UTC"),
            target=f"task {said['task']}{external}",
            paused=before.paused if before else False,
        )
        return Reply(200, _row(self.entries[key]))


def _id(entry: FakeEntry) -> str:
    return "sched_" + "".join(f"{ord(sign):x}" for sign in entry.key)


def _row(entry: FakeEntry) -> dict[str, Any]:
    words = entry.target.split()
    return {
        "id": _id(entry),
        "type": "IMPERATIVE",
        "task": words[1] if len(words) > 1 else "other-task",
        "active": not entry.paused,
        "deduplicationKey": entry.key,
        "externalId": words[3] if len(words) > 3 else None,
        "generator": {"type": "CRON", "expression": entry.text, "description": ""},
        "timezone": entry.zone,
        "nextRun": "2026-09-21T10:13:20.000Z",
        "environments": [{"id": "env_1", "type": "PRODUCTION"}],
    }
