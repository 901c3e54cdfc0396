"""The consumer of our own application's workers: what a broker refuses ends no worker that may take messages again a moment later."""

from __future__ import annotations

import time

from celery.worker import consumer

from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

CONNECT_AGAIN_AFTER = 1.0  # seconds

_quiet = ThrottledLogger(logger)


class Consumer(consumer.Consumer):  # type: ignore[misc]  # celery has no types
    """Celery's consumer with `broker_channel_error_retry`: not without a pause, and not for what no retry mends.

    A Redis that is full, a replica or grants no right refuses a worker's commands, and Celery's worker ends over that. This one
    connects again until they are taken.

    RabbitMQ closes the channel of a consumer whose oldest message is not acknowledged within `consumer_timeout`, 30 minutes unless
    it is configured, and Celery's worker ends over that, too. This one connects again: the run goes on, its message comes again,
    and the claim refuses it. An argument `x-consumer-timeout` would not do: RabbitMQ knows none before 3.12, and an existing queue
    cannot be declared with another one. Nor would an early acknowledgement: a busy worker would take messages that others
    could execute, and hold these for just as long.
    """

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Say now and then that the broker refuses, and let it alone for a second: Celery would try without a pause."""
        _quiet.warning("broker refuses this worker, which connects again every second: %s", exc)
        time.sleep(CONNECT_AGAIN_AFTER)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Connect again; raise what RabbitMQ replied to a request of ours, such as that a queue exists in another form."""
        # What a channel is closed for without a request, as for the time-out, names no method: (0, 0).
        asked = getattr(exc, "method_sig", None) or (0, 0)
        refused = isinstance(exc, self.channel_errors)
        if refused and asked != (0, 0):
            raise exc
        super().on_connection_error_after_connected(exc)
        if refused:
            time.sleep(CONNECT_AGAIN_AFTER)
