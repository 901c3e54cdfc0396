"""`Idempotency-Key`: a repeated request changes nothing more, and gets the response of the first."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from threading import Barrier
from typing import Any

import httpx
import pytest
from tests.api import Api, problem

from jobmanager import JobManager, Settings
from jobmanager.manager import requests
from jobmanager.manager.requests import KeyedRequest
from jobmanager.stores.sql.requests import SqlRequestBook

KEYED = {"idempotency-key": "monday"}
NEW_JOB = {"id": "export", "handler": "greet", "cron": "0 3 * * *"}


def told(response: httpx.Response) -> tuple[int, bytes, dict[str, str | None]]:
    kept = ("content-type", "location", "etag")
    return response.status_code, response.content, {name: response.headers.get(name) for name in kept}


def test_a_repeated_request_gets_the_same_response_and_makes_nothing_more(api: Api, jobs: JobManager) -> None:
    first = api("POST", "/jobs", json=NEW_JOB, headers=KEYED)
    jobs.update_job("export", cron="0 4 * * *", by="ana")
    again = api("POST", "/jobs", json=NEW_JOB, headers=KEYED)

    assert first.status_code == 201
    assert told(again) == told(first)
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    assert again.headers["content-security-policy"]
    assert api("GET", "/jobs/export").json()["schedule"] == "cron 0 4 * * * in UTC"


def test_a_key_belongs_to_one_body_of_one_principal_on_one_route(api: Api) -> None:
    started = api("POST", "/jobs/greet/run", json={"payload": {"name": "ana"}}, headers=KEYED)
    other = api("POST", "/jobs/greet/run", json={"payload": {"name": "ben"}}, headers=KEYED)
    assert problem(other) == (422, "key-reused")
    assert other.json()["hint"]
    assert api("POST", "/jobs/bad/run", headers=KEYED).json()["id"] != started.json()["id"]
    paused = api("POST", "/jobs/greet/pause", headers=KEYED)
    assert "idempotent-replayed" not in paused.headers
    by_other = api("POST", "/jobs/greet/pause", json={"reason": "mine"}, headers=KEYED, by="operator")
    assert (by_other.status_code, by_other.headers.get("idempotent-replayed")) == (200, None)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs/greet/pause", {"reason": "later"}),
        ("/jobs/greet/backfill", {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"}),
        ("/runs/bulk", {"action": "redrive", "ids": []}),
        ("/engine/plan", None),
        ("/jobs/run", {"job_id": "greet"}),
    ],
)
def test_every_route_that_changes_something_keeps_its_response(api: Api, path: str, body: Any) -> None:
    first = api("POST", path, json=body, headers=KEYED)
    again = api("POST", path, json=body, headers=KEYED)
    if first.status_code < 300:
        assert told(again) == told(first)
        assert again.headers["idempotent-replayed"] == "true"
    else:
        assert "idempotent-replayed" not in again.headers


def test_a_redrive_that_is_repeated_after_another_failure_opens_nothing(api: Api, jobs: JobManager) -> None:
    run = jobs.trigger_job("bad")
    first = api("POST", f"/runs/{run.id}/redrive", headers=KEYED)
    again = api("POST", f"/runs/{run.id}/redrive", headers=KEYED)
    assert (first.status_code, told(again)) == (200, told(first))
    assert jobs.run(run.id).starts == 2


def test_a_failure_is_tried_again(api: Api, jobs: JobManager) -> None:
    assert problem(api("POST", "/jobs/export/pause", headers=KEYED))[0] == 404
    jobs.create_job("export", handler="greet", cron="0 3 * * *", by="ana")
    assert api("POST", "/jobs/export/pause", headers=KEYED).json()["state"] == "paused"
    wrong = api("POST", "/jobs", json={"id": "more"}, headers=KEYED)
    assert problem(wrong)[0] == 422
    assert api("POST", "/jobs", json={**NEW_JOB, "id": "more"}, headers=KEYED).status_code == 201


def test_other_processes_of_the_store_know_the_key(api: Api, jobs: JobManager) -> None:
    first = api("POST", "/jobs", json=NEW_JOB, headers=KEYED)
    with JobManager(Settings(database_url=jobs.settings.database_url, backend="noop")) as other:
        again = Api(other)("POST", "/jobs", json=NEW_JOB, headers=KEYED)
    assert told(again) == told(first)


def test_a_secret_is_not_kept_and_made_once(api: Api, jobs: JobManager) -> None:
    made = api("POST", "/keys", json={"name": "ci"}, headers=KEYED)
    again = api("POST", "/keys", json={"name": "ci"}, headers=KEYED)
    assert made.status_code == 201
    assert problem(again) == (409, "shown-once")
    assert len(jobs.keys()) == 1
    url = jobs.settings.database_url.removeprefix("sqlite:///")
    secret = made.json()["secret"].encode()
    assert all(secret not in _read(url + end) for end in ("", "-wal"))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a name with an ending
            return file.read()
    except FileNotFoundError:
        return b""


def test_while_the_first_is_under_way_the_second_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = Barrier(2, timeout=20)
    begin = SqlRequestBook.begin

    def both(book: SqlRequestBook, *args: Any, **options: Any) -> Any:
        found = begin(book, *args, **options)
        arrived.wait()
        return found

    monkeypatch.setattr(SqlRequestBook, "begin", both)

    async def at_once() -> list[httpx.Response]:
        asks = (api.ask("POST", "/jobs", json=NEW_JOB, headers=KEYED) for _ in range(2))
        return list(await asyncio.gather(*asks))

    made, refused = sorted(asyncio.run(at_once()), key=lambda response: response.status_code)
    assert made.status_code == 201
    assert problem(refused) == (409, "under-way")
    assert refused.headers["retry-after"] == "2"


def test_a_process_that_died_holds_its_key_for_a_while_only(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        """Settle nothing, as a process that was killed."""

    with monkeypatch.context() as patch:
        patch.setattr(KeyedRequest, "end", dies)
        assert api("POST", "/jobs/greet/pause", headers=KEYED).status_code == 200
    assert problem(api("POST", "/jobs/greet/pause", headers=KEYED)) == (409, "under-way")
    monkeypatch.setattr(requests, "CUT", timedelta(seconds=-1))
    assert api("POST", "/jobs/greet/pause", headers=KEYED).status_code == 200


def test_the_key_is_checked_and_described(api: Api) -> None:
    for key in ("", "x" * 501):
        refused = api("POST", "/jobs/greet/pause", headers={"idempotency-key": key})
        assert problem(refused) == (422, "invalid-request")
    document = api("GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            names = [each["name"] for each in route.get("parameters", [])]
            changes = method == "post" and route["x-permission"] != "jobs:read"
            assert names.count("Idempotency-Key") == int(changes), (method, path)
            assert not changes or "409" in route["responses"], path


def test_nothing_is_written_while_the_kill_switch_is_set(api: Api, jobs: JobManager) -> None:
    jobs.store.install()
    object.__setattr__(jobs.settings, "disabled", True)
    api("POST", "/jobs/greet/pause", headers=KEYED)
    assert jobs.store.requests.purge(timedelta(seconds=-1)) == 0
