"""The web application: its page, what teams may ask for, the endpoint for outside clocks, and the dashboard of its jobs.

uvicorn examples.saas.app:app
"""

import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from jobmanager import JobManager
from jobmanager.errors import RunConflictError, RunNotFoundError
from jobmanager.web import asgi, basic_auth_from_settings, dashboard, loopback_only

from . import services
from .fakes import FAILURES
from .init import init
from .jobs import jobs


def make_app(manager: JobManager) -> FastAPI:
    """Return the application around a manager. With its lifespan it sets itself up, and starts and stops the manager."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(init, manager)
        async with manager.lifespan(app):
            yield

    app = FastAPI(title="Acme Boards", lifespan=lifespan)
    users = manager.settings.dashboard_users
    hook = basic_auth_from_settings(manager.settings) if users else loopback_only()
    app.mount("/admin/jobs", dashboard(manager, authorize=hook))
    app.mount(
        "/jobs", asgi(manager)
    )  # POST /jobs/run is for the clock, and refuses everybody who does not sign
    _add_page(app, manager)
    _add_projects(app, manager)
    return app


def _add_page(app: FastAPI, manager: JobManager) -> None:
    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        """Show how the jobs stand, and the services of others with the failures that one can switch on."""
        try:
            failures = services.call("GET", "/failures").json()
        except httpx.HTTPError as error:
            failures = {}
            trouble = f"<p>The services do not answer: {html.escape(str(error))}</p>"
        else:
            trouble = ""
        rows = "".join(_service(name, failure) for name, failure in failures.items())
        stands = "".join(
            f"<tr><td><a href='/admin/jobs/jobs/{html.escape(status.id)}'>{html.escape(status.id)}</a>"
            f"<td>{html.escape(str(status.status))}"
            for status in manager.get_all_job_statuses()
        )
        return PAGE.format(trouble=trouble, services=rows, jobs=stands)

    @app.post("/failures")
    def fail(
        request: Request, service: Annotated[str, Form()], failure: Annotated[str, Form()]
    ) -> RedirectResponse:
        """Let a service fail, or work again. Pages of other sites may not."""
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise HTTPException(403, "another site sent this")
        told = services.call("PUT", f"/failures/{service}", json={"failure": failure})
        if told.status_code != 200:
            raise HTTPException(422, told.json()["error"])
        return RedirectResponse("/", 303)


def _add_projects(app: FastAPI, manager: JobManager) -> None:
    @app.post("/projects/{project_id}/sync", status_code=202)
    def sync(project_id: int) -> Any:
        """Bring a project's subscribers. One run of a project at a time: another request gets 409 with the id of the one there is."""
        try:
            run = manager.trigger_job("revenuecat_sync", {"project_id": project_id}, scope=str(project_id))
        except RunConflictError as conflict:
            return JSONResponse({"detail": str(conflict), "run": conflict.run_id}, 409)
        return {"run": run.id}

    @app.get("/runs/{run_id}")
    def look(run_id: str) -> dict[str, Any]:
        """Return how a run stands, with its progress."""
        try:
            run = manager.run(run_id)
        except RunNotFoundError as error:
            raise HTTPException(404, str(error)) from error
        progress = run.progress and [run.progress.processed, run.progress.total, run.progress.message]
        return {"status": run.status, "progress": progress, "output": run.output}

    @app.post("/runs/{run_id}/cancel", status_code=202)
    def cancel(run_id: str) -> dict[str, str]:
        """Ask a run to end early; it keeps what it has done."""
        try:
            manager.cancel(run_id)
        except RunNotFoundError as error:
            raise HTTPException(404, str(error)) from error
        return {"run": run_id}


def _service(name: str, failure: str) -> str:
    buttons = "".join(
        f"<button name=failure value={choice}{' disabled' if choice == failure else ''}>{choice}</button>"
        for choice in FAILURES
    )
    form = f"<form method=post action=/failures><input type=hidden name=service value={name}>{buttons}</form>"
    return f"<tr><td>{name}<td>{form}"


PAGE = """<!doctype html><html lang=en><meta charset=utf-8><title>Acme Boards</title>
<style>body{{font:16px system-ui;max-width:50rem;margin:2rem auto}}td{{padding:.2rem 1rem}}form{{margin:0}}</style>
<h1>Acme Boards</h1><p><a href=/admin/jobs/>The dashboard of its jobs</a></p>
<h2>The services of others</h2><p>Let one fail, and see in the dashboard what becomes of the jobs that need it.</p>
{trouble}<table>{services}</table><h2>The jobs</h2><table>{jobs}</table></html>
"""

app = make_app(jobs)
