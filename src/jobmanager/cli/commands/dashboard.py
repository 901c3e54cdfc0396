"""`jobmanager dashboard`: the pages and the API, served on this machine."""

from __future__ import annotations

import json
import os
import webbrowser
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager
    from jobmanager.web.guard import Application, Hook
    from jobmanager.web.sessions import Sessions

OPTIONS = "_JOBMANAGER_DASHBOARD"
"""The variable by which a process that reloads gives its options to the process that serves."""


@dataclass(frozen=True)
class Served:
    """The application to serve, and how."""

    target: str | None
    host: str
    timezone: str
    read_only: bool
    runs: bool


@verb("dashboard", example="jobmanager --app shop.jobs:jobs dashboard --run")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8787, show_default=True, type=click.IntRange(0, 65535), help="The port.")
@click.option("--timezone", default="UTC", show_default=True, help="The zone in which pages tell times.")
@click.option("--read-only", is_flag=True, help="Change nothing.")
@click.option("--run", "runs", is_flag=True, help="Keep time and execute in this process too.")
@click.option(
    "--reload", "reloads", is_flag=True, help="Start anew when a Python file of this folder changes."
)
@click.option("--open", "opens", is_flag=True, help="Open the browser.")
@click.pass_obj
def dashboard(
    here: Session,
    host: str,
    port: int,
    timezone: str,
    read_only: bool,
    runs: bool,
    reloads: bool,
    opens: bool,
) -> None:
    """Serve the dashboard and its API.

    On 127.0.0.1 every user of this machine is let in as an administrator. On any other address, and where JOBMANAGER_DASHBOARD_USERS is
    set, people sign in with a password; programs send it by basic authentication, or have a key of `jobmanager keys create`.

    Without an application it shows the database of JOBMANAGER_DATABASE_URL: jobs can be paused and runs ended, but nothing starts.
    """
    try:
        import uvicorn

        import jobmanager.web.application  # noqa: F401 - to say now what is not installed
    except ImportError as error:
        raise UsageError(f"{error}.", hint="pip install 'jobmanager-backends[web]'") from error
    if runs:
        here.jobs  # noqa: B018 - an error if there is no application
    else:
        here.look_around()
    served = Served(here.target, host, timezone, read_only, runs)
    app: Any = application(here, served)  # what is wrong is said here, before a server starts
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if here.as_json:
        here.emit({"event": "serving", "address": address}, line=True)
    else:
        here.print(f"Dashboard: {address}", "Ctrl-C ends it.")
    if opens:
        webbrowser.open(address)
    options: dict[str, Any] = {"reload": False}
    if reloads:
        os.environ[OPTIONS] = json.dumps(asdict(served))
        app = f"{__name__}:reloaded"
        options = {"factory": True, "reload": True, "reload_dirs": [str(Path.cwd())]}
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=1,  # open streams of events are cut off
        **options,
    )


def reloaded() -> Application:
    """Return the application in a process that a reloading one started."""
    served = Served(**json.loads(os.environ[OPTIONS]))
    return application(Session(target=served.target), served)


def application(here: Session, served: Served) -> Application:
    """Return the dashboard of the session's manager; with `runs` the manager lives as long as the server."""
    from jobmanager.web import dashboard as pages

    manager = here.jobs if served.runs else here.ledger
    app = pages(
        manager,
        authorize=_hook(manager, served.host),
        sign_in=_sign_in(manager),
        timezone=served.timezone,
        read_only=served.read_only,
    )
    return _Living(app, manager) if served.runs else app


class _Living:
    """Starts the manager with the server, and stops it with the server."""

    def __init__(self, app: Application, manager: JobManager) -> None:
        self._app = app
        self._manager = manager

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        async with self._manager.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _hook(manager: JobManager, host: str) -> Hook:
    from jobmanager.web import api_keys, basic_auth_from_settings, loopback_only
    from jobmanager.web.loopback import is_local_host

    settings = manager.settings
    if settings.dashboard_users is None and not is_local_host(host):
        raise UsageError(
            f"--host {host} is reachable from other machines, and JOBMANAGER_DASHBOARD_USERS is not set.",
            hint="Make a user with `jobmanager dashboard-user NAME`, or leave --host at 127.0.0.1.",
        )
    keys = api_keys(manager)
    people = loopback_only() if settings.dashboard_users is None else basic_auth_from_settings(settings)
    return lambda request: keys(request) or people(request)


def _sign_in(manager: JobManager) -> Sessions | None:
    from jobmanager.web import password_login

    return None if manager.settings.dashboard_users is None else password_login(manager.settings)
