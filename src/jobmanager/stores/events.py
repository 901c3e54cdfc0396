"""StoredEvents: the facet of a store that tells which events were sent, what they started, and which runs wait for one."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jobmanager.access.view import View
from jobmanager.step import EventWait, SentEvent


class StoredEvents(ABC):
    """Reads sent events, and the runs that wait for one. Any thread may call any method; nothing is written."""

    @abstractmethod
    def sent(
        self,
        namespace: str,
        *,
        name: str | None = None,
        before: str | None = None,
        limit: int,
        seen: View | None = None,
    ) -> list[SentEvent]:
        """Return the events, newest first, each with the runs that it started and `seen` shows, oldest first.

        With `name` those of one name, with `before` those that were sent before the event of this id; none if it is not there.
        """

    @abstractmethod
    def waits(
        self, namespace: str, *, name: str | None = None, limit: int, seen: View | None = None
    ) -> list[EventWait]:
        """Return the waits of the runs that rest until an event comes, the longest first; with `name` those for one name."""
