"""Jobs in a Flask application: an extension with Flask's configuration, its application context, and its command line.

    ext = Jobs()

    @ext.job("forget-carts", cron="0 3 * * *")
    def forget_carts() -> None: ...

    def create_app() -> Flask:
        app = Flask(__name__)
        ext.init_app(app)
        return app

Each application has a manager of its own, at `app.extensions["jobmanager"]`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, ParamSpec, TypeVar, Unpack
from weakref import WeakSet

import click
from flask import Flask, current_app, has_app_context
from flask.ctx import AppContext

from jobmanager.context import RunContext
from jobmanager.contrib.starting import StartsOnceAProcess
from jobmanager.errors import ConfigurationError
from jobmanager.execution.around import Around
from jobmanager.job import JobOptions
from jobmanager.manager.manager import JobManager
from jobmanager.registry import HandlerTarget
from jobmanager.settings import PREFIX, Settings
from jobmanager.web import wsgi

P = ParamSpec("P")
R = TypeVar("R")

EXTENSION = "jobmanager"
of_the_command: JobManager | None = None
"""The manager of the application whose command `flask jobs` was called."""


class Jobs:
    """The extension. Declare jobs by it at any time; with `init_app` each application gets a manager with all of them.

    Every other attribute is that of the manager of the current application, or of the only one there is. `around` are further context
    managers around each attempt, inside the application context.
    """

    def __init__(self, app: Flask | None = None, *, around: Sequence[Around] = ()) -> None:
        self._around = tuple(around)
        self._declarations: list[Callable[[JobManager], object]] = []
        self._apps: WeakSet[Flask] = WeakSet()  # each holds its manager, which leads back to it
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give the application a manager, the command group `flask jobs`, and the endpoint if there is a secret. Starts nothing.

        The settings are those of `app.config["JOBMANAGER_..."]`; variables of the environment win. With JOBMANAGER_AUTOSTART each process
        starts with its first request. SettingsError for a name or value that cannot be used.
        """
        if EXTENSION in app.extensions:
            raise ConfigurationError(f"init_app: application {app.name!r} has jobs already. Call it once.")
        given = app.config.get_namespace(PREFIX)
        autostart = given.pop("autostart", False)
        settings = Settings.from_env(defaults=given)
        manager = JobManager(settings, around=[InApplicationContext(app), *self._around])
        for declare in self._declarations:
            declare(manager)
        app.extensions[EXTENSION] = manager
        self._apps.add(app)
        app.cli.add_command(_command(manager))
        inner: Any = app.wsgi_app
        if settings.secrets:
            inner = wsgi(manager, otherwise=inner)
        if autostart:
            inner = StartsWithFirstRequest(manager, inner)
        app.wsgi_app = inner  # type: ignore[method-assign]  # that is how Flask wants it

    @property
    def manager(self) -> JobManager:
        """The manager of the current application, or of the only one there is; ConfigurationError where that is none."""
        if has_app_context():
            found: JobManager | None = current_app.extensions.get(EXTENSION)
            if found is not None:
                return found
        managers = self._managers()
        if len(managers) == 1:
            return managers[0]
        raise ConfigurationError(
            f"{len(managers)} applications have these jobs. Call init_app(app), or use them inside app.app_context()."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.manager, name)

    def job(self, job_id: str, **options: Unpack[JobOptions]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare the decorated function as a job of every application, as `JobManager.job`, and return it unchanged."""

        def declare(function: Callable[P, R]) -> Callable[P, R]:
            self.add_job(job_id, function, **options)
            return function

        return declare

    def add_job(self, job_id: str, handler: HandlerTarget, **options: Unpack[JobOptions]) -> None:
        """Declare a job of every application, as `JobManager.add_job`."""
        self._declare(lambda manager: manager.add_job(job_id, handler, **options))

    def handler(self, key: str, *, creatable: bool = True) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the decorated function as a handler of every application, as `JobManager.handler`."""

        def register(function: Callable[P, R]) -> Callable[P, R]:
            self._declare(lambda manager: manager.handler(key, creatable=creatable)(function))
            return function

        return register

    def _managers(self) -> list[JobManager]:
        return [app.extensions[EXTENSION] for app in list(self._apps)]

    def _declare(self, declare: Callable[[JobManager], object]) -> None:
        for manager in self._managers():
            declare(manager)
        self._declarations.append(declare)


class InApplicationContext:
    """Enters the application context around each attempt, so that `current_app` and what is torn down with it work."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, context: RunContext) -> AppContext:
        return self._app.app_context()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        module = sys.modules.get(self._app.import_name)
        for name, value in vars(module).items() if module else ():
            if value is self._app:
                return _of_module, (self._app.import_name, name)
        raise pickle.PicklingError(
            f"a child process cannot find application {self._app.name!r}; make it a variable of module {self._app.import_name!r}"
        )


def _of_module(module: str, name: str) -> InApplicationContext:
    return InApplicationContext(getattr(import_module(module), name))


class StartsWithFirstRequest:
    """Starts the manager in each process that serves, with its first request: not at import, and not in a reloader's parent."""

    def __init__(self, manager: JobManager, inner: Any) -> None:
        self._starting, self._inner = StartsOnceAProcess(lambda: manager), inner

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self._starting.begin()
        parts: Iterable[bytes] = self._inner(environ, start_response)
        return parts


def _command(manager: JobManager) -> click.Command:
    """Return `flask jobs ...`: every verb of the command `jobmanager`."""

    @click.command(
        "jobs",
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        help="The command line of jobmanager, for the jobs of this application.",
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def jobs(words: tuple[str, ...]) -> None:
        from jobmanager.cli import main

        global of_the_command  # noqa: PLW0603 - read by name, as the command line finds every application
        of_the_command = manager
        if code := main([f"--app={__name__}:of_the_command", *words]):
            sys.exit(code)

    return jobs
