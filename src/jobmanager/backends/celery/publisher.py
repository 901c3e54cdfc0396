"""Sends runs to the workers: one thread with a connection of its own, so that no tick ever waits for the broker.

What cannot be sent is kept here while there is room, and is in the store in any case: the run is pending, and is sent again.
Three things can be wrong. The broker is away: everything waits. The broker replies and refuses, because it is full, a replica or
grants no right: whatever the reason, it is none of the single message, so the runs of that queue wait, and one of them asks every
second. A message cannot even be made, for an error of the application: it is left out, so that it blocks no other.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import kombu.exceptions
from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from jobmanager.backends.celery.application import QUEUE, TASK, is_amqp, queue_named
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

BOUND = 100_000
CONNECT_WITHIN, ANSWER_WITHIN = 2, 3  # seconds
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
ASK_AGAIN_EVERY = 1.0  # seconds, of a broker that refuses
BLOCKED = "RabbitMQ blocks connections that publish: it is short of memory or disk"
# kombu 5.7 and later wraps whatever ends a pipeline on Redis, a lost connection too.
BATCH_FAILED: type[Exception] | tuple[()] = getattr(kombu.exceptions, "BatchPublishError", ())


class BlockedError(Exception):
    """RabbitMQ takes nothing more from connections that publish, for want of memory or disk."""


@dataclass(frozen=True, slots=True)
class Message:
    """A run for the workers of a queue. `time_limit` in seconds kills the child process of a prefork worker."""

    run_id: str
    queue: str
    priority: int
    time_limit: float | None = None


class Publisher:
    """The messages of a queue go out in the order in which they came, all that wait in one batch. Any thread may call any method."""

    def __init__(self, app: Celery, *, queue: str = QUEUE, group_max: int = 1) -> None:
        self._app = app
        self._queue = queue
        self._outages: tuple[type[Exception], ...] = (OSError, OperationalError)
        self._refusals: tuple[type[Exception], ...] = (BlockedError,)
        self._group_max = group_max
        self._amqp = is_amqp(app)
        self._quiet, self._unsendable = ThrottledLogger(logger), ThrottledLogger(logger)
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: thread and connection stayed with the parent."""
        self._waiting: dict[str, dict[str, Message]] = {}
        """By queue and run id."""
        self._refused: dict[str, float] = {}
        """The queues whose runs the broker refuses, and when to ask again."""
        self._blocked = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._declared: set[str] = set()
        """Queues that were declared on this connection: to look that up in kombu costs more than to send a message."""

    def start(self) -> None:
        """Connect before there is anything to send: the first tick must not wait for that. Twice is once."""
        with self._changed:
            self._ensure_thread()

    def put(self, message: Message) -> None:
        """Send it soon; returns at once, whatever the broker does."""
        with self._changed:
            if sum(map(len, self._waiting.values())) >= BOUND:
                return  # the store has it, and the next sweep sends it
            self._waiting.setdefault(message.queue, {})[message.run_id] = message
            self._ensure_thread()
            self._changed.notify_all()

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._publish_all, name="jobmanager-publisher", daemon=True
            )
            self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until all is sent, for at most so many seconds; True if it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout)

    def stop(self, timeout: float) -> None:
        """Send what waits, for at most so many seconds, and end the thread; twice is safe."""
        thread = self._thread
        if thread is not None:
            self.flush(timeout)
        with self._changed:
            self._thread = None  # by which it sees that it is to end
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # ---------------------------------------------------------------- on its thread

    def _publish_all(self) -> None:
        pause = 0.0
        try:
            self._connected()
        except Exception as error:  # noqa: BLE001 - logged when there is something to send
            logger.debug("not connected yet: %s", _told(error))
            self._disconnect()
        while batch := self._next_batch(pause):
            refused = set(self._refused)
            try:
                self._send(batch)
            except self._outages as error:
                self._disconnect()
                # Jittered, so that not all processes connect in the same moment.
                pause = min(max(pause * 2, SHORTEST_PAUSE), LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311
                text = "broker away, %d runs wait to be sent, again in %.1f s: %s"
                self._quiet.warning(text, len(batch), pause, _told(error))
            else:
                pause = 0.0
                self._quiet.over("broker is back")
            self._tell_refusals(refused)
        self._disconnect()

    def _next_batch(self, pause: float) -> list[Message]:
        """All that may be sent, once the pause after a failure is over; nothing if this thread is to end."""

        def is_over() -> bool:
            return self._thread is not threading.current_thread()

        with self._changed:
            if pause:
                self._changed.wait_for(is_over, pause)
            while not is_over():
                if batch := self._sendable():
                    return batch
                asks = [moment for queue, moment in self._refused.items() if queue in self._waiting]
                self._changed.wait(min(asks) - time.monotonic() if asks else None)
        return []

    def _sendable(self) -> list[Message]:
        """All that waits, queue by queue; of a queue that is refused one message, when it is time to ask."""
        now = time.monotonic()
        batch: list[Message] = []
        for queue, messages in self._waiting.items():
            ask_at = self._refused.get(queue)
            if ask_at is None:
                batch += messages.values()
            elif ask_at <= now:
                batch.append(next(iter(messages.values())))
        return batch

    def _send(self, batch: Sequence[Message]) -> None:
        """Send what can be sent. Raises the errors that mean an outage."""
        try:
            self._publish(batch)
        except Exception as raised:  # routes and signal handlers of the application raise what they like
            error = self._reason(raised)
            if isinstance(error, self._outages):
                raise error from raised
            self._send_parts(batch, error)
        else:
            self._done(batch)

    def _reason(self, raised: Exception) -> BaseException:
        """Return what kombu wrapped into this error: whatever ends a pipeline, and a refusal while it connects."""
        cause = raised.__cause__
        wrapped = isinstance(raised, BATCH_FAILED) or (
            isinstance(raised, OperationalError) and isinstance(cause, self._refusals)
        )
        return cause if wrapped and cause is not None else raised

    def _send_parts(self, batch: Sequence[Message], error: BaseException) -> None:
        """Send queue by queue what could not be sent together; of a queue that the broker does not refuse, one by one."""
        if not isinstance(error, BlockedError):
            self._disconnect()  # its channel may be closed
        queues = [list(messages) for _, messages in groupby(batch, lambda message: message.queue)]
        if len(queues) > 1:
            for messages in queues:
                self._send(messages)
            return
        queue = batch[0].queue
        if isinstance(error, self._refusals):
            # Jittered, so that not all processes ask in the same moment.
            pause = ASK_AGAIN_EVERY * random.uniform(0.8, 1.2)  # noqa: S311
            self._refused[queue] = time.monotonic() + pause
            self._refusal = _told(error)
        elif len(batch) > 1:
            for message in batch:
                self._send([message])
        else:
            text = "run_id=%s cannot be sent to queue %s and stays pending: %s"
            self._unsendable.warning(text, batch[0].run_id, queue, _told(error))
            self._done(batch)

    def _done(self, batch: Sequence[Message]) -> None:
        """Forget what needs no more sending."""
        with self._changed:
            for message in batch:
                self._refused.pop(message.queue, None)
                waiting = self._waiting.get(message.queue, {})
                waiting.pop(message.run_id, None)
                if not waiting:
                    self._waiting.pop(message.queue, None)
            self._changed.notify_all()

    def _tell_refusals(self, before: set[str]) -> None:
        """Log once what the broker refuses now, however many runs there are and however often it is asked, and once the end."""
        refused = sorted(self._refused)
        if self._refused.keys() - before:
            count = sum(len(self._waiting.get(queue, ())) for queue in refused)
            text = "broker refuses runs for queue %s, %d wait to be sent: %s"
            logger.warning(text, ", ".join(refused), count, self._refusal)
        elif before and not refused:
            logger.info("broker takes runs again")

    def _publish(self, batch: Sequence[Message]) -> None:
        producer = self._connected()
        self._look_whether_blocked()
        send = self._app.amqp.send_task_message
        # kombu 5.7 sends what is published inside as one pipeline on Redis; before, and elsewhere, one by one.
        with producer.batch() if hasattr(producer, "batch") else nullcontext():
            for group in _groups(batch, self._group_max):
                first = group[0]
                message = self._app.amqp.create_task_message(
                    first.run_id,
                    TASK,
                    args=[message.run_id for message in group],
                    argsrepr="",
                    kwargsrepr="",
                    ignore_result=True,
                    time_limit=first.time_limit if len(group) == 1 else None,
                )
                priority = self._priority(first.priority)
                send(
                    producer,
                    TASK,
                    message,
                    queue=queue_named(self._app, first.queue, own=first.queue == self._queue),
                    declare=[] if first.queue in self._declared else None,
                    priority=priority,
                    retry=False,
                    serializer="json",
                )
                self._declared.add(first.queue)
        if self._amqp:
            # RabbitMQ replies to no message; what it refused of these closes the channel before the reply to this.
            producer.channel.basic_qos(0, 0, a_global=False)

    def _look_whether_blocked(self) -> None:
        """Raise BlockedError as long as RabbitMQ takes nothing on this connection; it says itself when that is over."""
        if self._blocked and self._connection is not None:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=0.1)
            if self._blocked:
                raise BlockedError(BLOCKED)

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True
        raise BlockedError(BLOCKED)

    def _on_unblocked(self) -> None:
        self._blocked = False

    def _priority(self, priority: int) -> int:
        """Ours, where more comes first, in the broker's words: 0 to 9 upwards in AMQP, downwards on Redis."""
        return min(max(4 + priority, 0), 9) if self._amqp else min(max(6 - 3 * priority, 0), 9)

    def _connected(self) -> Producer:
        if self._producer is None:
            # Ours alone, with time limits: the application's configuration sets no limit for a silent broker.
            limits: dict[str, Any] = (
                {
                    "read_timeout": ANSWER_WITHIN,
                    "write_timeout": ANSWER_WITHIN,
                    "on_blocked": self._on_blocked,
                    "on_unblocked": self._on_unblocked,
                }
                if self._amqp
                else {"socket_timeout": ANSWER_WITHIN, "socket_connect_timeout": CONNECT_WITHIN}
            )
            options = {**(self._app.conf.broker_transport_options or {}), **limits}
            self._connection = self._app.connection_for_write(
                connect_timeout=CONNECT_WITHIN, transport_options=options
            )
            # For kombu a KeyError is an error of Redis's connection; here it is a queue that is not declared.
            errors = (kind for kind in self._connection.connection_errors if kind is not KeyError)
            self._outages = (OSError, OperationalError, *errors)
            self._refusals = (BlockedError, *self._connection.channel_errors)
            self._connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=CONNECT_WITHIN)
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        self._blocked = False
        if connection is not None:
            try:
                connection.release()
            except Exception as error:  # noqa: BLE001 - it is given up either way
                logger.debug("the broken connection could not be closed: %s", error)


def _groups(batch: Sequence[Message], most: int) -> Iterator[list[Message]]:
    """Yield the messages in bundles of at most `most` runs of one queue, priority and limit."""
    if most == 1:
        yield from ([message] for message in batch)
        return
    for _, alike in groupby(batch, lambda message: (message.queue, message.priority, message.time_limit)):
        messages = list(alike)
        for start in range(0, len(messages), most):
            yield messages[start : start + most]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
