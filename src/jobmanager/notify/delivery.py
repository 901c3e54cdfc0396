"""Delivery: takes messages out of the outbox and gives each to its channel, one thread per channel that has something to send."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from jobmanager.errors import StoreError
from jobmanager.notify.message import Message, Notifier, UnsureError
from jobmanager.notify.texts import one_line
from jobmanager.process.throttled_log import ThrottledLogs
from jobmanager.stores.outbox import Letter, Outbox
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 3, 9, 15))
"""The pauses between the five attempts to deliver a message."""
LEASE = timedelta(minutes=2)
"""The time that a process has for a message before another process takes it."""
AT_ONCE = 5
LONGEST_ERROR = 500

Write = Callable[[Letter], Message]


class _TakenError(Exception):
    """Another process has the message by now."""


@dataclass(slots=True)
class _Sending:
    """One message on its way, and whether it may have arrived."""

    letter: Letter
    begun: bool = field(default=False)


class Delivery:
    """Sends what waits. A channel that hangs holds up its own thread and nothing else; what it has, another process takes over."""

    def __init__(
        self,
        outbox: Callable[[], Outbox],
        namespace: str,
        channels: Callable[[], Mapping[str, Notifier]],
        write: Write,
        *,
        quiet: timedelta,
        threaded: bool,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._outbox = outbox
        self._namespace = namespace
        self._channels = channels
        self._write = write
        self._quiet = quiet
        self._threaded = threaded
        self._hide = hide
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._troubles = ThrottledLogs(logger)
        self.stopping = False

    def deliver(self) -> int:
        """Take what is due for the channels that are free and begin to send it; return how many messages. Any thread; StoreError."""
        channels = self._channels()
        with self._lock:
            free = [name for name in channels if name not in self._busy]
        if not free or self.stopping:
            return 0
        letters = self._outbox().claim(self._namespace, free, quiet=self._quiet, lease=LEASE, limit=AT_ONCE)
        for name in free:
            theirs = [letter for letter in letters if letter.channel == name]
            if theirs:
                self._hand_over(channels[name], theirs)
        return len(letters)

    def _hand_over(self, channel: Notifier, letters: Sequence[Letter]) -> None:
        if not self._threaded:
            self._send_all(channel, letters)
            return
        with self._lock:
            self._busy.add(channel.name)
        name = f"jobmanager-notify-{channel.name}"
        threading.Thread(target=self._send_all, args=(channel, letters), name=name, daemon=True).start()

    def _send_all(self, channel: Notifier, letters: Sequence[Letter]) -> None:
        try:
            for letter in letters:
                if self.stopping:
                    break  # the lease ends, and another process sends it
                self._send(channel, letter)
        finally:
            with self._lock:
                self._busy.discard(channel.name)

    def _send(self, channel: Notifier, letter: Letter) -> None:
        sending = _Sending(letter)
        try:
            channel.deliver(self._write(letter), lambda: self._begin(sending))
        except _TakenError:
            return
        except StoreError as error:
            self._troubles.of("store").warning("a message waits for the store: %s", error)
        except BaseException as error:  # noqa: BLE001 - whatever a channel raises concerns its message alone
            self._note_failed(sending, error)
        else:
            self._note(lambda: self._outbox().note_sent(letter.id))
            logger.info(
                "notified %s of %s job=%s events=%d",
                channel.name,
                letter.event,
                letter.job_id or "-",
                letter.count,
            )

    def _begin(self, sending: _Sending) -> None:
        """Note that the message may arrive from now on; if that cannot be noted it is not sent."""
        if not self._outbox().begin_sending(sending.letter.id, LEASE):
            raise _TakenError
        sending.begun = True

    def _note_failed(self, sending: _Sending, error: BaseException) -> None:
        letter = sending.letter
        said = one_line(self._hide(str(error) or type(error).__name__), LONGEST_ERROR)
        unsure = sending.begun and isinstance(error, UnsureError)
        self._troubles.of(f"{letter.channel} {type(error).__name__}").warning(
            "channel=%s did not deliver %s of job=%s: %s",
            letter.channel,
            letter.event,
            letter.job_id or "-",
            said,
        )
        self._note(
            lambda: self._outbox().note_failed(
                letter.id, said, pauses=PAUSES, begun=sending.begun, unsure=unsure
            )
        )

    def _note(self, act: Callable[[], object]) -> None:
        """Note what became of a message; what cannot be noted ends with the lease."""
        try:
            act()
        except StoreError as error:
            self._troubles.of("store").warning("what became of a message is not noted: %s", error)
