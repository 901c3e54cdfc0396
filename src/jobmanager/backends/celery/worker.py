"""The parts that live in a Celery worker: one task that executes runs by their ids, and the manager in each of its processes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from jobmanager.backends.celery.application import TASK, queue_named
from jobmanager.errors import ConfigurationError, StoreError
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.validation.printable import get_logger

if TYPE_CHECKING:
    from jobmanager.backends.celery.backend import CeleryBackend

logger = get_logger(__name__)

COOPERATIVE = ("gevent", "eventlet")

BACKEND = "jobmanager_backend"
"""The attribute of a Celery application with the backend that lives in it: kept elsewhere, neither would ever be garbage."""


def backend_of(app: Celery) -> CeleryBackend:
    """Return the backend that lives in this application; raise ConfigurationError if none does."""
    backend: CeleryBackend | None = getattr(app, BACKEND, None)
    if backend is None:
        raise ConfigurationError(
            f"No JobManager belongs to the Celery application {app.main!r}. "
            "Make it with JobManager(backend=CeleryBackend(app=app)), and import that module where the application is."
        )
    return backend


class Worker:
    """Lives in whatever process a worker of the application starts: its threads, or each of its children."""

    def __init__(self, app: Celery, backend: CeleryBackend) -> None:
        if hasattr(app, BACKEND):
            raise ConfigurationError(
                f"The Celery application {app.main!r} belongs to another JobManager already; give each its own."
            )
        setattr(app, BACKEND, backend)
        self._app = app
        self._backend = backend
        self._serves = False
        self._quiet = ThrottledLogger(logger)
        # Not shared_task: that would put it into every Celery application of the process.
        app.task(
            name=TASK,
            shared=False,
            ignore_result=True,
            acks_late=True,
            reject_on_worker_lost=True,
            serializer="json",
            max_retries=0,
            typing=False,
        )(self.execute)
        app.on_after_finalize.connect(self._lift_limits, weak=False)
        # The signals are those of the process; they hold none of us, the application does.
        signals.celeryd_init.connect(self._take_queues)
        signals.worker_init.connect(self._on_init)
        signals.worker_process_init.connect(self._on_process_init)
        signals.worker_shutting_down.connect(self._on_shutting_down)
        signals.worker_ready.connect(self._on_ready)
        signals.worker_process_shutdown.connect(self._on_shutdown)
        signals.worker_shutdown.connect(self._on_shutdown)

    def execute(self, *run_ids: object) -> None:
        """Execute these runs, as the task. The store decides which: a second delivery, or a made-up id, finds nothing to do."""
        wanted = [run_id for run_id in run_ids if isinstance(run_id, str)]
        if not wanted or len(wanted) < len(run_ids):
            logger.warning("a message for %s carries no run ids and is dropped: %.200r", TASK, run_ids)
            return
        try:
            self._backend.execute(wanted)
        except StoreError as error:
            # They stay pending, and are sent again.
            self._quiet.warning("%d runs not started now: %s", len(wanted), error)

    def _lift_limits(self, sender: Celery, **_: Any) -> None:
        # task_annotations={"*": {"rate_limit": ...}} of the application are not meant for us.
        sender.tasks[TASK].rate_limit = None

    def _take_queues(self, instance: Any, options: dict[str, Any], **_: Any) -> None:
        if instance.app is self._app and not options.get("queues"):
            own = self._backend.queue
            for name in self._backend.queues():
                try:
                    queue = queue_named(self._app, name, own=name == own)
                except KeyError:
                    logger.warning("no queue %s: the application makes none that it does not declare", name)
                else:
                    self._app.amqp.queues.select_add(queue)

    def _on_init(self, sender: Any, **_: Any) -> None:
        if sender.app is not self._app:
            return
        pool = str(getattr(sender.pool_cls, "__module__", sender.pool_cls))
        if any(word in pool for word in COOPERATIVE):
            raise SystemExit(
                f"jobmanager does not run in Celery's pool {pool.rpartition('.')[2]}: its heartbeat needs real threads. "
                "Use --pool prefork, threads or solo."
            )
        self._serves = True

    def _on_process_init(self, **_: Any) -> None:
        if self._serves:
            # Celery kills a child that is not up within four seconds, and the store may take longer.
            threading.Thread(target=self._start, name="jobmanager-start", daemon=True).start()

    def _on_ready(self, sender: Any, **_: Any) -> None:
        if self._serves and not type(sender.pool).__module__.endswith("prefork"):
            self._start()

    def _start(self) -> None:
        try:
            self._backend.start_worker()
        except Exception:
            logger.exception("this worker process executes nothing")

    def _on_shutting_down(self, how: str, **_: Any) -> None:
        if self._serves and how == "Warm":
            self._backend.begin_drain()

    def _on_shutdown(self, **_: Any) -> None:
        if self._serves:
            self._backend.end_worker()
