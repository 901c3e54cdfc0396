"""The responses to recent calls: a call that comes again, also while the first is under way, gets the same response.

In memory, for this process. Another process asks the ledger again, where an accept is idempotent.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from jobmanager.web.auth import TOLERANCE
from jobmanager.web.body import Call
from jobmanager.web.response import Response

MOST = 4_096

# One signed 300 s ahead of our clock is valid until 300 s after it.
SECONDS = 2 * TOLERANCE

_Key = tuple[int, bytes]


class ResponseCache:
    """Responses by call number and body. A caller that gets None from `begin` has to call `complete`. Any thread."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._responses: OrderedDict[_Key, tuple[float, Response]] = OrderedDict()
        self._open: dict[_Key, Future[Response]] = {}
        self._lock = threading.Lock()

    def begin(self, call: Call) -> Response | Future[Response] | None:
        """Return the response it got, or will get, if it came before; None: it is new, and the caller has to complete it."""
        key = (call.call, call.digest)
        with self._lock:
            self._forget()
            if key in self._responses:
                return self._responses[key][1]
            if key in self._open:
                return self._open[key]
            future: Future[Response] = Future()
            future.set_running_or_notify_cancel()  # a repeat whose caller went away must not cancel it for the others
            self._open[key] = future
            return None

    def complete(self, call: Call, response: Response) -> None:
        """Give the response to the callers that wait; a success is remembered, a failure may be tried again."""
        key = (call.call, call.digest)
        with self._lock:
            future = self._open.pop(key)
            if response.status < 300:
                self._responses[key] = (self._monotonic() + SECONDS, response)
        future.set_result(response)

    def _forget(self) -> None:
        now = self._monotonic()
        while self._responses and (
            len(self._responses) > MOST or next(iter(self._responses.values()))[0] <= now
        ):
            self._responses.popitem(last=False)
