"""What is used no more is garbage with all that it holds: a suite of tests makes thousands of managers in one process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from flask import Flask
from starlette.testclient import TestClient

from jobmanager import JobManager, Settings
from jobmanager.backends.celery import CeleryBackend
from jobmanager.contrib.flask import Jobs
from jobmanager.stores.sql.store import SqlStore
from jobmanager.web import asgi, dashboard, loopback_only

SECRET = "k" * 16 + "0123456789abcdef" * 2
of_flask = Jobs()


def used(url: str, backend: str = "noop") -> JobManager:
    jobs = JobManager(Settings(backend=backend, database_url=url, secret=SECRET))
    jobs.add_job("work", lambda: 1, cron="0 3 * * *")
    with jobs:
        jobs.trigger_job("work")
    return jobs


def garbage(made: object) -> Callable[[], bool]:
    """Return a check whether it is gone, which may be asked once nothing of the caller holds it."""
    reference = weakref.ref(made)

    def is_gone() -> bool:
        for _ in range(4):  # of what ends with a finalizer, a part each time
            gc.collect()
        return reference() is None

    return is_gone


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{folder}/runs.db"])
def test_a_store_that_nobody_closed(url: str, tmp_path: Path) -> None:
    """Fails if the pool of a connection that is in use, which is never garbage, leads to the store."""
    jobs = used(url.format(folder=tmp_path))
    assert isinstance(jobs.store, SqlStore)
    is_gone = garbage(jobs.store.database)
    del jobs
    assert is_gone()


@pytest.mark.parametrize("backend", ["local", "noop", "external"])
def test_a_manager_of_each_backend(backend: str) -> None:
    is_gone = garbage(used("memory://", backend))
    assert is_gone()


def test_a_manager_with_its_endpoint_and_its_dashboard() -> None:
    jobs = used("memory://")
    with TestClient(dashboard(jobs, authorize=loopback_only())) as pages, TestClient(asgi(jobs)) as endpoint:
        assert (pages.get("/").status_code, endpoint.get("/").status_code) == (401, 404)
    is_gone = garbage(jobs)
    del jobs, pages, endpoint
    assert is_gone()


def test_an_application_of_flask_and_its_manager() -> None:
    """Fails if the extension, which outlives its applications, leads to one."""
    app = Flask("shop")
    app.config |= {"JOBMANAGER_BACKEND": "noop", "JOBMANAGER_DATABASE_URL": "memory://"}
    of_flask.init_app(app)
    with app.app_context():
        of_flask.manager.sync()
    is_gone = garbage(app)
    del app
    assert is_gone()


def test_an_application_of_celery_and_its_manager() -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)
    jobs = JobManager(Settings(database_url="memory://"), backend=CeleryBackend(app))
    jobs.add_job("work", lambda: 1)
    jobs.sync()
    is_gone = garbage(jobs)
    del app, jobs
    assert is_gone()
