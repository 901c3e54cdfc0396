"""The dashboard behind the logins of its host: Django's session, and the user that Starlette's middleware found."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount
from starlette.testclient import TestClient

from jobmanager import JobManager, Settings
from jobmanager.access.passwords import hashed
from jobmanager.web import basic_auth_from_settings, dashboard
from jobmanager.web.users import starlette_user


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop"))
    jobs.add_job("work", lambda: 1)
    yield jobs
    jobs.store.close()


class Named(AuthenticationBackend):
    """Takes the name of a header for the user."""

    async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name else None


def test_the_user_of_starlettes_middleware_is_the_principal(jobs: JobManager) -> None:
    roles = {"ana": ["operator"], "guest": []}
    pages = dashboard(jobs, authorize=starlette_user(lambda user: roles[user.username]))
    app = Starlette(
        routes=[Mount("/jobs-admin", pages)],
        middleware=[Middleware(AuthenticationMiddleware, backend=Named())],
    )
    client = TestClient(app)
    statuses = {
        name: client.get("/jobs-admin/jobs", headers={"x-user": name} if name else {}).status_code
        for name in ("ana", "guest", "")
    }
    assert statuses == {"ana": 200, "guest": 403, "": 401}
    assert "ana, operator" in client.get("/jobs-admin/jobs", headers={"x-user": "ana"}).text


DJANGO = """
import sys
from django.conf import settings

folder = sys.argv[1]
settings.configure(
    SECRET_KEY="of-this-test", ROOT_URLCONF=__name__, USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/django.db"}},
)
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from starlette.testclient import TestClient
from jobmanager import JobManager, Settings
from jobmanager.access.passwords import hashed
from jobmanager.web import basic_auth_from_settings, dashboard
from jobmanager.web.users import django_user

urlpatterns = []
call_command("migrate", verbosity=0)
jobs = JobManager(Settings(database_url=f"sqlite:///{folder}/jobs.db", backend="noop"))
client = TestClient(dashboard(jobs, authorize=django_user()))
User.objects.create_superuser("root", "root@example.org", "pw")
User.objects.create_user("staff", password="pw", is_staff=True)
User.objects.create_user("customer", password="pw")
User.objects.create_user("gone", password="pw", is_staff=True)
for name in ("root", "staff", "customer", "gone"):
    session = Client()
    assert session.login(username=name, password="pw")
    User.objects.filter(username="gone", username__exact=name).update(is_active=False)
    cookie = {"cookie": f"sessionid={session.cookies['sessionid'].value}"}
    shown = client.get("/jobs", headers=cookie)
    keys = client.get("/api/v1/jobs", headers=cookie)
    print(name, shown.status_code, keys.status_code)
print("nobody", client.get("/jobs", headers={"cookie": "sessionid=forged"}).status_code)
"""


def test_the_user_of_djangos_session_is_the_principal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.splitlines() == [
        "root 200 200", "staff 200 200", "customer 403 403", "gone 401 401", "nobody 401",
    ], done.stderr  # fmt: skip


def test_a_dashboard_behind_a_proxy_that_takes_a_prefix_off_links_with_it(jobs: JobManager) -> None:
    """The way of `uvicorn --root-path`, and of a proxy whose prefix the server is told."""
    login = "Basic " + base64.b64encode(b"ana:a password of ana").decode()
    settings = Settings(
        database_url=jobs.settings.database_url,
        backend="noop",
        dashboard_users=_user("ana", "a password of ana"),
    )
    client = TestClient(
        dashboard(jobs, authorize=basic_auth_from_settings(settings)), root_path="/behind/proxy"
    )
    shown = client.get("/jobs", headers={"authorization": login})
    assert shown.status_code == 200
    assert 'href="/behind/proxy/static/style.css"' in shown.text
    assert "path=/behind/proxy" in shown.headers["set-cookie"].lower()
    assert client.get("/jobs", headers={"authorization": "Basic bm9wZTpub3Bl"}).status_code == 401


def _user(name: str, password: str) -> str:
    return f"{name}:admin:{hashed(password)}"
