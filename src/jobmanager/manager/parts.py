"""The parts a manager stands on, each made when first needed: settings, backend, store, and what runs between them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from jobmanager.access.acting import current
from jobmanager.access.view import View, current_view
from jobmanager.backends.base import Backend, Host
from jobmanager.backends.resolver import Resolution, load_backend_class, resolve
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import (
    JobDisabledError,
    JobNotFoundError,
    PermissionDeniedError,
    StoreError,
    SwitchedOffError,
)
from jobmanager.execution.around import Around, Arounds
from jobmanager.job import Job
from jobmanager.ledger.queries import History
from jobmanager.ledger.redaction import Redactor
from jobmanager.manager.assembly import Assembly
from jobmanager.manager.health import HealthCheck
from jobmanager.manager.shipped import ShippedHandlers
from jobmanager.notify.message import Notifier
from jobmanager.notify.notifying import Hooks
from jobmanager.observe import Observer
from jobmanager.registry import Registry, closest
from jobmanager.schedule import Schedule
from jobmanager.settings import Settings
from jobmanager.stores import store_for
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import JobRow, Note
from jobmanager.stores.webhooks import WebhookRow
from jobmanager.validation.call_arguments import may_be_id
from jobmanager.validation.parts import Part, check_parts, has_methods, is_list_of
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import shown
from jobmanager.webhooks.stored import EVERYTHING, Webhooks

logger = get_logger(__name__)


class Parts:
    """Who keeps the time, where runs are kept, and which jobs there are. Nothing connects before it is used."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        backend: Backend | None = None,
        store: RunStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        around: Sequence[Around] = (),
        hooks: Hooks | None = None,
        host: Callable[[], Host],
    ) -> None:
        self._hooks = hooks or Hooks()
        check_parts(
            "JobManager",
            _PARTS,
            settings=settings,
            backend=backend,
            store=store,
            clock=clock,
            observers=observers,
            around=around,
            address_of=self._hooks.address_of,
            locale_of=self._hooks.locale_of,
            texts=self._hooks.texts,
            notifiers=self._hooks.notifiers,
        )
        self._host = host
        self.environ: Mapping[str, str] = os.environ
        self.settings: Settings = Settings.from_env() if settings is None else settings
        self.clock: Clock = clock or SystemClock()
        self._given_backend = backend
        self._given_store = store
        self._observers = observers
        self.arounds = Arounds(around)
        self.registry: Registry = Registry()
        self.resolution: Resolution = (
            resolve(self.settings)
            if backend is None
            else Resolution(backend=backend.name, reason="given to JobManager(backend=...)")
        )
        self.database_url_of: Callable[[], str] | None = None
        """Where the store is, asked when it is first used, where a framework says so; else the settings do."""
        self.lock = threading.RLock()
        self.started = False
        self.stopped = False
        self.attending = False
        ShippedHandlers(self)

    @cached_property
    def backend_class(self) -> type[Backend]:
        return (
            type(self._given_backend) if self._given_backend else load_backend_class(self.resolution.backend)
        )

    @cached_property
    def backend(self) -> Backend:
        """Who keeps the time."""
        backend = self._given_backend or self.backend_class.from_settings(self.settings, clock=self.clock)
        backend.attach(self._host())
        return backend

    @cached_property
    def store(self) -> RunStore:
        """Where runs are kept."""
        if self.database_url_of is not None:
            self.settings = replace(self.settings, database_url=self.database_url_of())
        return self._given_store or store_for(self.settings, self.clock)

    @cached_property
    def assembly(self) -> Assembly:
        return Assembly(
            registry=self.registry,
            store=self.store,
            backend=self.backend,
            settings=self.settings,
            clock=self.clock,
            webhooks=self.webhooks,
            observers=self._observers,
            arounds=self.arounds,
            hooks=self._hooks,
        )

    @cached_property
    def webhooks(self) -> Webhooks:
        """The factory of the handlers that send webhooks."""
        return Webhooks(self.registry, self.settings, self.clock, self._switch_webhook_off)

    def _switch_webhook_off(self, row: WebhookRow, why: str) -> None:
        """Let a stored webhook send nothing more until it is edited, with an entry of the audit; nothing if it was changed meanwhile."""
        try:
            now = self.store.now()
            off = replace(
                row, words={**row.words, "off": why}, rev=row.rev + 1, changed_at=now, changed_by=None
            )
            entry = self.assembly.auditor.entry(
                "switch_off", "webhook", row.key, at=now, before={"off": None}, after={"off": why}
            )
            if self.store.webhooks.put(off, entry):
                logger.warning("webhook=%s is switched off: %s", row.key, why)
                self.read_changes()
        except StoreError as error:
            logger.warning("webhook=%s is not switched off, although %s: %s", row.key, why, error)

    @cached_property
    def health(self) -> HealthCheck:
        able = self.backend_class.capabilities
        threaded = not self.clock.drive(None, _nothing)
        self.clock.release(_nothing)
        return HealthCheck(
            self.store,
            self.settings,
            keeps_time=self.keeps_time,
            executes_in_process=able.executes_in_process,
            threaded=threaded,
            started=lambda: self.__dict__.get("assembly") if self.started else None,
        )

    @cached_property
    def history(self) -> History:
        redactor = Redactor(self.settings.secret_values())
        return History(
            self.registry, self.store, keeps_time=self.keeps_time, view=self.view, redactor=redactor
        )

    def view(self) -> View | None:
        """Return what the principal for whom the caller acts sees; None, for all, where there is no principal."""
        return current_view(self.settings.namespace)

    def ready(self) -> Assembly:
        """Return the assembly, with the store installed and the declarations in it."""
        self.assembly.install()
        return self.assembly

    def job(self, job_id: str) -> Job:
        """Return the job in force, also one that an operator has just made, or whose handler is elsewhere; JobNotFoundError, with the closest id, if there is none."""
        if self.view() is not None:
            self.row(job_id)
        if may_be_id(job_id) and job_id not in self.registry.jobs:
            self.read_changes()
            of_others = self.assembly.job_sync.of_others(job_id)
            if of_others is not None and job_id not in self.registry.jobs:
                return of_others
        return self.registry.job(job_id)

    def prepare(self, schedule: Schedule | None) -> None:
        """Let the backend get ready for a job of this schedule, which is stored, or made active, right after."""
        if schedule is not None:
            self.backend.prepare(schedule)

    def row(self, job_id: str, *, deleted: bool = False) -> JobRow:
        """Return the stored job, with `deleted` also a deleted one; JobNotFoundError, which suggests no id to those who do not see all."""
        view = self.view()
        row = self.ready().store.jobs.get(job_id, seen=view) if may_be_id(job_id) else None
        if row is None or (row.state == "deleted" and not deleted):
            suggested = closest(job_id, self.registry.jobs) if view is None else ""
            raise JobNotFoundError(f"No job {shown(job_id)} is declared or stored.{suggested}", job_id=job_id)
        return row

    def check_scope(self, job_id: str, action: str, scope: str | None = None) -> None:
        """Raise PermissionDeniedError where a principal with scopes would start a project job outside of them, or change it for all."""
        view, principal = self.view(), current().principal
        if view is None or principal is None or view.scopes is None or scope in view.scopes:
            return
        if self.row(job_id, deleted=True).visibility == "project":
            advice = "start it with scope= one of them" if action == "trigger" else "ask somebody who is not"
            raise PermissionDeniedError(
                f"{action}: {job_id!r} is a project job, and {shown(principal.name)} is limited to scopes; {advice}.",
                action=action,
                principal=principal.name,
                permission="scope",
            )

    def noting(self, action: str, by: str | None) -> Note | None:
        """Return what makes the entry of the audit of a changed run; None if nobody is named."""
        auditor = self.assembly.auditor
        if not auditor.is_wanted(by):
            return None
        at = self.store.now()
        return lambda before, after: auditor.of_run(action, before, after, by=by, at=at)

    def record(
        self,
        action: str,
        target: str,
        target_id: str,
        by: str | None,
        after: Mapping[str, Any],
        *,
        job_id: str | None = None,
    ) -> None:
        """Audit a change of many transactions, or of one that others make as well, after it; nothing if nobody is named."""
        auditor = self.assembly.auditor
        if auditor.is_wanted(by):
            at = self.store.now()
            entry = auditor.entry(action, target, target_id, at=at, by=by, after=after, job_id=job_id)
            self.store.audit.write(entry)

    def read_changes(self) -> None:
        """Take over what operators have just made or changed, if there is a store."""
        if self.store.exists():
            self.assembly.job_sync.refresh()

    def hidden_handlers(self) -> set[str]:
        """Return the keys that only jobs have which the principal does not see."""
        view = self.view()
        if view is None:
            return set()
        jobs = self.registry.jobs
        seen = {row.id for row in self.ready().store.jobs.rows(ids=list(jobs), seen=view)}
        shown_ones = {jobs[job_id].handler for job_id in seen}
        return {
            name for job in jobs.values() if job.id not in seen for name in (job.id, job.handler)
        } - shown_ones

    def may_be_stored(self, key: str) -> bool:
        """Return whether an operator may have made a handler of this key: it is in the store, or the store cannot be asked now."""
        try:
            if self.store.exists():
                self.webhooks.take_over(self.store, EVERYTHING)
        except StoreError as error:
            logger.warning(
                "handler=%s is not declared; whether it is stored cannot be told now: %s", key, error
            )
            return True
        return key in self.registry.handlers

    def check_switch(self) -> None:
        """Raise SwitchedOffError where calls from outside are to run nothing: the kill switch is set, or no time is kept."""
        if self.settings.disabled:
            raise SwitchedOffError(
                "JOBMANAGER_DISABLED=true: this application runs nothing. Unset it where jobs should run.",
                finding="disabled",
            )
        if not self.backend_class.capabilities.keeps_time:
            raise SwitchedOffError(
                f"backend={self.resolution.backend} keeps no time and runs nothing that is called for. Where an outside clock "
                "calls, set JOBMANAGER_BACKEND=external.",
                finding="no_time_kept",
            )

    def check_not_disabled(self, what: str, job_id: str = "") -> None:
        """Raise JobDisabledError for a start or change by hand while the kill switch is set; `what` says what is not done."""
        if self.settings.disabled:
            raise JobDisabledError(
                f"{what}: JOBMANAGER_DISABLED=true. Unset it where jobs should run.", job_id=job_id
            )

    @property
    def keeps_time(self) -> bool:
        """Whether anything fires here by itself."""
        return self.backend_class.capabilities.keeps_time and not self.settings.disabled

    @property
    def executes_here(self) -> bool:
        capabilities = self.backend.capabilities
        return (self.started and capabilities.executes_in_process) or not capabilities.keeps_time

    def close(self) -> None:
        """Give up the store's connections, if it was used; the next call connects again. Twice is safe."""
        if "store" in self.__dict__:
            self.store.close()

    def stop_feed(self, timeout: float) -> None:
        """End what listeners of changes iterate over, in a process that was never started, too. Twice is safe."""
        if "assembly" in self.__dict__:
            self.assembly.feed.stop(timeout)

    # ---------------------------------------------------------------- around a fork

    def before_fork(self) -> None:
        """In the parent, before a fork: let the store hold still."""
        if "store" in self.__dict__:
            self.store.before_fork()

    def after_fork_in_parent(self) -> None:
        """In the parent, after a fork: let the store go on."""
        if "store" in self.__dict__:
            self.store.after_fork_in_parent()

    def after_fork(self) -> None:
        """In a forked child: use no inherited thread or connection; count as not started."""
        self.lock = threading.RLock()
        if "store" in self.__dict__:
            self.store.after_fork()
        self.started = self.stopped = False
        self.__dict__.pop("assembly", None)
        after_fork = getattr(self._given_backend or self.__dict__.get("backend"), "after_fork", None)
        if after_fork is not None:
            after_fork()


