"""The services of others that the application calls over HTTP. `SAAS_SERVICES_URL` says where; fakes.py stands in for all of them."""

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx

DEFAULT_URL = "http://localhost:8790"
PAGE = 50
TIMEOUT_SECONDS = 5


_clients: dict[str, httpx.Client] = {}


def _client() -> httpx.Client:
    """Return this process's client, whose connections stay open; any thread may use it."""
    url = os.environ.get("SAAS_SERVICES_URL", DEFAULT_URL)
    return _clients.get(url) or _clients.setdefault(url, httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS))


def call(method: str, path: str, **options: Any) -> httpx.Response:
    """Return the response of a service. httpx.HTTPError if it cannot be reached or is in trouble; statuses of 4xx are the caller's."""
    response = _client().request(method, path, **options)
    if response.status_code >= 500:
        response.raise_for_status()
    return response


def disconnect() -> None:
    """Close the connections of this process."""
    while _clients:
        _clients.popitem()[1].close()


def _get(path: str, **parameters: Any) -> Any:
    return call("GET", path, params=parameters).raise_for_status().json()


def stripe_subscriptions() -> Iterator[list[dict[str, Any]]]:
    """Yield all subscriptions at Stripe, page by page; `user_id` is their owner's, and `period_end` a moment."""
    after = ""
    while True:
        page = _get("/stripe/v1/subscriptions", starting_after=after, limit=PAGE)
        yield [_read(item) for item in page["data"]]
        if not page["has_more"]:
            return
        after = page["data"][-1]["id"]


def _read(item: dict[str, Any]) -> dict[str, Any]:
    owner = int(item["customer"].removeprefix("cus_"))
    return {**item, "user_id": owner, "period_end": datetime.fromisoformat(item["period_end"])}


def cancel_at_stripe(stripe_id: str) -> str:
    """Cancel a subscription at Stripe, and return what became of it. Twice is safe."""
    response = call("DELETE", f"/stripe/v1/subscriptions/{stripe_id}")
    return "unknown" if response.status_code == 404 else response.raise_for_status().json()["status"]


def llm_credits(provider: str) -> float:
    """Return how many USD are left at a provider of language models; 0 when it refuses for want of them."""
    response = call("GET", f"/llm/{provider}/credits")
    return 0.0 if response.status_code in (402, 429) else response.raise_for_status().json()["remaining"]


def subscribers(project_id: int, page: int, size: int) -> dict[str, Any]:
    """Return a page of a project's subscribers: `users` and `total`."""
    return _get(f"/subscribers/v1/projects/{project_id}/users", page=page, size=size)


def newest_commit() -> str:
    """Return the hash of the newest commit of the content's repository."""
    return _get("/git/repos/acme/content/commits/main")["sha"]


def articles(commit: str) -> list[dict[str, str]]:
    """Return the articles as of a commit: `path`, `sha`, `title`."""
    return _get("/git/repos/acme/content/contents", ref=commit)


def push(endpoint: str, text: str, key: str) -> bool:
    """Send a push notification; False if the browser is no longer subscribed. The service shows one of a key once."""
    response = call("POST", endpoint, json={"text": text}, headers={"Topic": key})
    return response.status_code != 410 and bool(response.raise_for_status())
