"""Jobs in a Litestar application: `Litestar(plugins=[JobsPlugin(jobs)])`.

The manager starts and stops with the application, handlers get it as the dependency `jobs`, the endpoint and the dashboard are mounted, and
`litestar jobs ...` is the command line.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from litestar import asgi as asgi_handler
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.plugins import CLIPlugin, InitPlugin

from jobmanager.manager.manager import JobManager
from jobmanager.web import asgi
from jobmanager.web import dashboard as make_dashboard

if TYPE_CHECKING:
    from jobmanager.web.guard import Hook

of_the_command: JobManager | None = None
"""The manager of the application whose command `litestar jobs` was called."""


class JobsPlugin(InitPlugin, CLIPlugin):
    """Brings a manager into an application. Without `authorize` there is no dashboard, without a secret no endpoint.

    `dashboard` is where the dashboard is mounted, `endpoint` where the endpoint is. `authorize` says who asks, as for
    `jobmanager.web.dashboard`.
    """

    def __init__(
        self,
        jobs: JobManager,
        *,
        authorize: Hook | None = None,
        dashboard: str = "/admin/jobs",
        endpoint: str = "/jobs",
    ) -> None:
        self._jobs = jobs
        self._authorize = authorize
        self._dashboard = dashboard
        self._endpoint = endpoint

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the lifespan, the dependency and the mounts."""
        app_config.lifespan.append(self._jobs.lifespan)
        app_config.dependencies["jobs"] = Provide(lambda: self._jobs, sync_to_thread=False)
        if self._authorize is not None:
            self._mount(app_config, self._dashboard, make_dashboard(self._jobs, authorize=self._authorize))
        if self._jobs.settings.secrets:
            self._mount(app_config, self._endpoint, asgi(self._jobs))
        return app_config

    def _mount(self, app_config: AppConfig, path: str, application: Any) -> None:
        app_config.route_handlers.append(asgi_handler(path, is_mount=True, copy_scope=True)(application))

    def on_cli_init(self, cli: click.Group) -> None:
        """Add `litestar jobs`."""

        @cli.command(
            "jobs",
            context_settings={"ignore_unknown_options": True, "help_option_names": []},
            help="The command line of jobmanager, for the jobs of this application.",
        )
        @click.argument("words", nargs=-1, type=click.UNPROCESSED)
        def jobs(words: tuple[str, ...]) -> None:
            from jobmanager.cli import main

            global of_the_command  # noqa: PLW0603 - read by name, as the command line finds every application
            of_the_command = self._jobs
            if code := main([f"--app={__name__}:of_the_command", *words]):
                sys.exit(code)
