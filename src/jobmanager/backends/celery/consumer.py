"""The consumer of our own application's workers, which outlives a channel that RabbitMQ closed over a long run."""

from __future__ import annotations

from celery.worker import consumer


class Consumer(consumer.Consumer):  # type: ignore[misc]  # celery has no types
    """Celery's consumer with `broker_channel_error_retry`, but for what no retry mends.

    RabbitMQ closes the channel of a consumer whose oldest message is not acknowledged within `consumer_timeout`, 30 minutes unless
    it is configured; Celery's worker ends over that. This one connects again: the run goes on, its message comes again, and the
    claim refuses it. An argument `x-consumer-timeout` would not do: RabbitMQ knows none before 3.12, and an existing queue
    cannot be declared with another one. Nor would an early acknowledgement: a busy worker would take messages that others
    could execute, and hold these for just as long.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Connect again; raise what RabbitMQ replied to a request of ours, such as that a queue exists in another form."""
        # What a channel is closed for without a request, as for the time-out, names no method: (0, 0).
        asked = getattr(exc, "method_sig", None) or (0, 0)
        if isinstance(exc, self.channel_errors) and asked != (0, 0):
            raise exc
        super().on_connection_error_after_connected(exc)
