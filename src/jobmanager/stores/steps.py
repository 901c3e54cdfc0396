"""StepBook: the facet of a store with the steps of runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jobmanager.run import Run
from jobmanager.step import Step


@dataclass(frozen=True, slots=True)
class StepWrite:
    """A step as it is to be kept, by the start of the run that does it. `known`: a row of this step is there already."""

    run: Run
    step: Step
    known: bool = False


class StepBook(ABC):
    """The steps of runs. Any thread may call any method; each is one transaction."""

    @abstractmethod
    def record(self, writes: Sequence[StepWrite]) -> list[bool]:
        """Keep the steps, each with the fence of its run; False for each whose run this start does not have any more.

        What is durable stays: a repeated call changes nothing more. Of one step one write at a time.
        """

    @abstractmethod
    def of(self, run_id: str) -> list[Step]:
        """Return the steps of a run in the order in which they began; empty for a run that is unknown or has none."""

    @abstractmethod
    def forget(self, run_id: str) -> int:
        """Delete the steps of a run that is not running, so that it begins anew; return how many. Twice is once."""
