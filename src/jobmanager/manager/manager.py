"""JobManager, the public face: its life in a process. Its methods on jobs and runs are in the neighbouring modules."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

from jobmanager.backends.base import Backend, Host
from jobmanager.clock import Clock
from jobmanager.errors import ConfigurationError, PayloadError, StoppedError
from jobmanager.execution.child_main import is_child
from jobmanager.execution.child_process import check_handler
from jobmanager.manager.aio import AsyncJobManager
from jobmanager.manager.assembly import LONGEST_STOP
from jobmanager.manager.declaring import Declaring
from jobmanager.manager.host import ManagerHost
from jobmanager.manager.operating import Operating, Seconds
from jobmanager.observe import Observer
from jobmanager.process.signals import SignalHandlers
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore
from jobmanager.validation.calls import duration_of

logger = logging.getLogger(__name__)

_inert = threading.local()


@contextmanager
def inert() -> Iterator[None]:
    """Make `start()` do nothing while a tool imports an application."""
    _inert.on = True
    try:
        yield
    finally:
        _inert.on = False


class JobManager(Declaring, Operating):
    """Declares jobs, keeps time for them, starts runs by hand, and reads and changes jobs and runs.

    Nothing connects before `start()` or the first use. Any thread may call the methods. `settings` defaults to the
    environment; `backend`, `store` and `clock` replace what the settings would choose. `observers` are called for every attempt
    of this process: see `jobmanager.observe`. Raises SettingsError for settings that cannot work.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        backend: Backend | None = None,
        store: RunStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(settings, backend=backend, store=store, clock=clock, observers=observers)
        self._signals = SignalHandlers(self.stop)
        _forked_managers.add(self)
        if backend is not None:
            self.backend  # noqa: B018 - whose processes somebody else starts, it must know us before they do

    @property
    def aio(self) -> AsyncJobManager:
        """The same methods as coroutines, each executed on a thread."""
        return AsyncJobManager(self)

    @property
    def started(self) -> bool:
        """Whether this process is between `start()` and `stop()`."""
        return self._started

    def start(self) -> JobManager:
        """Keep time and execute runs from now on; return self without blocking. Twice is safe.

        Raises ConfigurationError; an unreachable store raises nothing, a thread waits for it. In a tool that merely imports the
        application, in Celery's beat and workers, and in the child process of an isolated handler, it does nothing. In the main
        thread it handles SIGTERM and SIGINT unless the application has a handler of its own.
        """
        if getattr(_inert, "on", False) or is_child() or self.backend.is_guest():
            return self
        self._signals.install()  # first: a run may begin, and a signal come, before this returns
        try:
            self._begin(executes=self.backend.capabilities.executes_in_process)
        except BaseException:
            self._signals.remove()
            raise
        return self

    def _start_if_not_stopped(self) -> None:
        """Begin, unless somebody stopped this: a call that came meanwhile must not start again what nobody would stop."""
        with self._lock:
            if self._stopped:
                raise StoppedError("The job manager of this process was stopped; start() begins again.")
            self._begin(executes=True)

    def _begin(self, *, executes: bool) -> None:
        with self._lock:
            self._stopped = False
            if self._started:
                if executes:
                    self._assembly.enable_execution()
                return
            logger.info("%s store=%s jobs=%d", self.resolution, self.store.url, len(self.registry.jobs))
            for rejected in self.resolution.rejected:
                if rejected.configured:
                    logger.warning("backend=%s %s", rejected.backend, rejected.reason)
            for name in Settings.unknown_names(os.environ):
                logger.warning("%s is set but is no setting of jobmanager", name)
            self.check()
            try:
                self._assembly.start(executes=executes)
            except BaseException:
                self._assembly.stop(timedelta(0))
                raise
            self._started = True
            for row in self._assembly.job_sync.rows.values():
                if row.state == "paused" and row.id in self.registry.jobs:
                    logger.warning(
                        "job=%s is paused since %s by %s", row.id, row.state_at, row.state_by or "somebody"
                    )

    @property
    def host(self) -> Host:
        """The manager as backends and `jobmanager.web` see it."""
        return self._as_host()

    def _as_host(self) -> Host:
        return ManagerHost(
            self._begin,
            self._start_if_not_stopped,
            self.stop,
            lambda: self._assembly,
            jobs=self.registry.jobs,
        )

    def check(self) -> None:
        """Raise ConfigurationError for what would fail at the first run.

        That is a job whose handler is unknown or out of reach of its isolation, or whose config does not fit the handler.
        """
        for job in self.registry.jobs.values():
            handler = self.registry.handlers.get(job.handler)
            if handler is None:
                raise ConfigurationError(
                    f"Job {job.id!r} names handler {job.handler!r}, which nobody registered. "
                    "Register it with @jobs.handler(...), or give the job its function."
                )
            check_handler(job, handler)
            if not isinstance(handler.target, str):
                try:
                    # A tick brings no payload: what a scheduled job needs must be in its config.
                    if job.schedule is not None:
                        handler.arguments(job.config, {})
                    else:
                        handler.check_config(job.config)
                except PayloadError as error:
                    raise ConfigurationError(f"Job {job.id!r}: {error}") from error

    def stop(self, drain: Seconds | None = None) -> None:
        """Accept nothing more, wait up to `drain` seconds for running handlers, and record the rest as failed (shutdown).

        The default is the setting. Twice is safe; afterwards `start()` may be called again. It ends 5 s after the drain at the
        latest, whatever the store does: what could not be recorded by then, the sweep of another process or the next start ends.
        """
        # A start that waits for the store in another thread holds the lock for longer than a stop may take.
        held = self._lock.acquire(timeout=LONGEST_STOP / 5)
        try:
            if self._started or self._attending:
                self._assembly.stop(self.settings.drain if drain is None else duration_of("drain", drain))
                self._started = self._attending = False
                self._stopped = True
        finally:
            if held:
                self._lock.release()
        self._signals.remove()

    def run_forever(self) -> None:
        """Start, and block until SIGTERM, SIGINT or `stop()` in another thread; Ctrl-C returns after draining."""
        try:
            self.start()
            while self._started or self._signals.ending:
                self._clock.sleep(0.2)
        except KeyboardInterrupt:
            self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start and stop around an application: `async with jobs.lifespan():` or `FastAPI(lifespan=jobs.lifespan)`.

        Coroutine handlers then run on the loop that entered it.
        """
        self._assembly.pool.use_loop(asyncio.get_running_loop())
        await asyncio.to_thread(self.start)
        try:
            yield
        finally:
            await asyncio.to_thread(self.stop)
            self._assembly.pool.use_loop(None)

    def before_fork(self) -> None:
        """Prepare the store for a fork; called in the parent."""
        if "store" in self.__dict__:
            self.store.before_fork()

    def after_fork_in_parent(self) -> None:
        """Let the store go on after a fork; called in the parent."""
        if "store" in self.__dict__:
            self.store.after_fork_in_parent()

    def after_fork(self) -> None:
        """Forget inherited threads and connections; called in a forked child, where the manager is not started."""
        self._lock = threading.RLock()
        if "store" in self.__dict__:
            self.store.after_fork()
        was_started, self._started, self._stopped = self._started, False, False
        self.__dict__.pop("_assembly", None)
        self.__dict__.pop("_health", None)
        after_fork = getattr(self._given_backend or self.__dict__.get("backend"), "after_fork", None)
        if after_fork is not None:
            after_fork()
        if was_started:
            logger.warning("forked after start(): this child keeps no time until it calls start() itself")


_forked_managers: weakref.WeakSet[JobManager] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_forked_managers):
        manager.after_fork()


def _before_fork() -> None:
    for manager in list(_forked_managers):
        manager.before_fork()


def _after_fork_in_parent() -> None:
    for manager in list(_forked_managers):
        manager.after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


_default: JobManager | None = None
_default_lock = threading.Lock()


def get_job_manager() -> JobManager:
    """Return the process-wide manager, made from the environment at first use. Nothing in the library uses it."""
    global _default  # noqa: PLW0603 - that is what a process-wide instance is
    with _default_lock:
        if _default is None:
            _default = JobManager()
        return _default


def reset_job_manager() -> None:
    """Stop and forget the process-wide manager; the next `get_job_manager()` makes a new one. Twice is safe."""
    global _default
    with _default_lock:
        manager, _default = _default, None
    if manager is not None:
        manager.stop()
