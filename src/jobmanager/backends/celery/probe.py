"""One harmless use of the broker, as beats and workers use it: what it refuses here, it refuses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue

from jobmanager.backends.celery.application import is_amqp
from jobmanager.backends.celery.publisher import BLOCKED, BlockedError

WITHIN = 2.0  # seconds
NOWHERE = "jobmanager.doctor"  # a routing key that no queue is bound with


@contextmanager
def connected(app: Celery) -> Iterator[Connection]:
    """Yield a new connection, given up after two seconds where its transport can; raise whatever the broker or kombu raises."""
    limits: dict[str, Any] = (
        {"on_blocked": _on_blocked}
        if is_amqp(app)
        else {"socket_timeout": WITHIN, "socket_connect_timeout": WITHIN}
    )
    options = {**(app.conf.broker_transport_options or {}), **limits}
    with app.connection_for_write(connect_timeout=WITHIN, transport_options=options) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=WITHIN)
        try:
            yield connection
        except BlockedError:
            connection.collect()  # RabbitMQ would not read that we leave
            raise


def use(connection: Connection, queues: Sequence[Queue]) -> None:
    """Write to each queue so that nobody receives it, and subscribe as a worker does; raise what the broker refuses."""
    kind = connection.transport.driver_type
    if kind == "redis":
        for queue in queues:
            _use_redis(connection.default_channel, queue)
        _subscribe(connection.default_channel)
    elif kind == "amqp":
        for queue in queues:
            _use_rabbitmq(connection, queue)


def mismatch(connection: Connection, queue: Queue) -> AccessRefused | PreconditionFailed | None:
    """Declare a queue that RabbitMQ has as a worker would, and return what it replies if it refuses; one that it has not is fine."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue.name, passive=True)
        with connection.channel() as channel:
            queue(channel).declare()
    except NotFound:
        return None  # the first worker, or the first run, makes it
    except (AccessRefused, PreconditionFailed) as error:
        return error
    return None


def _use_redis(channel: Any, queue: Queue) -> None:
    """Write what a message writes and take it back in one transaction, so that no worker sees it."""
    mark = f"{NOWHERE}-{uuid4()}"
    with channel.conn_or_acquire() as client, client.pipeline(transaction=True) as pipe:
        key = f"{queue.name}{channel.sep}{mark}"
        pipe.lpush(key, mark).brpop([key], timeout=1)
        binding = channel.keyprefix_queue % (queue.exchange.name or queue.name,)
        pipe.sadd(binding, mark).smembers(binding).srem(binding, mark)
        pipe.zadd(channel.unacked_index_key, {mark: 0}).zrem(channel.unacked_index_key, mark)
        pipe.hset(channel.unacked_key, mark, mark).hdel(channel.unacked_key, mark)
        pipe.time()  # as kombu's scripts ask
        pipe.execute()
        with client.lock(f"{channel.unacked_mutex_key}.{mark}", timeout=WITHIN, blocking=False):
            pass


def _subscribe(channel: Any) -> None:
    """Subscribe to what reaches the workers of this database by remote control, and leave."""
    with channel.conn_or_acquire() as client, client.pubsub() as subscription:
        subscription.psubscribe(f"{channel.keyprefix_fanout}celery.pidbox")
        subscription.get_message(timeout=WITHIN)


def _use_rabbitmq(connection: Connection, queue: Queue) -> None:
    """Send a message that goes to no queue to the exchange that runs are sent to, if it is there."""
    if queue.exchange.type != "direct":
        return  # it might go somewhere
    channel = connection.channel()
    try:
        for _ in range(2):  # under an alarm RabbitMQ still takes what came with the first one
            message = channel.prepare_message(b"")
            channel.basic_publish(message, exchange=queue.exchange.name, routing_key=NOWHERE)
            channel.basic_qos(0, 0, a_global=False)  # whose reply comes after all errors
    except NotFound:
        pass  # the first worker, or the first run, makes it


def _on_blocked(_reason: str) -> None:
    raise BlockedError(BLOCKED)
