"""RequestBook: the facet of a store with what requests of the API came to, so that a repeated one gets the same response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

REQUESTS_KEPT = timedelta(hours=24)
"""For so long a repeated request gets the response of the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRequest:
    """The request that has a key: the digest of what it asked, how old it is, and its response; None while it is under way."""

    digest: str
    age: timedelta
    response: Mapping[str, Any] | None


class RequestBook(ABC):
    """Requests by their keys. Any thread may call any method; each is one transaction."""

    @abstractmethod
    def begin(
        self, key: str, turn: str, digest: str, *, keep: timedelta, cut: timedelta
    ) -> KeptRequest | None:
        """Give the key to this turn and return None; return the request that has it, unless that is to be forgotten.

        A request with a response is forgotten once it is older than `keep`, and one without once it is older than `cut`: its process died.
        """

    @abstractmethod
    def finish(self, key: str, turn: str, response: Mapping[str, Any]) -> bool:
        """Keep the response of the turn; False if another turn has the key by now."""

    @abstractmethod
    def give_up(self, key: str, turn: str) -> None:
        """Free the key of a turn that came to nothing. Twice is safe."""

    @abstractmethod
    def purge(self, age: timedelta) -> int:
        """Forget requests that are older; return how many."""
