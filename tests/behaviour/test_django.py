"""Jobs in a Django project: settings, checks, transactions, connections, language, users and the endpoint, in one process."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests import bakery
from tests.waiting import until

from jobmanager import RunStatus
from jobmanager.errors import ConfigurationError

SUCCEEDED, FAILED, PENDING = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.PENDING


@pytest.fixture(scope="module", autouse=True)
def project() -> Path:
    return bakery.set_up()


@pytest.fixture
def jobs() -> Iterator[Any]:
    """The jobs of the project as its own tests have them."""
    from jobmanager.contrib.django.test import jobs_in_memory

    with jobs_in_memory() as (manager, _):
        yield manager


@pytest.fixture
def orders(jobs: Any) -> Iterator[Any]:
    """The orders, and none of them after the test."""
    from bakery.orders.models import Order

    yield Order.objects
    Order.objects.all().delete()


# ---------------------------------------------------------------- settings


def read(monkeypatch: pytest.MonkeyPatch, **declared: Any) -> Any:
    from django.test import override_settings

    from jobmanager.contrib.django import configuration

    monkeypatch.setattr("jobmanager.contrib.django.current.renew", lambda: None)
    with override_settings(JOBMANAGER=declared):
        return configuration.read()


def test_settings_are_read_in_any_case_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMANAGER_WORKERS", "7")

    found = read(monkeypatch, WORKERS=3, lease_seconds=20, JOBMANAGER_LOCALE="de", MODULE="tasks_of_night")

    assert (found.settings.workers, found.settings.lease_seconds, found.settings.locale) == (7, 20, "de")
    assert found.module == "tasks_of_night"


def test_the_record_of_a_sqlite_project_is_a_file_beside_its_own(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    found = read(monkeypatch)

    assert found.settings.database_url == f"sqlite:///{project}/jobmanager.db"
    assert read(monkeypatch, DATABASE_URL="memory://").database is None


@pytest.mark.parametrize(
    ("of_django", "url"),
    [
        ({"NAME": "db"}, "postgresql:///db"),
        ({"NAME": "db", "USER": "a@b", "PASSWORD": "p/w:d", "HOST": "h", "PORT": 5433}, "postgresql://a%40b:p%2Fw%3Ad@h:5433/db"),
        ({"NAME": "db", "USER": "ana", "HOST": "/run/pg"}, "postgresql://ana@/db?host=%2Frun%2Fpg"),
        ({"NAME": "db", "HOST": "h", "OPTIONS": {"sslmode": "require", "pool": True}}, "postgresql://h/db?sslmode=require"),
    ],
)  # fmt: skip
def test_the_url_of_a_postgresql_project_is_that_of_its_connection(
    of_django: dict[str, Any], url: str
) -> None:
    from jobmanager import Settings
    from jobmanager.contrib.django.configuration import _postgresql

    assert _postgresql(of_django) == url
    assert Settings(database_url=url).database_url.startswith("postgresql")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (":memory:", "memory://"),
        ("file:memorydb_default?mode=memory&cache=shared", "memory://"),
        ("/srv/test_site.db", "sqlite:////srv/test_jobmanager.db"),
        ("/srv/a b.db", "sqlite:////srv/jobmanager.db"),
    ],
)
def test_the_database_of_a_test_run_has_a_record_of_its_own(name: str, url: str) -> None:
    """Fails if the tests of a project write into the record of the project."""
    from jobmanager.contrib.django.configuration import _beside

    assert _beside(name) == url


def checked(**declared: Any) -> list[tuple[str, str]]:
    from django.test import override_settings

    from jobmanager.contrib.django.checks import check_configuration

    urls = {"ROOT_URLCONF": "tests.bakery_urls"} if declared.pop("mounted", False) else {}
    more = {name: declared.pop(name) for name in list(declared) if name.startswith("SECURE_")}
    with override_settings(**urls, **more):
        from jobmanager.contrib.django import current

        renew, current.renew = current.renew, lambda: None
        try:
            with override_settings(JOBMANAGER=declared):
                return [(found.id.removeprefix("jobmanager."), found.msg) for found in check_configuration()]
        finally:
            current.renew = renew


SECRET = secrets.token_urlsafe(40)


@pytest.mark.parametrize(
    ("declared", "found", "said"),
    [
        ({}, [], ""),
        ({"WORKER": 3}, ["E002"], "settings.JOBMANAGER['WORKER'] is not a setting. Did you mean 'WORKERS'?"),
        ({"WORKERS": "many"}, ["E001"], "JOBMANAGER_WORKERS"),
        ({"DATABASE": "replica"}, ["E001"], "DATABASES has default"),
        ({"mounted": True}, ["E004"], "no secret"),
        ({"mounted": True, "SECRET": SECRET}, [], ""),
        ({"mounted": True, "SECRET": SECRET, "SECURE_SSL_REDIRECT": True}, ["W002"], "SECURE_SSL_REDIRECT"),
        (
            {"mounted": True, "SECRET": SECRET, "SECURE_SSL_REDIRECT": True, "SECURE_REDIRECT_EXEMPT": ["^jobs/"]},
            [],
            "",
        ),
        (
            {"BACKEND": "local", "CELERY_BROKER_URL": "redis://localhost/0", "ENVIRONMENT": "production"},
            ["W001"],
            "celery",
        ),
    ],
)  # fmt: skip
def test_system_checks_say_what_is_wrong(declared: dict[str, Any], found: list[str], said: str) -> None:
    messages = checked(**declared)

    assert [number for number, _ in messages] == found, messages
    assert all(said in message for _, message in messages)


def test_the_tables_of_another_version_are_found_by_check_of_databases(project: Path) -> None:
    from jobmanager.contrib.django.checks import check_tables
    from jobmanager.contrib.django.current import current

    assert check_tables(databases=["default"]) == []
    schema = current().store.schema
    version, schema.version = schema.version, lambda: "0001"
    try:
        (found,) = check_tables(databases=["default"])
    finally:
        schema.version = version
    assert (found.id, found.hint) == ("jobmanager.W003", "Run `manage.py jobmanager db upgrade`.")
    assert check_tables(databases=None) == []


# ---------------------------------------------------------------- declarations and tests of a project


def test_jobs_of_every_application_are_found(jobs: Any) -> None:
    assert {"confirm-order", "forget-orders"} <= set(jobs.registry.jobs)


def test_the_proxy_is_the_manager_of_the_process(jobs: Any) -> None:
    from jobmanager import JobManager
    from jobmanager.contrib.django import jobs as proxy

    assert isinstance(proxy, JobManager)
    assert proxy.settings is jobs.settings


def test_changed_settings_make_the_manager_anew_with_all_declarations() -> None:
    from django.test import override_settings

    from jobmanager.contrib.django import jobs as proxy

    before = proxy.settings
    with override_settings(JOBMANAGER={"BACKEND": "noop", "DATABASE_URL": "memory://", "WORKERS": 9}):
        assert proxy.settings.workers == 9
        assert proxy.trigger_job("forget-orders").status is SUCCEEDED
    assert proxy.settings.database_url == before.database_url


def test_commands_of_the_library_are_commands_of_the_project(
    capsys: pytest.CaptureFixture[str], jobs: Any
) -> None:
    from django.core.management import CommandError, call_command

    call_command("jobmanager", "jobs", "list", "--json")
    told = json.loads(capsys.readouterr().out)
    assert {job["id"] for job in told} >= {"confirm-order", "forget-orders"}
    with pytest.raises(CommandError, match="ended with 2"):
        call_command("jobmanager", "nonsense")


# ---------------------------------------------------------------- transactions


@pytest.mark.parametrize("commits", [True, False])
def test_a_start_on_commit_follows_the_transaction(jobs: Any, orders: Any, *, commits: bool) -> None:
    from django.db import transaction

    order = orders.create(customer="ana")
    try:
        with transaction.atomic():
            key = jobs.trigger_job("confirm-order", {"order": order.id}, on_commit=True)
            assert jobs.runs("confirm-order") == []
            if not commits:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert jobs.runs("confirm-order") == []
    else:
        (run,) = jobs.runs("confirm-order")
        assert (run.status, run.output, run.idempotency_key) == (SUCCEEDED, "ana", key)


def test_a_start_is_durable_at_once_otherwise(jobs: Any, orders: Any) -> None:
    from django.db import transaction

    with transaction.atomic():
        jobs.trigger_job("forget-orders")
        transaction.set_rollback(True)
    assert len(jobs.runs("forget-orders")) == 1


def test_a_start_inside_of_the_transaction_needs_postgresql(jobs: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"needs PostgreSQL.*Use on_commit=True"):
        jobs.trigger_job("forget-orders", atomic=True)


# ---------------------------------------------------------------- around attempts


def test_the_language_of_a_run_is_active_in_its_handler(jobs: Any) -> None:
    from django.utils import translation

    jobs.add_job("plain", translation.get_language)
    jobs.add_job("german", lambda: translation.get_language(), locale="de")  # noqa: PLW0108 - another handler

    async def coroutine() -> str:
        return translation.get_language()

    jobs.add_job("coroutine", coroutine, locale="fr")

    with translation.override("es"):
        assert jobs.trigger_job("plain").output == "en-us"
        assert jobs.trigger_job("plain", {"locale": "it"}).output == "it"
        assert jobs.trigger_job("german").output == "de"
        assert jobs.trigger_job("coroutine").output == "fr"
        assert translation.get_language() == "es"


def test_connections_of_the_caller_in_a_transaction_are_not_closed(jobs: Any, orders: Any) -> None:
    """Fails if a run that executes inline inside a TestCase, or a view with ATOMIC_REQUESTS, takes the transaction away."""
    from django.db import connection, transaction

    with transaction.atomic():
        order = orders.create(customer="ana")
        assert jobs.trigger_job("confirm-order", {"order": order.id}).output == "ana"
        assert connection.connection is not None
        assert not connection.closed_in_transaction
    assert orders.get().is_confirmed


@pytest.mark.parametrize("age", [0, 60, None])
def test_a_thread_keeps_its_connection_as_long_as_conn_max_age_says(
    jobs: Any, orders: Any, age: int | None
) -> None:
    from django.db import connections

    seen: list[Any] = []

    def look() -> None:
        connection = connections["default"]
        connection.settings_dict = {**connection.settings_dict, "CONN_MAX_AGE": age}
        orders.count()
        seen.append(connection)

    jobs.add_job("look", look)
    worker = threading.Thread(
        target=lambda: seen.append([jobs.trigger_job("look").error, seen[0].connection])
    )
    worker.start()
    worker.join()

    error, left = seen[1]
    assert error is None
    assert (left is None) == (age == 0)
    if left is not None:
        left.close()


# ---------------------------------------------------------------- the endpoint and the dashboard


@pytest.fixture
def mounted(jobs: Any) -> Iterator[Any]:
    """A client of the project with both mounted."""
    from django.test import Client, override_settings

    from jobmanager.contrib.django.test import jobs_in_memory

    with (
        override_settings(ROOT_URLCONF="tests.bakery_urls"),
        jobs_in_memory(datetime(2026, 3, 1, tzinfo=UTC), backend="external", secret=SECRET, wait=True) as (
            _,
            clock,
        ),
    ):
        client = Client()
        client.clock = clock
        yield client


@pytest.mark.parametrize(
    "path", ["/jobs/tick/forget-orders", "/jobs/tick/forget-orders/", "/deep/down/tick/forget-orders"]
)
def test_the_endpoint_takes_a_tick_wherever_it_is_included(mounted: Any, path: str) -> None:
    """Fails if APPEND_SLASH redirects, or a prefix must be the library's own."""
    from jobmanager.contrib.django import jobs

    bearer = {"authorization": f"Bearer {SECRET}"}
    assert mounted.post(path).status_code == 401
    assert mounted.post(path, headers=bearer).status_code == 200
    mounted.clock.step(timedelta(hours=2, seconds=1))

    answer = mounted.post(path, headers=bearer)

    assert answer.status_code == 200, answer.content
    assert answer.json()["finding"] == "opened", answer.json()
    assert [run.status for run in jobs.runs("forget-orders")] == [SUCCEEDED]
    assert mounted.get("/jobs/nonsense").status_code == 404


