"""The answers to recent calls: one that comes again, also while the first is being answered, gets the same answer.

In memory, for this process. Another process asks the ledger again, where an accept is idempotent.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from jobmanager.web.answer import Answer
from jobmanager.web.auth import TOLERANCE
from jobmanager.web.body import Call

MOST = 4_096

# One signed 300 s ahead of our clock is valid until 300 s after it.
SECONDS = 2 * TOLERANCE

_Key = tuple[int, bytes]


class ResponseCache:
    """Answers by call number and body. Whoever gets None from `claim` owes a `settle`. Any thread."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._answers: OrderedDict[_Key, tuple[float, Answer]] = OrderedDict()
        self._open: dict[_Key, Future[Answer]] = {}
        self._lock = threading.Lock()

    def claim(self, call: Call) -> Answer | Future[Answer] | None:
        """The answer it got, or will get, if it came before; None: it is new, and yours to answer."""
        key = (call.call, call.digest)
        with self._lock:
            self._forget()
            if key in self._answers:
                return self._answers[key][1]
            if key in self._open:
                return self._open[key]
            future: Future[Answer] = Future()
            future.set_running_or_notify_cancel()  # a repeat whose caller went away must not cancel it for all
            self._open[key] = future
            return None

    def settle(self, call: Call, answer: Answer) -> None:
        """Tell it to those who wait; what succeeded is remembered, what failed may be tried again."""
        key = (call.call, call.digest)
        with self._lock:
            future = self._open.pop(key)
            if answer.status < 300:
                self._answers[key] = (self._monotonic() + SECONDS, answer)
        future.set_result(answer)

    def _forget(self) -> None:
        now = self._monotonic()
        while self._answers and (len(self._answers) > MOST or next(iter(self._answers.values()))[0] <= now):
            self._answers.popitem(last=False)
