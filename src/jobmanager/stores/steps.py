"""StepBook: the facet of a store with the steps of runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobmanager.run import Run
from jobmanager.step import Awaited, Event, Step


@dataclass(frozen=True, slots=True)
class StepWrite:
    """A step as it is to be kept, by the start of the run that does it."""

    run: Run
    step: Step


class StepBook(ABC):
    """The steps of runs. Any thread may call any method; each is one transaction."""

    @abstractmethod
    def record(self, writes: Sequence[StepWrite]) -> list[bool]:
        """Keep the steps, each with the fence of its run; False for each whose run this start does not have any more.

        A step that is done stays as it is: a repeated call changes nothing more. Of one step one write at a time.
        """

    def of(self, run_id: str) -> list[Step]:
        """Return the steps of a run in the order in which they began; empty for a run that is unknown or has none."""
        return self.of_runs([run_id])[0]

    @abstractmethod
    def of_runs(self, run_ids: Sequence[str]) -> list[list[Step]]:
        """Return the steps of each of the runs, as `of` does, in one statement."""

    @abstractmethod
    def send(self, namespace: str, event: Event) -> Event:
        """Keep the event, and make the runs due that wait for it; return it as it is kept, with the store's time.

        An event with the id of an earlier one changes nothing, and the earlier one is returned.
        """

    @abstractmethod
    def new_events(self, namespace: str, job_ids: Collection[str], limit: int) -> list[tuple[str, Event]]:
        """Return the events, oldest first, with these jobs, that they are still to start: active ones with no run for the event yet.

        An event that was sent before the job was there, or before it became active, starts nothing.
        """

    @abstractmethod
    def settle_events(self, namespace: str) -> int:
        """Note of the events that have started all jobs that they start that they are done; return how many. Twice is once."""

    @abstractmethod
    def event(self, namespace: str, awaited: Awaited) -> Event | None:
        """Return the oldest event that a step waits for; None if none is there."""

    @abstractmethod
    def wake(self, namespace: str) -> int:
        """Make the pending runs due whose event is there, whose awaited children have ended all, or that are to start more of them.

        Return how many. These are the runs with a waiting gather whose output has a `limit`, where a quarter of it has room. Twice is once.
        """

    @abstractmethod
    def children(self, run_id: str, *, key_prefix: str = "", limit: int | None = None) -> list[Run]:
        """Return the runs that this run has started, oldest first; with `key_prefix` those with such an idempotency key."""

    @abstractmethod
    def child_keys(self, run_id: str, key_prefix: str) -> dict[str, bool]:
        """Return the idempotency keys that begin so of the runs that this run has started, and whether each run is open."""

    @abstractmethod
    def purge_events(self, before: datetime) -> int:
        """Delete the events that were sent before the moment; return how many. Twice is once."""
