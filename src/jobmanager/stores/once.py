"""OnceBook: the facet of a store with what handlers did once for a key, and the results that later calls get."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from jobmanager.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Whether a run may do what a key stands for: it has to (`ours`), it is done with this `output`, or `run_id` is at it (`busy`)."""

    state: Literal["ours", "done", "busy"]
    run_id: str
    output: Any = None


class OnceBook(ABC):
    """The results of `context.once` by job and key. Any thread may call any method; each is one transaction."""

    @abstractmethod
    def begin(self, run: Run, key: str) -> Turn:
        """Give the run its turn with the key of its job, unless that is done, or an attempt that is still running has its turn.

        What an attempt began that runs no more, of this run or of another, is to be done again.
        """

    @abstractmethod
    def finish(self, run: Run, key: str, output: Any) -> bool:
        """Note that it is done, with its result; False if another attempt has its turn, or has done it, by now."""

    @abstractmethod
    def give_up(self, run: Run, key: str) -> None:
        """Give the turn back, so that another attempt has to do it. Twice is safe."""

    @abstractmethod
    def purge(self, before: datetime) -> int:
        """Forget what was begun before the moment; return how many keys. What is forgotten would be done again."""
