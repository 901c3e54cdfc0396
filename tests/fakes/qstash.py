"""A fake of Upstash QStash: schedules, and signed calls. PyPI's `qstash` takes it for the real one (tests/contract/test_qstash.py)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from jobmanager.testing.fake_api import FakeApi, FakeEntry, Reply, Request

SCHEDULES = "/v2/schedules/"
NEXT = 1_790_000_000_000


class FakeQStash(FakeApi):
    """Schedules by id; a repeated id updates."""

    def respond(self, request: Request) -> Reply:
        rest = request.path.removeprefix("/v2/schedules").removeprefix("/")
        key, _, verb = rest.partition("/")
        match request.method:
            case "GET" if not rest:
                return Reply(200, [_row(entry) for entry in self.entries.values()])
            case "GET":
                return Reply(200, _row(self.entries[key])) if key in self.entries else _absent(key)
            case "POST" if rest.startswith(("http://", "https://")):
                return self._put(rest, request)
            case "PATCH" if key in self.entries and verb in ("pause", "resume"):
                self.entries[key].paused = verb == "pause"
                return Reply(200)
            case "DELETE" if not verb:
                return Reply(200) if self.entries.pop(key, None) else _absent(key)
        return _absent(key)

    def _put(self, destination: str, request: Request) -> Reply:
        headers = request.headers
        key = headers.get("upstash-schedule-id") or f"scd_{len(self.entries)}"
        zone, text = "UTC", headers.get("upstash-cron", "")
        if text.startswith("CRON_TZ="):
            zone, _, text = text.removeprefix("CRON_TZ=").partition(" ")
        if len(text.split()) != 5:
            return Reply(400, {"error": f"invalid cron expression: {text}"})
        if self.is_full(key):
            return Reply(412, {"error": f"quota maxSchedules exceeded: {self.places}"})
        self.entries[key] = FakeEntry(
            key=key,
            text=text,
            zone=zone,
            target=f"{headers.get('upstash-method', 'POST')} {destination}",
            facts={"retries": int(headers.get("upstash-retries", "3"))},
        )
        return Reply(201, {"scheduleId": key})


def _row(entry: FakeEntry) -> dict[str, Any]:
    method, _, destination = entry.target.partition(" ")
    return {
        "scheduleId": entry.key,
        "cron": entry.text if entry.zone == "UTC" else f"CRON_TZ={entry.zone} {entry.text}",
        "destination": destination,
        "method": method,
        "retries": entry.facts.get("retries", 3),
        "isPaused": entry.paused,
        "createdAt": NEXT,
        "nextScheduleTime": NEXT,
    }


def _absent(key: str) -> Reply:
    return Reply(404, {"error": f"schedule {key} not found"})


def signature(key: str, url: str, body: bytes, now: float, **claims: Any) -> str:
    """Return the JWT with which QStash signs a call."""
    said = {
        "iss": "Upstash",
        "sub": url,
        "exp": int(now) + 300,
        "nbf": int(now),
        "iat": int(now),
        "jti": "jwt_1",
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
        **claims,
    }
    signed = b".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, said))
    return b".".join([signed, _encoded(hmac.digest(key.encode(), signed, "sha256"))]).decode()


def _encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
