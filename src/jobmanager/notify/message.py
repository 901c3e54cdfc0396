"""Message, what a channel sends, and Notifier, the channel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobmanager.errors import JobManagerError


class NotSentError(JobManagerError):
    """A message was certainly not delivered; another attempt follows."""


class UnsureError(JobManagerError):
    """A message was transmitted, and no reply said whether it was accepted: it is sent once more at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message about one event, or about `count` events of a kind that are told at once.

    `id` stays the same when the message is sent again, so that a receiver can tell. `to` is the address, empty for the channel's
    own. `facts` has what the text says as JSON, for the oldest of the events, `subjects` what each was about.
    """

    id: str
    event: str
    subject: str
    text: str
    to: str = ""
    job_id: str = ""
    count: int = 1
    subjects: Sequence[str] = ()
    tags: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Notifier(ABC):
    """A channel that messages go through. One thread at a time calls it, never that of a handler.

    It may block: it delays its own messages, and neither those of other channels nor any run. It should give up within a minute.
    """

    name: str
    """The name of the channel in job options and settings: letters, digits, '-' and '_'."""

    addresses: Sequence[str] = ()
    """The addresses that an empty one stands for, if each is to get a message of its own: one that fails is repeated alone."""

    @abstractmethod
    def send(self, message: Message) -> None:
        """Deliver the message, or raise: UnsureError if it may have arrived, anything else if it did not."""

    def deliver(self, message: Message, begin: Callable[[], None]) -> None:
        """Deliver the message; call `begin` right before it can arrive, and not if that is not reached."""
        begin()
        self.send(message)
