"""`jobmanager dashboard`: the pages and the API, served on this machine."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING

import click

from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb

if TYPE_CHECKING:
    from jobmanager.web.guard import Hook


@verb(
    "dashboard",
    example="jobmanager --app shop.jobs:jobs dashboard --run",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8787, show_default=True, type=click.IntRange(1, 65535), help="The port.")
@click.option("--timezone", default="UTC", show_default=True, help="The zone in which pages tell times.")
@click.option("--read-only", is_flag=True, help="Change nothing.")
@click.option(
    "--run", "run_too", is_flag=True, help="Keep time and execute in this process too, for development."
)
@click.option("--open", "opens", is_flag=True, help="Open the browser.")
@click.pass_obj
def dashboard(
    here: Session, host: str, port: int, timezone: str, read_only: bool, run_too: bool, opens: bool
) -> None:
    """Serve the dashboard with its API.

    On this machine alone everybody is let in as an administrator. On any other address people need a password of
    JOBMANAGER_DASHBOARD_USERS, or a key of `jobmanager keys create`.

    Without an application it shows a database: jobs can be paused and runs ended, but nothing can be started.
    """
    try:
        import uvicorn

        from jobmanager.web import dashboard as application
    except ImportError as error:
        raise UsageError(f"{error}.", hint="Install jobmanager-backends[web].") from error
    manager = here.jobs if run_too else here.ledger
    app = application(manager, authorize=_hook(here, host), timezone=timezone, read_only=read_only)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    here.print(f"Dashboard: {address}", "Ctrl-C ends it.")
    if opens:
        webbrowser.open(address)
    if run_too:
        manager.start()
    try:
        uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
    finally:
        if run_too:
            manager.stop()


def _hook(here: Session, host: str) -> Hook:
    from jobmanager.web import api_keys, basic_auth_from_settings, loopback_only
    from jobmanager.web.loopback import is_loopback

    settings = here.ledger.settings
    keys = api_keys(here.ledger)
    if settings.dashboard_users is None and not is_loopback(host) and host != "localhost":
        raise UsageError(
            f"--host {host} is reachable from other machines, and JOBMANAGER_DASHBOARD_USERS is not set.",
            hint="Make a user with `jobmanager dashboard-user NAME`, or leave --host at 127.0.0.1.",
        )
    people = loopback_only() if settings.dashboard_users is None else basic_auth_from_settings(settings)
    return lambda request: keys(request) or people(request)
