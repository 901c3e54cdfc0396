"""`jobmanager worker` and `jobmanager beat`: the processes of the Celery backend, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobmanager.cli.commands.serve import warn_of_no_job
from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.present.phrases import count

if TYPE_CHECKING:
    from celery import Celery

    from jobmanager.backends.celery import CeleryBackend

SCHEDULER = "jobmanager.backends.celery:Scheduler"
COOPERATIVE = ("gevent", "eventlet")

NAME = click.option("--name", "-n", metavar="NAME@HOST", help="What it is called in `celery inspect`.")
LEVEL = click.option(
    "--loglevel", "-l", "level", default="info", metavar="LEVEL", help="debug, info, warning or error."
)


@verb("worker", example="jobmanager --app shop.jobs:jobs worker --concurrency 8")
@click.option(
    "--concurrency",
    "-c",
    metavar="N",
    type=click.IntRange(min=1),
    help="Runs at once; by default one per core.",
)
@click.option("--pool", default="prefork", help="prefork, threads or solo.")
@click.option("--queues", "-q", metavar="A,B", help="Only from these; by default all that the jobs name.")
@click.option("--beat", "with_beat", is_flag=True, help="Keep the time, too: for development.")
@NAME
@LEVEL
@click.pass_obj
def worker(
    here: Session,
    concurrency: int | None,
    pool: str,
    queues: str | None,
    with_beat: bool,
    name: str | None,
    level: str,
) -> None:
    """Execute the runs that the beats send (JOBMANAGER_BACKEND=celery). Start as many workers as you need.

    Ends with Ctrl-C or SIGTERM, once the running handlers have ended, or after JOBMANAGER_DRAIN_SECONDS; a second signal ends it at once.
    The exit code is Celery's: 0 after a drain, 1 after an error that it calls unrecoverable, so that a supervisor starts it again.
    """
    if pool in COOPERATIVE:
        raise UsageError(
            f"jobmanager does not run in Celery's pool {pool}: its heartbeat needs real threads.",
            hint="Use --pool prefork, threads or solo.",
        )
    backend = _introduce(here, "worker", queues)
    backend.drain.ends = True
    arguments = ["--quiet", "worker", "--pool", pool, "--loglevel", level]
    for option, value in (("--concurrency", concurrency), ("--queues", queues), ("--hostname", name)):
        if value is not None:
            arguments += [option, str(value)]
    if with_beat:
        arguments += ["--beat", "--scheduler", SCHEDULER]
    _run(backend.app, arguments)


@verb("beat", example="jobmanager --app shop.jobs:jobs beat --name beat@%h")
@NAME
@LEVEL
@click.pass_obj
def beat(here: Session, name: str | None, level: str) -> None:
    """Keep the time (JOBMANAGER_BACKEND=celery). Start two or more on different hosts; no tick is sent twice.

    Ends with Ctrl-C or SIGTERM.
    """
    backend = _introduce(here, "beat")
    arguments = ["--quiet", "beat", "--scheduler", SCHEDULER, "--pidfile", "", "--loglevel", level]
    _run(backend.app, [*arguments, *(_remote_control(name) if name is not None else ())])


def _run(app: Celery, arguments: list[str]) -> None:
    """Run Celery's own command in this process, and end with its code: `Celery.start` and `worker_main` drop it."""
    from celery.bin.celery import celery

    celery.params[0].default = app
    code = celery.main(args=arguments, standalone_mode=False)
    if code:
        raise SystemExit(code)


def _remote_control(name: str) -> list[str]:
    """Return the name under which beat replies to `celery inspect ping` (Celery 5.7 and newer)."""
    from celery import VERSION

    if VERSION < (5, 7):
        raise UsageError(f"A beat has a name since Celery 5.7; this is {'.'.join(map(str, VERSION[:3]))}.")
    return ["--enable-remote-control", "--hostname", name]


def _introduce(here: Session, verb: str, queues: str | None = None) -> CeleryBackend:
    """Print what starts; UsageError if another backend is chosen."""
    jobs = here.jobs
    if jobs.resolution.backend != "celery":
        raise UsageError(
            f"`jobmanager {verb}` belongs to the backend celery; chosen is {jobs.resolution.backend}, "
            f"because {jobs.resolution.reason}.",
            hint="Set JOBMANAGER_BACKEND=celery and JOBMANAGER_CELERY_BROKER_URL, or use `jobmanager run`.",
        )
    warn_of_no_job(here, jobs)
    backend: CeleryBackend = jobs.backend  # type: ignore[assignment]  # celery is chosen
    try:
        broker = backend.app.connection_for_write().as_uri()
    except ImportError as error:  # of the transport
        raise UsageError(
            f"The broker needs the package {error.name or error}, which is not installed.",
            hint="Install it, or name redis://host:6379/0 or amqp://user:password@host// in JOBMANAGER_CELERY_BROKER_URL.",
        ) from error
    if here.as_json:
        facts = {"event": "starting", "process": verb, "broker": broker, "store": jobs.store.url}
        here.emit({**facts, "jobs": len(jobs.registry.jobs)}, line=True)
        return backend
    from jobmanager.cli.output.lists import dim
    from jobmanager.cli.output.lists import facts as lines

    shown = [("broker", broker), ("store", jobs.store.url), ("jobs", count(len(jobs.registry.jobs), "job"))]
    if verb == "worker":
        shown.append(("queues", queues or ", ".join(backend.queues())))
    here.print(lines(shown), "", dim("Ctrl-C ends it."))
    return backend
