"""The jobs of a manager as functions of Inngest, in a FastAPI, Flask or Tornado application: `serve(app, jobs)`, with the extra `inngest`.

Inngest calls the functions at the instants of its cron; what a call means is decided as at the endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import inngest

from jobmanager.backends.tickers.inngest import InngestBackend, trigger_text
from jobmanager.backends.tickers.remote import Planned
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import SystemClock
from jobmanager.errors import ConfigurationError
from jobmanager.manager.manager import JobManager
from jobmanager.web.response import Response
from jobmanager.web.work import Work

RETRIES = 3
ADAPTERS = {"fastapi": "inngest.fast_api", "flask": "inngest.flask", "tornado": "inngest.tornado"}
AGAIN = 30.0


def serve(
    app: Any, jobs: JobManager, *, client: inngest.Inngest | None = None
) -> list[inngest.Function[Any]]:
    """Serve a function for each job that is declared by now and has a schedule, below `/api/inngest` of the application; return them.

    Call it after the declarations, once. Without `client` one is made, of the application's id in JOBMANAGER_INNGEST_APP_ID and of what
    the INNGEST_ variables say. Raises ConfigurationError for another backend, and for a framework without an adapter.
    """
    backend = jobs.backend
    if not isinstance(backend, InngestBackend):
        raise ConfigurationError(
            f"{jobs.resolution}: Inngest does not keep the time here. Set JOBMANAGER_BACKEND=inngest, or serve nothing."
        )
    adapter = _adapter(app)
    client = client or inngest.Inngest(app_id=backend.app_id)
    planned = backend.wanted(
        [
            ScheduledJob(job, 1, job.schedule.next_after(SystemClock().now()))
            for job in jobs.registry.jobs.values()
            if job.schedule is not None
        ]
    )
    work = Work(jobs, SystemClock())
    functions = [function_of(client, one, work.tick) for one in planned]
    adapter.serve(app, client, functions)
    backend.serves(planned)
    return functions


def function_of(
    client: inngest.Inngest, planned: Planned, tick: Callable[[str], Response]
) -> inngest.Function[Any]:
    """Return the function that opens what is due of a job, and asks to be called again where the endpoint would."""
    job_id = str(planned.job_id)

    @client.create_function(
        fn_id=planned.key, trigger=inngest.TriggerCron(cron=trigger_text(planned)), retries=RETRIES
    )
    def call(_context: inngest.ContextSync) -> Any:
        response = tick(job_id)
        if response.status in (200, 202):
            return json.loads(response.body)
        if response.status == 404:
            return {"job": job_id, "finding": "unknown_job"}  # another attempt would find no more
        pause = float(dict(response.headers).get(b"retry-after", AGAIN))
        raise inngest.RetryAfterError(f"{job_id}: {response.status}", timedelta(seconds=pause), quiet=True)

    return call


def _adapter(app: Any) -> Any:
    """Return the module of Inngest's package for the application's framework."""
    roots = {kind.__module__.partition(".")[0] for kind in type(app).__mro__}
    for framework, module in ADAPTERS.items():
        if framework in roots:
            return import_module(module)
    raise ConfigurationError(
        f"serve() knows applications of {', '.join(ADAPTERS)}; {type(app).__name__} is none. Mount one of these beside it."
    )
