"""JobManager, the public face: its life in a process. Its methods on jobs and runs are in the neighbouring modules."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from jobmanager.backends.base import Backend, Host
from jobmanager.backends.resolver import Resolution
from jobmanager.beside_loop import beside_loop
from jobmanager.clock import Clock
from jobmanager.errors import ConfigurationError, PayloadError, StoppedError
from jobmanager.execution.around import Around
from jobmanager.execution.child_main import is_child
from jobmanager.execution.child_process import check_handler
from jobmanager.manager.administering import Administering
from jobmanager.manager.aio import AsyncJobManager
from jobmanager.manager.assembly import LONGEST_STOP, Assembly
from jobmanager.manager.bulk import Bulk
from jobmanager.manager.declaring import Declaring
from jobmanager.manager.entries import Entries
from jobmanager.manager.flows import Flows
from jobmanager.manager.hooking import Hooking
from jobmanager.manager.host import ManagerHost
from jobmanager.manager.keys import Keys
from jobmanager.manager.measuring import Measuring
from jobmanager.manager.notices import Notices
from jobmanager.manager.operating import Operating, Seconds
from jobmanager.manager.parts import Parts
from jobmanager.manager.reading import Reading
from jobmanager.manager.storing import Storing
from jobmanager.notify.message import Notifier
from jobmanager.notify.notifying import Hooks
from jobmanager.observe import Observer
from jobmanager.process import log_handlers
from jobmanager.process.bounded import Budget
from jobmanager.process.real_threads import check_real_threads
from jobmanager.process.signals import SignalHandlers
from jobmanager.registry import Registry
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore
from jobmanager.validation.call_arguments import duration_of
from jobmanager.validation.printable import announce, get_logger
from jobmanager.webhooks.notifier import WebhookNotifier

logger = get_logger(__name__)

_inert = threading.local()


@contextmanager
def inert() -> Iterator[None]:
    """Make `start()` do nothing while a tool imports an application."""
    _inert.on = True
    try:
        yield
    finally:
        _inert.on = False


class JobManager(
    Declaring,
    Bulk,
    Operating,
    Reading,
    Notices,
    Storing,
    Administering,
    Measuring,
    Keys,
    Hooking,
    Entries,
    Flows,
):
    """Declares jobs, keeps time for them, starts runs by hand, and reads and changes jobs and runs.

    Nothing connects before `start()` or the first use. Any thread may call the methods. `settings` defaults to the
    environment; `backend`, `store` and `clock` replace what the settings would choose. `observers` are called for every attempt
    of this process: see `jobmanager.observe`. Each of `around` is called with the RunContext and returns a context manager, of either
    kind, which is entered before the handler is called and left after it, in the handler's own thread, task or process; the last one is
    the innermost. One that fails fails the run (`internal`, with its name). `address_of` and `locale_of` return the e-mail address and the locale of a person,
    by the `requested_by` of a start; `texts` are further texts of messages by locale, `notifiers` further channels: see the page
    on notifications. Raises SettingsError for settings that cannot work.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        backend: Backend | None = None,
        store: RunStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        around: Sequence[Around] = (),
        address_of: Callable[[str], str | None] | None = None,
        locale_of: Callable[[str], str | None] | None = None,
        texts: Mapping[str, Mapping[str, str]] | None = None,
        notifiers: Sequence[Notifier] = (),
    ) -> None:
        hooks = Hooks(
            address_of=address_of,
            locale_of=locale_of,
            texts=texts,
            notifiers=notifiers,
            made_when_named={"webhook": lambda: WebhookNotifier(self._parts.registry.handlers)},
        )
        self._parts = Parts(
            settings,
            backend=backend,
            store=store,
            clock=clock,
            observers=observers,
            around=around,
            hooks=hooks,
            host=self._as_host,
        )
        self._signals = SignalHandlers(self.stop)
        _forked_managers.add(self)
        if backend is not None:
            self._parts.backend  # noqa: B018 - a backend whose processes an outside system starts must know the manager before they do

    # ---------------------------------------------------------------- its parts

    @property
    def settings(self) -> Settings:
        """The settings, read once at construction."""
        return self._parts.settings

    @property
    def resolution(self) -> Resolution:
        """Which backend was chosen, why, and why each other candidate was not."""
        return self._parts.resolution

    @property
    def registry(self) -> Registry:
        """The declared jobs and the handlers."""
        return self._parts.registry

    @property
    def backend(self) -> Backend:
        """The backend that keeps the time; made at first use."""
        return self._parts.backend

    @property
    def store(self) -> RunStore:
        """Where runs are kept; made at first use, and connected when it is first asked."""
        return self._parts.store

    @property
    def _assembly(self) -> Assembly:
        return self._parts.assembly

    @property
    def _clock(self) -> Clock:
        return self._parts.clock

    # ---------------------------------------------------------------- its life

    @property
    def aio(self) -> AsyncJobManager:
        """The same methods as coroutines, each executed on a thread."""
        return AsyncJobManager(self)

    @property
    def started(self) -> bool:
        """Whether this process is between `start()` and `stop()`."""
        return self._parts.started

    def start(self) -> JobManager:
        """Keep time and execute runs from now on; return self without blocking. Twice is safe.

        Raises ConfigurationError; an unreachable store raises nothing, a thread waits for it. In a tool that merely imports the
        application, in Celery's beat and workers, and in the child process of an isolated handler, it does nothing. In the main
        thread it handles SIGTERM and SIGINT unless the application has a handler of its own.
        """
        if getattr(_inert, "on", False) or is_child() or self._parts.backend.is_guest():
            return self
        self._signals.install()  # first: a run may begin, and a signal come, before this returns
        try:
            self._begin(executes=self._parts.backend.capabilities.executes_in_process)
        except BaseException:
            self._signals.remove()
            raise
        return self

    def _start_if_not_stopped(self) -> None:
        """Begin, unless the manager was stopped: a call that comes late must not start what no caller would stop again."""
        with self._parts.lock:
            if self._parts.stopped:
                raise StoppedError("The job manager of this process was stopped; start() begins again.")
            self._begin(executes=True)

    def _begin(self, *, executes: bool) -> None:
        check_real_threads()
        with self._parts.lock:
            self._parts.stopped = False
            if self._parts.started:
                if executes and not self._parts.settings.disabled:
                    self._parts.assembly.enable_execution()
                return
            announce(
                logger,
                "%s: %s store=%s jobs=%d pid=%d",
                self._where_jobs_run(executes),
                self._parts.resolution,
                self._parts.store.url,
                len(self._parts.registry.jobs),
                os.getpid(),
            )
            for rejected in self._parts.resolution.rejected:
                if rejected.configured:
                    logger.warning("backend=%s %s", rejected.backend, rejected.reason)
            for name in Settings.unknown_names(os.environ):
                logger.warning("%s is set but is no setting of jobmanager", name)
            self.check()
            if self._parts.settings.disabled:
                logger.warning(
                    "JOBMANAGER_DISABLED=true: nothing fires, nothing is executed and nothing is written"
                )
                self._parts.started = True
                return
            try:
                self._parts.assembly.start(executes=executes)
            except BaseException:
                self._parts.assembly.stop(timedelta(0), Budget(self._parts.clock, LONGEST_STOP))
                raise
            self._parts.started = True
            for row in self._parts.assembly.job_sync.rows.values():
                if row.state == "paused" and row.id in self._parts.registry.jobs:
                    logger.warning(
                        "job=%s is paused since %s by %s",
                        row.id,
                        row.state_at,
                        row.state_by or "an unnamed caller",
                    )

    def _where_jobs_run(self, executes: bool) -> str:  # noqa: FBT001 - of `_begin`
        if not self._parts.keeps_time:
            return "no job fires"
        return "jobs run in this process" if executes else "jobs run in other processes, the workers"

    @property
    def host(self) -> Host:
        """The manager as backends and `jobmanager.web` see it."""
        return self._as_host()

    def _as_host(self) -> Host:
        return ManagerHost(
            self._begin,
            self._start_if_not_stopped,
            self.stop,
            lambda: self._parts.assembly,
            jobs=lambda: self._parts.registry.jobs,
            drain=lambda: self._parts.settings.drain,
            check_switch=self._parts.check_switch,
        )

    def check(self) -> None:
        """Raise ConfigurationError for what would fail at the first run.

        That is a job whose handler is unknown or out of reach of its isolation, or whose config does not fit the handler.
        """
        for job in list(self._parts.registry.jobs.values()):
            handler = self._parts.registry.handlers.get(job.handler)
            if handler is None:
                if self._parts.may_be_stored(job.handler):
                    continue
                raise ConfigurationError(
                    f"Job {job.id!r}{self.registry.place(job.id)} names handler {job.handler!r}, which is not registered. "
                    "Register it with @jobs.handler(...), or give the job its function."
                )
            check_handler(job, handler, self._parts.arounds)
            if not isinstance(handler.target, str):
                try:
                    # A tick brings no payload: what a scheduled job needs must be in its config.
                    if job.schedule is not None:
                        handler.arguments(job.config, {})
                    else:
                        handler.check_config(job.config)
                except PayloadError as error:
                    raise ConfigurationError(
                        f"Job {job.id!r}{self.registry.place(job.id)}: {error}"
                    ) from error
        self._parts.assembly.notifying.check(list(self._parts.registry.jobs.values()))

    def stop(self, drain: Seconds | None = None) -> None:
        """Accept nothing more, wait up to `drain` seconds for running handlers, and record the rest as failed (shutdown).

        The default is the setting. Twice is safe; afterwards `start()` may be called again. It ends 5 s after the drain at the
        latest, whatever the store does: what could not be recorded by then, the sweep of another process or the next start ends.
        """
        # A start that waits for the store in another thread holds the lock for longer than a stop may take.
        left = Budget(self._parts.clock, LONGEST_STOP)
        held = self._parts.lock.acquire(timeout=left.share(0.2))
        try:
            if self._parts.started or self._parts.attending:
                if not self._parts.settings.disabled:
                    self._parts.assembly.stop(
                        self._parts.settings.drain if drain is None else duration_of("drain", drain), left
                    )
                self._parts.started = self._parts.attending = False
                self._parts.stopped = True
            self._parts.stop_feed(left.share(1.0))
        finally:
            if held:
                self._parts.lock.release()
        self._signals.remove()

    def run_forever(self) -> None:
        """Start, and block until SIGTERM, SIGINT or `stop()` in another thread; Ctrl-C returns after draining."""
        try:
            self.start()
            while self._parts.started or self._signals.ending:
                self._parts.clock.sleep(0.2)
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
        self._parts.assembly.pool.use_loop(asyncio.get_running_loop())
        await beside_loop(self.start)
        try:
            yield
        finally:
            await beside_loop(self.stop)
            self._parts.assembly.pool.use_loop(None)

    def lifespan_with(
        self, other: Callable[[Any], AbstractAsyncContextManager[Any]]
    ) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
        """Return the lifespan of an application that has one of its own: `FastAPI(lifespan=jobs.lifespan_with(own))`.

        What `other` opens is there before the first handler begins and until the last one has ended; the state that it yields is the
        application's.
        """

        @asynccontextmanager
        async def both(app: Any) -> AsyncIterator[Any]:
            async with other(app) as state, self.lifespan(app):
                yield state

        return both

    def before_fork(self) -> None:
        """In the parent, before a fork: let the store hold still."""
        self._parts.before_fork()

    def after_fork_in_parent(self) -> None:
        """In the parent, after a fork: let the store go on."""
        self._parts.after_fork_in_parent()

    def after_fork(self) -> None:
        """In a forked child: use no inherited thread or connection; the manager counts as not started."""
        was_started = self._parts.started
        self._parts.after_fork()
        if was_started:
            logger.warning("forked after start(): this child keeps no time until it calls start() itself")


_forked_managers: weakref.WeakSet[JobManager] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_forked_managers):
        manager.after_fork()


def _before_fork() -> None:
    for manager in list(_forked_managers):
        manager.before_fork()
    if _forked_managers:
        log_handlers.hold()  # after the stores: a thread that leaves one may still log


def _after_fork_in_parent() -> None:
    log_handlers.release()
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
