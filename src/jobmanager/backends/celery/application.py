"""The Celery application: one of our own with the settings we recommend, and helpers for one that the user brings."""

from __future__ import annotations

from celery import Celery
from kombu.entity import Queue
from kombu.transport import TRANSPORT_ALIASES

from jobmanager.backends.celery.broker_url import prepared
from jobmanager.errors import SettingsError

TASK = "jobmanager.execute"
QUEUE = "jobmanager"  # our own: a worker without our code would throw away what it does not know


def make_app(broker_url: str) -> Celery:
    """Return a Celery application of our own for this broker, not yet connected; raise SettingsError for an unknown scheme."""
    scheme = broker_url.partition("://")[0]
    if scheme.partition("+")[0] not in TRANSPORT_ALIASES:
        raise SettingsError(
            f"JOBMANAGER_CELERY_BROKER_URL={scheme}://... is of no kind that Celery knows. "
            "Use redis://host:6379/0 or amqp://user:password@host//.",
            name="JOBMANAGER_CELERY_BROKER_URL",
        )
    url, tls = prepared(broker_url)
    app = Celery("jobmanager", broker=url, set_as_current=False)
    if tls is not None:
        app.conf.broker_use_ssl = dict(tls)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a broker that is away for hours ends no worker
        broker_channel_error_retry=True,  # nor does one that refuses for a while
        worker_consumer="jobmanager.backends.celery.consumer:Consumer",
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],  # never pickle
        # The ledger keeps the results, and the claim makes a second delivery harmless.
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_soft_shutdown_timeout=30,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        timezone="UTC",
        enable_utc=True,
    )
    if scheme.startswith("redis"):
        # A worker waits for messages a second at a time; beyond these it would wait for a silent broker for ever.
        app.conf.broker_transport_options = {"socket_connect_timeout": 5, "socket_timeout": 10}
    if is_amqp(app):
        app.conf.task_default_queue_type = app.conf.task_create_missing_queue_type = "quorum"
    return app


def queue_named(app: Celery, name: str, *, own: bool) -> Queue:
    """Return the queue as the application declares it, or makes missing ones; our own also where it makes none. Else raise KeyError."""
    queues = app.amqp.queues
    made_here = own and name not in queues and not queues.create_missing
    queue: Queue = queues.new_missing(name) if made_here else queues[name]
    return queue


def is_amqp(app: Celery) -> bool:
    """Return whether the broker speaks AMQP, as RabbitMQ does. Nothing is connected."""
    scheme = str(app.conf.broker_url or app.conf.broker_write_url or "amqp://").partition("://")[0]
    return scheme in ("amqp", "amqps", "pyamqp", "librabbitmq")