_PARTS: Mapping[str, Part] = {
    "settings": (lambda part: isinstance(part, Settings), "Settings(...)"),
    "backend": (lambda part: isinstance(part, Backend), "an object of a subclass of Backend"),
    "store": (lambda part: isinstance(part, RunStore), "an object of a subclass of RunStore"),
    "clock": (lambda part: has_methods(part, "now"), "an object with the methods of Clock"),
    "observers": (
        lambda part: is_list_of(part, lambda each: has_methods(each, "started", "ended")),
        "a list of objects with the methods `started` and `ended`, as jobmanager.observe says",
    ),
    "around": (
        lambda part: is_list_of(part, callable),
        "a list of functions that take a RunContext and return a context manager",
    ),
    "address_of": (callable, "a function that takes a name and returns an e-mail address or None"),
    "locale_of": (callable, "a function that takes a name and returns a locale such as 'de', or None"),
    "texts": (
        lambda part: isinstance(part, Mapping) and all(isinstance(texts, Mapping) for texts in part.values()),
        "a mapping of a locale to its texts by name",
    ),
    "notifiers": (
        lambda part: is_list_of(part, lambda each: isinstance(each, Notifier)),
        "a list of objects of subclasses of Notifier",
    ),
}


def _nothing() -> None:
    """Asks a clock whether it drives, and no more."""
