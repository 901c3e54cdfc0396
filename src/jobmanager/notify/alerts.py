"""Alerts: which event of which run or job tells whom. Decides alone; writing and sending are others' work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from jobmanager.job import Job
from jobmanager.run import CANCELLED, FAILED, SUCCEEDED, Ending, Failure, Notice, Run, RunStatus
from jobmanager.schedule import Cron
from jobmanager.settings import is_address

REQUESTER = "requester"
"""The address of who started a run by hand; it is looked up when the message is written."""
OF_A_FAILING_JOB = frozenset({"failed", "recovered", "paused"})
"""The events of `notify_on_failure`, and those of jobs with `visibility="system"`."""
LONGEST_ERROR = 1000


class Route(NamedTuple):
    """The recipient of a notification: an address of a channel; the empty address is the channel's own."""

    channel: str
    address: str = ""


def route_of(text: str) -> Route:
    """Return the route that a text means: an e-mail address, or the name of a channel with `:address` after it or nothing."""
    if is_address(text):
        return Route("email", text)
    channel, _, address = text.partition(":")
    return Route(channel, address)


class Alerts:
    """Makes the notices of runs and jobs. Any thread may ask; nothing here blocks.

    `admins` are told of jobs with `visibility="system"`, and of what concerns no single job; with `ends` of every end of those jobs. `expanded` returns the addresses that an
    empty one stands for.
    """

    def __init__(
        self,
        namespace: str,
        *,
        admins: Sequence[Route] = (),
        ends: bool = False,
        expanded: Callable[[Route], Sequence[Route]] = lambda route: (route,),
    ) -> None:
        self.admins = tuple(each for route in admins for each in expanded(route))
        self._expanded = expanded
        self._namespace = namespace
        self._ends = ends

    def watches(self, job: Job) -> bool:
        """Return whether any event of the job tells anybody."""
        return bool(
            job.notify_on_failure
            or job.alert_on
            or job.alert_late is not None
            or job.alert_running is not None
            or (self.admins and job.visibility == "system")
        )

    def of_ending(self, job: Job, ending: Ending) -> tuple[Notice, ...]:
        """Return what the end of an attempt tells, if the run ends with it."""
        run = ending.run
        if not (run.notify or self.watches(job)):
            return ()
        ended = self._ended(job, run, ending.status, ending.error, ending.started_at, ending.finished_at)
        return (*ended, *self._slow(job, run, ending.started_at, ending.finished_at))

    def of_run(self, job: Job, run: Run) -> tuple[Notice, ...]:
        """Return what a run tells that the store ended: its process died."""
        if not (run.status.closed and (run.notify or self.watches(job))):
            return ()
        return self._ended(job, run, run.status, run.error, run.started_at, run.finished_at)

    def of_job(self, job: Job, event: str, subject: str, details: Mapping[str, Any]) -> tuple[Notice, ...]:
        """Return what an event of a job tells."""
        facts = {"name": job.name, "zone": _zone(job), "job_locale": job.locale, **details}
        return self._notices(self.routes(job, event), event, subject, job.id, facts)

    def of_system(
        self, event: str, subject: str, details: Mapping[str, Any], *, fold: str = ""
    ) -> tuple[Notice, ...]:
        """Return what an event tells that concerns no single job."""
        return self._notices(self.admins, event, subject, "", details, fold=fold)

    def routes(self, job: Job, event: str) -> Sequence[Route]:
        """Return who is told of this event of the job."""
        found: list[Route] = []
        asked = event in job.alert_on or (event in OF_A_FAILING_JOB and job.notify_on_failure)
        if (
            asked
            or (event == "late" and job.alert_late is not None)
            or (event == "running_long" and job.alert_running is not None)
        ):
            given = [each for text in job.alert_to for each in self._expanded(route_of(text))]
            found += given or self.admins
        if job.visibility == "system" and (event in OF_A_FAILING_JOB or (event == "ended" and self._ends)):
            found += self.admins
        return list(dict.fromkeys(found))

    def _ended(
        self,
        job: Job,
        run: Run,
        status: RunStatus,
        error: Failure | None,
        started_at: datetime | None,
        finished_at: datetime | None,
    ) -> tuple[Notice, ...]:
        of_ends = self.routes(job, "ended")
        told: dict[str, Iterable[Route]] = {}
        if status is FAILED:
            told["failed"] = dict.fromkeys([*self.routes(job, "failed"), *of_ends])
        elif status in (SUCCEEDED, CANCELLED):
            told["ended"] = of_ends
            if status is SUCCEEDED:
                told["recovered"] = [route for route in self.routes(job, "recovered") if route not in of_ends]
        facts = _facts(job, run, error, started_at, finished_at) | {"status": str(status)}
        notices = [self._notices(routes, event, run.id, job.id, facts) for event, routes in told.items()]
        if run.notify:
            event = "failed" if status is FAILED else "ended"
            notices.append(
                self._notices([Route("email", REQUESTER)], event, run.id, job.id, facts, fold=run.id)
            )
        return tuple(notice for several in notices for notice in several)

    def _slow(self, job: Job, run: Run, started_at: datetime, finished_at: datetime) -> tuple[Notice, ...]:
        return (
            *self.late(job, run, started_at),
            *self.running_long(job, run, finished_at - started_at),
        )

    def late(self, job: Job, run: Run, moment: datetime) -> tuple[Notice, ...]:
        """Return what it tells that the run's first attempt had not started before this moment."""
        if (
            job.alert_late is None
            or run.scheduled_for is None
            or run.attempt > 1
            or moment - run.scheduled_for <= job.alert_late
        ):
            return ()
        return self._of_slow(job, run, "late", job.alert_late)

    def running_long(self, job: Job, run: Run, duration: timedelta) -> tuple[Notice, ...]:
        """Return what it tells that an attempt has lasted so long."""
        if job.alert_running is None or duration <= job.alert_running:
            return ()
        return self._of_slow(job, run, "running_long", job.alert_running)

    def _of_slow(self, job: Job, run: Run, event: str, limit: timedelta) -> tuple[Notice, ...]:
        facts = _facts(job, run, None, None, None) | {"seconds": limit.total_seconds()}
        return self._notices(self.routes(job, event), event, run.id, job.id, facts)

    def _notices(
        self,
        routes: Iterable[Route],
        event: str,
        subject: str,
        job_id: str,
        details: Mapping[str, Any],
        *,
        fold: str = "",
    ) -> tuple[Notice, ...]:
        return tuple(
            Notice(
                namespace=self._namespace,
                event=event,
                subject=subject,
                channel=route.channel,
                address=route.address,
                job_id=job_id,
                fold=fold,
                details=details,
            )
            for route in routes
        )


def _facts(
    job: Job, run: Run, error: Failure | None, started_at: datetime | None, finished_at: datetime | None
) -> dict[str, Any]:
    """Return what a message about a run may say, as JSON. The error was cleared of secrets before."""
    took = (finished_at - started_at).total_seconds() if started_at and finished_at else None
    said = None if error is None else f"{error.type}: {error.message}" if error.type else error.message
    payload = run.payload or {}
    locale = payload.get("locale")
    return {
        "name": job.name,
        "run": run.id,
        "instant": run.instant.isoformat(),
        "zone": _zone(job),
        "error": None if said is None else said[:LONGEST_ERROR],
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "duration": took,
        "by": run.requested_by,
        "locale": locale if isinstance(locale, str) else None,
        "job_locale": job.locale,
    }


def _zone(job: Job) -> str:
    return job.schedule.timezone if isinstance(job.schedule, Cron) else "UTC"
