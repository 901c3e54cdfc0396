"""A visitor of a dashboard without a server between: requests over ASGI, with the cookies and the form token of a browser."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

FORM_COOKIE = "jobmanager_form"


class Visitor:
    """Asks an application; follows no redirect."""

    def __init__(self, app: Any, base_url: str = "http://shop.example") -> None:
        self._app = app
        self._base_url = base_url
        self.cookies = httpx.Cookies()

    def get(self, path: str, **how: Any) -> httpx.Response:
        """Return the response to a GET."""
        return self._ask("GET", path, **how)

    def post(self, path: str, **how: Any) -> httpx.Response:
        """Return the response to a POST as it is given."""
        return self._ask("POST", path, **how)

    def send(self, path: str, **fields: str) -> httpx.Response:
        """Return the response to a form of a page that was looked at before."""
        return self.post(path, data={"token": self.cookies[FORM_COOKIE], **fields})

    def _ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(
                transport=transport, base_url=self._base_url, cookies=self.cookies
            ) as client:
                response = await client.request(method, path, **how)
                self.cookies = client.cookies
                return response

        # On a thread of its own: a browser's tests, in the same process, leave a loop in this one.
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(asyncio.run, ask()).result()
