"""The methods of JobManager for runs of several steps: events, steps and children."""

from __future__ import annotations

from typing import Any

from jobmanager.access.principal import WRITE
from jobmanager.errors import PayloadError, StoreUnavailableError
from jobmanager.ledger.bounding import exact_json
from jobmanager.manager.guarding import changes, reads
from jobmanager.manager.parts import Parts
from jobmanager.run import Run, new_id
from jobmanager.step import Event, EventWait, SentEvent, Step
from jobmanager.validation.call_arguments import check_arguments, text_of
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import naming_its_caller

logger = get_logger(__name__)

LONGEST_WORD = 200


class Flows:
    """The methods for runs of several steps. Any thread may call them; `send_event` alone writes, and installs an empty store at first use."""

    _parts: Parts

    @naming_its_caller
    @changes(WRITE, "send", of="event")
    def send_event(
        self,
        name: str,
        *,
        key: str = "",
        data: Any = None,
        id: str | None = None,  # noqa: A002 - as the event has it
        by: str | None = None,
    ) -> Event:
        """Say that something has happened, and return the event; runs that wait for one of this name and key go on, jobs with `on=` start.

        `data` is JSON of at most 64 KiB that the waiting handlers get. Of two calls with one `id` the second changes nothing and returns
        the event of the first. The event is kept for seven days, for runs that come to wait for it. With `by` it is audited. Raises
        PayloadError and JobDisabledError.
        """
        check_arguments(by=by)
        name, key = text_of("name", name, LONGEST_WORD), text_of("key", key, LONGEST_WORD, least=0)
        event_id = new_id(self._parts.clock.now()) if id is None else text_of("id", id, LONGEST_WORD)
        try:
            data = exact_json(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadError(
                f"The data of event {name!r} is not JSON to be kept: {error}. Pass ids and plain values."
            ) from error
        self._parts.check_not_disabled(f"Event {name!r} is not sent")
        assembly, namespace = self._parts.ready(), self._parts.settings.namespace
        event = Event(id=event_id, name=name, key=key, data=data, sent_at=self._parts.clock.now())
        kept = assembly.store.steps.send(namespace, event)
        try:
            assembly.event_starts.open(name, here=self._parts.executes_here)
        except StoreUnavailableError as error:
            logger.warning("the jobs that event %s starts are left to the sweep: %s", kept.id, error)
        if by is not None:
            assembly.store.audit.write(
                assembly.auditor.entry(
                    "send", "event", kept.id, at=kept.sent_at, by=by, after={"name": name, "key": key}
                )
            )
        if self._parts.backend.capabilities.keeps_time:
            assembly.claims.claim()
        return kept

    @naming_its_caller
    @reads
    def sent_events(
        self, *, name: str | None = None, before: str | None = None, limit: int = 100
    ) -> list[SentEvent]:
        """Return the events that were sent, newest first and without their data, each with the runs that it started.

        With `name` those of one name, with `before` those sent before the event of this id. Events belong to no scope: a principal that
        is limited to scopes sees none. PayloadError.
        """
        check_arguments(limit=limit)
        name, before = _word("name", name), _word("before", before)
        view = self._parts.view()
        if not self._parts.store.exists() or (view is not None and view.scopes is not None):
            return []
        return self._parts.store.events.sent(
            self._parts.settings.namespace, name=name, before=before, limit=limit, seen=view
        )

    @naming_its_caller
    @reads
    def event_waits(self, *, name: str | None = None, limit: int = 100) -> list[EventWait]:
        """Return the waits of the runs that rest until an event comes, the longest first; with `name` those for one. PayloadError.

        Under a principal those of the runs that it may see.
        """
        check_arguments(limit=limit)
        name = _word("name", name)
        if not self._parts.store.exists():
            return []
        return self._parts.store.events.waits(
            self._parts.settings.namespace, name=name, limit=limit, seen=self._parts.view()
        )

    @reads
    def steps(self, run_id: str) -> list[Step]:
        """Return the steps of the run in the order in which they began, without secrets; RunNotFoundError.

        Empty for a run whose handler uses none. A step that was begun and not kept is not among them.
        """
        return self._parts.history.steps(run_id)

    @reads
    def children(self, run_id: str, *, limit: int = 100) -> list[Run]:
        """Return the runs that this run has started in steps, oldest first, at most `limit`; RunNotFoundError."""
        check_arguments(limit=limit)
        return self._parts.history.children(run_id, limit)


def _word(argument: str, value: str | None) -> str | None:
    return None if value is None else text_of(argument, value, LONGEST_WORD)