@pytest.fixture
def people() -> Iterator[Any]:
    """Make users of the project, with permissions of ours."""
    from django.contrib.auth.models import Permission, User

    def person(name: str, *permissions: str, **more: Any) -> Any:
        made = User.objects.create_user(name, f"{name}@example.org", is_staff=True, **more)
        made.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert made.user_permissions.count() == len(permissions)
        return made

    yield person
    User.objects.all().delete()


def test_the_dashboard_is_for_staff_with_a_permission(mounted: Any, people: Any) -> None:
    statuses = {}
    for name, permissions in {"ana": ["view_jobs"], "guest": []}.items():
        mounted.force_login(people(name, *permissions))
        statuses[name] = mounted.get("/admin/jobs/jobs").status_code
    mounted.logout()
    answer = mounted.get("/admin/jobs/jobs")

    assert statuses == {"ana": 200, "guest": 401}
    assert (answer.status_code, answer["location"]) == (302, "/admin/login/?next=/admin/jobs/jobs")


def test_what_is_done_on_the_dashboard_has_the_name_of_the_user(mounted: Any, people: Any) -> None:
    from django.contrib.admin.models import LogEntry

    from jobmanager.contrib.django import jobs

    mounted.force_login(people("otto", "operate_jobs"))
    answer = mounted.post(
        "/admin/jobs/api/v1/jobs/forget-orders/pause",
        {},
        content_type="application/json",
        headers={"sec-fetch-site": "same-origin"},
    )

    assert answer.status_code < 300, answer.content
    assert [entry.by for entry in jobs.audit()][:1] == ["otto"]
    assert [str(entry) for entry in LogEntry.objects.all()]


