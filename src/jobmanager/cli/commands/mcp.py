"""`jobmanager mcp`: jobs and runs for agents, over standard input and output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Literal

import click

from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb

if TYPE_CHECKING:
    from jobmanager.access.principal import Principal
    from jobmanager.manager.manager import JobManager

VARIABLE = "JOBMANAGER_MCP_KEY"


@verb("mcp", example="jobmanager --app shop.jobs:jobs mcp --allow-start")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    help="What the agent may do and see without a key; viewer, and operator with --allow-start.",
)
@click.option("--allow-start", is_flag=True, help="Let the agent start runs too; each is audited.")
@click.pass_obj
def mcp(here: Session, role: Literal["viewer", "operator", "admin"] | None, allow_start: bool) -> None:
    """Serve jobs and runs to an agent by the Model Context Protocol, on standard input and output.

    A client starts this command itself. It reads: jobs, runs with logs and steps, explanations, statistics, health. Nothing is changed but
    by the tool start_job, which is there with --allow-start alone.

    With an API key of `jobmanager keys create` in JOBMANAGER_MCP_KEY it acts for that key, with its permissions and scopes. Otherwise as
    mcp:USER with --role; admin sees system jobs as well, and may run doctor.
    """
    # Standard output is the protocol's alone, whatever the application prints.
    with redirect_stdout(sys.stderr):
        try:
            from jobmanager.mcp.server import server_of
        except ImportError as error:
            raise UsageError(f"{error}.", hint="pip install 'jobmanager-backends[mcp]'") from error
        here.look_around()
        jobs = here.ledger
        server = server_of(jobs, _asking(jobs, here.user, role, allow_start), allow_start=allow_start)
    server.run("stdio")


def _asking(jobs: JobManager, user: str, role: str | None, allow_start: bool) -> Callable[[], Principal]:
    """Return what says for whom a call is made: the holder of the key, looked up each time, or the user of this machine."""
    from jobmanager.access.principal import Principal
    from jobmanager.settings import Settings

    key = jobs.settings.mcp_key or Settings.from_env().mcp_key
    if key is None:
        principal = Principal(f"mcp:{user}", [role or ("operator" if allow_start else "viewer")])
        return lambda: principal
    if role is not None:
        raise UsageError(
            f"--role and {VARIABLE} are both given.",
            hint="A key has its own permissions: leave one of them out.",
        )

    def holder() -> Principal:
        found = jobs.principal_of_key(key.get_secret_value())
        if found is None:
            raise UsageError(
                f"{VARIABLE} is no key of this store, or is revoked or past its end.",
                hint="`jobmanager keys list` shows the keys, `jobmanager keys create NAME` makes one.",
            )
        return found

    holder()
    return holder
