"""The methods of JobManager for jobs that operators make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobmanager.access.principal import ADMIN, WRITE
from jobmanager.errors import ConfigurationError, DuplicateJobError, HandlerNotFoundError
from jobmanager.job import Job, check_id
from jobmanager.ledger.definition import defined, edited, job_of
from jobmanager.ledger.missing_instants import schedule_of
from jobmanager.ledger.overrides import added, checked
from jobmanager.manager.guarding import changes, reads
from jobmanager.manager.parts import Parts
from jobmanager.registry import HandlerInfo, closest
from jobmanager.stores.values import JobRow
from jobmanager.validation.call_arguments import check_arguments, mapping_of
from jobmanager.validation.texts import Located, naming_its_caller, shown


class Storing:
    """The methods for stored jobs. Any thread may call them; the first use installs an empty store.

    A stored job names a registered handler by its key and survives deployments. Every process that has the handler takes it over
    within a second, and one that does not leaves its runs to others.
    """

    _parts: Parts

    @reads
    def handlers(self) -> list[HandlerInfo]:
        """Return the handlers of this process by key, webhooks included, each with the JSON schema of its arguments.

        Imports handlers given as paths. A principal sees none that only jobs have which it does not see.
        """
        self._parts.read_changes()
        hidden = self._parts.hidden_handlers()
        return [
            handler.info()
            for key, handler in sorted(self._parts.registry.handlers.items())
            if key not in hidden
        ]

    @naming_its_caller
    @changes(ADMIN, "create", of="job")
    def create_job(self, job_id: str, *, handler: str, by: str | None = None, **options: Any) -> Job:
        """Make a job of a registered handler, with the options of `job`, and return it; its first instant is the next one from now, and `first="now"` starts a run as well.

        It fires on every backend from its commit on, without a restart. Raises DuplicateJobError for an id that is taken in any
        namespace, HandlerNotFoundError for a key that no living process has, PayloadError for a config that does not fit, and
        ConfigurationError or CronError for what a declaration would not accept either.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by)
            check_id(job_id)
            definition = defined(job_id, handler, options)
            job = self._checked(job_of(job_id, definition))
        self._parts.check_not_disabled(f"Job {job_id!r} is not made", job_id)
        there = self._create(job, definition, by)
        if there is not None:
            raise DuplicateJobError(
                f"Job {job_id!r} exists already, {_origin(there)} in namespace {there.namespace!r}. "
                "Edit that one, or choose another id."
            )
        return job

    @naming_its_caller
    @changes(WRITE, "edit", of="job")
    def update_job(
        self, job_id: str, *, by: str | None = None, if_rev: int | None = None, **options: Any
    ) -> Job:
        """Edit a job and return it: the definition of a stored one, the override of a declared one. Nothing fires by it, unless `on_change` says so.

        None gives an option its default back. Raises EditConflictError if the job's revision is no longer `if_rev`, JobNotFoundError, and what
        `create_job` and `override_job` raise.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by)
        self._parts.check_not_disabled(f"Job {shown(job_id)} is not changed", job_id)
        row = self._parts.row(job_id)
        self._parts.check_scope(job_id, "edit")
        if row.definition is None:
            with Located(f"Job {job_id!r}"):
                override = added(row.override or {}, checked(options))
                changed = self._parts.ready().job_sync.overridden(job_id, override)
            self._parts.prepare(schedule_of(changed))
            self._change(job_id, declaration=changed, by=by, action="override", if_rev=if_rev)
            return self._parts.registry.job(job_id)
        with Located(f"Job {job_id!r}"):
            handler, words = edited(row.definition, options)
            definition = defined(job_id, handler, words)
            job = self._checked(job_of(job_id, definition))
        changed = self._parts.ready().job_sync.defined(job, definition)
        self._parts.prepare(schedule_of(changed))
        self._change(job_id, declaration=changed, by=by, action="edit", if_rev=if_rev)
        return job

    @naming_its_caller
    @changes(ADMIN, "delete", of="job")
    def delete_job(self, job_id: str, *, by: str | None = None) -> None:
        """Delete a stored job: it fires no more, its pending runs are cancelled, one that runs goes on. Its history stays.

        Twice is safe. Raises JobNotFoundError, and ConfigurationError for a job that code declares.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by)
        self._parts.check_not_disabled(f"Job {shown(job_id)} is not deleted", job_id)
        row = self._parts.row(job_id, deleted=True)
        self._parts.check_scope(job_id, "delete")
        if row.definition is None:
            raise ConfigurationError(
                f"Job {job_id!r} is declared by code and cannot be deleted. Remove the declaration, or disable it."
            )
        self._change(job_id, state="deleted", reason="requested", by=by, action="delete")

    @naming_its_caller
    @changes(WRITE, "enable", of="job")
    def enable_job(self, job_id: str, *, by: str | None = None) -> None:
        """Enable a disabled job again: its next instant is the first one after now. Twice is safe. Raises JobNotFoundError."""
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by)
        self._parts.check_not_disabled(f"Job {shown(job_id)} is not enabled", job_id)
        row = self._parts.row(job_id)
        self._parts.check_scope(job_id, "enable")
        if row.state == "disabled":
            self._parts.prepare(schedule_of(row))
            self._change(job_id, state="active", by=by, action="enable")

    @naming_its_caller
    @changes(WRITE, "disable", of="job")
    def disable_job(self, job_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Disable a job: nothing starts it, not even by hand; its pending runs are closed, one that runs goes on. Twice is safe.

        A deployment does not enable it again. Raises JobNotFoundError.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(reason=reason, by=by)
        self._parts.check_not_disabled(f"Job {shown(job_id)} is not disabled", job_id)
        row = self._parts.row(job_id)
        self._parts.check_scope(job_id, "disable")
        if row.open:
            self._change(job_id, state="disabled", reason=reason or "requested", by=by, action="disable")

    @naming_its_caller
    @changes(ADMIN, "create")
    def seed(self, jobs: Mapping[str, Mapping[str, Any]], *, by: str | None = "seed") -> list[str]:
        """Make those of these jobs, by id, that do not exist, and return the ids of what was made.

        Each is a mapping with `handler` and the options of `job`; with `enabled_when` one is made only where that holds. What an
        operator changed or deleted stays as it is. Raises what `create_job` raises, for the first that is wrong, before any is made.
        """
        with Located("seed"):
            check_arguments(by=by)
            given_jobs = {
                job_id: mapping_of(job_id, given) for job_id, given in mapping_of("jobs", jobs).items()
            }
        self._parts.check_not_disabled("No job is made")
        wanted = []
        for job_id, words in given_jobs.items():
            with Located(f"Job {shown(job_id)}"):
                gate = Job(
                    id=job_id, name=job_id, handler=job_id, enabled_when=words.pop("enabled_when", True)
                )
                definition = defined(job_id, words.pop("handler", job_id), words)
                job = self._checked(job_of(job_id, definition))
                self._parts.registry.seeds[job_id] = replace(job, enabled_when=gate.enabled_when)
                if gate.gate(self._parts.environ):
                    wanted.append((job, definition))
        return [
            job.id
            for job, definition in wanted
            if self._create(job, definition, by, even_if_deleted=False) is None
        ]

    # ---------------------------------------------------------------- parts

    def _checked(self, job: Job) -> Job:
        """Return the job if a process of this namespace can execute it and its config fits, as far as this process can tell."""
        self._parts.backend_class.check(job)
        if job.ping_url is not None:
            self._parts.webhooks.check_ping(job.ping_url)
        self._parts.read_changes()
        known = self._parts.registry.handlers
        handler = known.get(job.handler)
        if handler is not None:
            if not handler.creatable:
                raise ConfigurationError(
                    f"handler={job.handler!r} is not offered for stored jobs (creatable=False)."
                )
            handler.check_config(job.config)
            return job
        store = self._parts.ready().store
        if job.handler not in store.processes.handlers_of_living(self._parts.settings.namespace):
            raise HandlerNotFoundError(
                f"No living process has a handler {job.handler!r}.{closest(job.handler, known)} `jobs.handlers()` lists those of this one."
            )
        return job

    def _create(
        self, job: Job, definition: Mapping[str, Any], by: str | None, *, even_if_deleted: bool = True
    ) -> JobRow | None:
        """Make the job; return the row that has its id, if one has."""
        assembly = self._parts.ready()
        row = assembly.job_sync.defined(job, definition)
        there = assembly.store.jobs.get(job.id)
        if there is not None and (there.state != "deleted" or not even_if_deleted):
            return there
        self._parts.prepare(schedule_of(row))
        entry = assembly.auditor.of_job("create", None, row, by=by, at=assembly.store.now())
        there = assembly.store.jobs.create(row, entry)
        if there is None and job.first == "now":
            assembly.account.open_first(job.id, by=by)
        self._follow()
        if job.first == "now":
            assembly.claims.claim()
        return there

    def _change(self, job_id: str, **how: Any) -> None:
        self._parts.ready().account.change(job_id, **how)
        self._follow()

        job = self._parts.registry.jobs.get(job_id)
        if job is not None and job.on_change == "now":
            self._parts.assembly.claims.claim()

    def _follow(self) -> None:
        """Take over the change at once; other processes notice it within a second."""
        self._parts.assembly.follow_changes()
        self._parts.assembly.job_sync.refresh()


def _origin(row: JobRow) -> str:
    return "declared by code" if row.definition is None else "made by an operator"