def test_the_admin_leads_to_the_dashboard(mounted: Any, people: Any) -> None:
    mounted.force_login(people("ana", "view_jobs"))
    index = mounted.get("/admin/").content.decode()
    assert "/admin/jobmanager/jobs/" in index
    answer = mounted.get("/admin/jobmanager/jobs/")
    assert (answer.status_code, answer["location"]) == (302, "/admin/jobs/")


def test_both_are_served_under_asgi(mounted: Any, people: Any) -> None:
    """Fails if a request whose body Django has read already, and that has no WSGI environment, is not served."""
    from asgiref.sync import async_to_sync
    from django.test import AsyncClient

    client = AsyncClient()
    async_to_sync(client.aforce_login)(people("otto", "operate_jobs"))
    bearer = {"authorization": f"Bearer {SECRET}"}
    same = {"sec-fetch-site": "same-origin"}

    async def statuses() -> list[int]:
        tick = await client.post("/jobs/tick/forget-orders", headers=bearer)
        body = {"scheduled_for": "2026-02-30"}
        wrong = await client.post("/jobs/tick/forget-orders", body, "application/json", headers=bearer)
        page = await client.get("/admin/jobs/jobs")
        start = await client.post(
            "/admin/jobs/api/v1/jobs/forget-orders/pause", {}, "application/json", headers=same
        )
        return [each.status_code for each in (tick, wrong, page, start)]

    assert async_to_sync(statuses)() == [200, 400, 200, 200]


def test_a_child_process_is_set_up_for_django(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a handler with isolation="process" finds no models."""
    import sys
    from types import ModuleType

    from jobmanager import Settings
    from jobmanager.contrib.django.current import made

    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "bakery.settings")
    monkeypatch.setenv("BAKERY_DIR", str(project))
    monkeypatch.setenv("PYTHONPATH", str(bakery.PROJECT))
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    jobs = made(Settings(backend="noop", database_url="memory://"))
    jobs.add_job("forget", "bakery.orders.jobs:forget_orders", isolation="process", config={"days": 1})

    run = jobs.trigger_job("forget")

    assert run.output == {"deleted": 0}, run.error
    jobs.stop()


def test_the_wsgi_application_has_the_endpoint_before_it_and_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.signals import request_started
    from werkzeug.test import Client

    from jobmanager.contrib.django import serving, wsgi_application
    from jobmanager.contrib.django.current import current
    from jobmanager.contrib.django.test import jobs_in_memory
    from jobmanager.contrib.starting import StartsOnceAProcess

    monkeypatch.setattr(serving, "starting", StartsOnceAProcess(current))
    with jobs_in_memory(backend="external", secret=SECRET) as (jobs, _):
        try:
            client = Client(wsgi_application())
            until(lambda: jobs.started, within=10)
            statuses = [client.post("/jobs/run").status_code, client.get("/admin/login/").status_code]
        finally:
            request_started.disconnect(dispatch_uid="jobmanager")
    assert statuses == [401, 200]
