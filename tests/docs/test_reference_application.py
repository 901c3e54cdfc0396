"""The reference application as a whole: days on a clock that is moved, the same on each backend; its page; its compose files."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobmanager import JobManager, Settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the examples are no part of the installed package

from examples.saas import data, jobs, seed  # noqa: E402
from examples.saas.app import make_app  # noqa: E402
from tests.company_days import START, company, days_on, differences, mails_of  # noqa: E402

__all__ = ["company"]

SERVED = [pytest.mark.servers, pytest.mark.slow]
ELSEWHERE = ["noop", *(pytest.param(name, marks=SERVED) for name in ("celery", "pg_cron"))]


@pytest.fixture(scope="module")
def known():
    """What was found on local already, by the number of days."""
    return {}


@pytest.mark.parametrize("backend", ELSEWHERE)
def test_a_day_is_the_same_as_on_local(company, request, known, backend):
    """Fails if a backend leaves an instant or a retry out, brings one twice or at another moment, or loses a mail."""
    found = days_on(backend, company, request, 1)
    if not known:
        known[1] = days_on("local", company, request, 1)

    assert differences(known[1], found) == []
    assert found.table == known[1].table
    assert found.letters == known[1].letters
    assert found.table.keys() == jobs.defaults().keys() - {"revenuecat_sync"}
    # Stripe is down: accounts that pay cannot be deleted either.
    failed = {job_id: counts for job_id, counts in found.table.items() if counts.keys() != {"succeeded"}}
    assert failed == {"sync-stripe": {"failed": 6}, "process-account-deletions": {"failed": 1}}


def test_first_hour_of_the_defaults_on_local(company):
    manager, clock, _ = company("local")
    with manager:
        clock.advance(hours=1)
        counted = {job_id: len(manager.runs(job_id, limit=200)) for job_id in jobs.defaults()}

    assert counted["analytics-performance-metrics"] == 120
    assert counted["analytics-recent-activity"] == 30
    assert counted["process-pending-emails"] == counted["repository-sync"] == 12
    assert counted["process-account-deletions"] == 2
    assert counted["revenuecat_sync"] == 0


def test_make_demo_installs_what_the_application_imports():
    """Fails if the application imports a package that a machine with nothing but Python does not get from `make demo`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["web"],
        *project["dependency-groups"]["demo"],
    ]
    names = {re.match(r"[\w-]+", wanted)[0].replace("-", "_").lower() for wanted in installed}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "examples" / "saas").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - names == {
        "examples",
        "jobmanager",
    }


def test_gates_that_are_off_leave_jobs_out(company, monkeypatch):
    manager, _, _ = company("noop", seed.Amounts(users=7, logs=0))
    monkeypatch.delenv("LOGS_ENABLED")
    monkeypatch.setenv("SAAS_BILLING_MODEL", "subscription")
    other = JobManager(Settings(backend="noop", database_url="memory://"))
    jobs.register(other)

    left_out = {job.id for job in manager.registry.jobs.values()} - set(jobs.plant(other))

    assert left_out == {"purge-error-logs", "check-license-expiration"}


@pytest.mark.servers
def test_every_job_succeeds_on_postgresql(company, postgres_url):
    manager, _, fakes = company("noop", url=postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with manager:
        ended = {
            job_id: manager.trigger_job(job_id, {"project_id": 1} if job_id == "revenuecat_sync" else None)
            for job_id in jobs.defaults()
        }

    assert {job_id: run.error for job_id, run in ended.items() if run.status != "succeeded"} == {}
    assert ended["revenuecat_sync"].output == {"synced": 230, "skipped": 0}
    assert ended["check-license-expiration"].output["warned"] > 0
    assert len(mails_of(fakes)) > 10
    data.engine_of(data.url()).dispose()


def test_two_processes_send_no_mail_twice(company, tmp_path):
    """Each has a record of its own, so that nothing but the claims keeps them apart."""
    _, _, fakes = company("noop", seed.Amounts(users=7, logs=0, mails=0))
    with data.transaction() as db:
        for number in range(200):
            values = {"key": str(number), "recipient": f"u{number}@example.com", "subject": "s", "body": "b"}
            moments = {"next_attempt_at": START, "created_at": START}
            db.execute(data.pending_emails.insert().values(**values, **moments))
    program = (
        "import sys; from examples.saas.jobs import jobs, plant\n"
        "plant(jobs); print('ready', flush=True); sys.stdin.readline()\n"
        "run = jobs.trigger_job('process-pending-emails', {'batch_size': 3}); print(run.output['sent'])"
    )
    variables = {"JOBMANAGER_BACKEND": "noop", "JOBMANAGER_DATABASE_URL": "memory://"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, **variables}, **pipes)
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    sent = [int(worker.communicate(timeout=60)[0]) for worker in workers]

    assert sum(sent) == 200
    assert min(sent) > 0
    assert len({message_id for message_id, _, _ in mails_of(fakes)}) == 200


class TestPage:
    @pytest.fixture
    def client(self, company):
        from starlette.testclient import TestClient

        self.manager, self.clock, self.fakes = company("local", seed.Amounts(users=30, logs=0))
        with TestClient(make_app(self.manager)) as client:
            self.manager.stop()  # what is started waits, until a test lets it run
            yield client

    def run_what_waits(self):
        with self.manager:
            self.clock.advance()

    def test_it_shows_the_jobs_and_the_services(self, client):
        page = client.get("/").text

        assert all(word in page for word in ("process-pending-emails", "db_pruning", "stripe", "smtp"))

    def test_a_service_that_one_lets_fail_fails_the_run_that_needs_it(self, client):
        assert client.post("/failures", data={"service": "git", "failure": "error"}).status_code == 200
        failed = self.manager.trigger_job("repository-sync", max_attempts=1)
        self.run_what_waits()
        client.post("/failures", data={"service": "git", "failure": "none"})
        healed = self.manager.trigger_job("repository-sync")
        self.run_what_waits()

        assert self.manager.run(failed.id).status == "failed"
        assert "503" in self.manager.run(failed.id).error.message
        assert self.manager.run(healed.id).output == {"changed": 20, "removed": 0}

    def test_another_site_may_not_and_unknown_words_are_refused(self, client):
        wanted = {"service": "git", "failure": "error"}

        from_elsewhere = client.post("/failures", data=wanted, headers={"Sec-Fetch-Site": "cross-site"})
        unknown = client.post("/failures", data={**wanted, "failure": "explode"})

        assert (from_elsewhere.status_code, unknown.status_code) == (403, 422)
        assert set(self.fakes.failures.values()) == {"none"}

    def test_one_sync_of_a_project_at_a_time_with_its_progress(self, client):
        first = client.post("/projects/1/sync")
        second = client.post("/projects/1/sync")
        other = client.post("/projects/2/sync")
        self.run_what_waits()
        ended = client.get(f"/runs/{first.json()['run']}").json()

        assert (first.status_code, second.status_code, other.status_code) == (202, 409, 202)
        assert second.json()["run"] == first.json()["run"]
        assert ended["progress"] == [230, 230, "Synced 230 users, 0 skipped"]
        assert client.post("/projects/1/sync").status_code == 202

    def test_a_sync_can_be_cancelled(self, client):
        run = client.post("/projects/1/sync").json()["run"]
        assert client.post(f"/runs/{run}/cancel").status_code == 202
        self.run_what_waits()

        assert client.get(f"/runs/{run}").json()["status"] == "cancelled"
        assert client.post("/runs/nobody/cancel").status_code == 404


class TestCompose:
    @pytest.fixture(params=["celery", "pg_cron"])
    def told(self, request):
        yaml = pytest.importorskip("yaml", reason="PyYAML is not among our dependencies")
        folder = ROOT / "examples" / "saas" / "compose"
        return request.param, yaml.safe_load((folder / f"{request.param}.yaml").read_text()), folder

    def test_it_says_what_compose_knows_and_names_what_exists(self, told):
        _, document, folder = told
        known = {
            *("build", "image", "command", "environment", "ports", "depends_on", "restart", "deploy"),
            *("stop_grace_period", "healthcheck", "volumes", "working_dir"),
        }
        services = document["services"]

        assert {key for key in document if not key.startswith("x-")} == {"services", "volumes"}
        for name, service in services.items():
            assert service.keys() <= known, name
            assert ("build" in service) != ("image" in service), name
            assert service.get("depends_on", {}).keys() <= services.keys(), name
            for waited, how in service.get("depends_on", {}).items():
                healthy = how["condition"] == "service_healthy"
                assert healthy == ("healthcheck" in services[waited]), waited
            if "dockerfile" in service.get("build", {}):
                assert (folder / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert source in document["volumes"] or (folder / source).is_file(), volume

    def test_the_application_runs_unchanged_on_the_backend_it_names(self, told):
        from tests.docs.test_docs import command_line

        backend, document, _ = told
        for name, service in document["services"].items():
            variables = service.get("environment", {})
            if "JOBMANAGER_BACKEND" not in variables:
                continue
            ours = {key: value for key, value in variables.items() if key.startswith("JOBMANAGER_")}
            users = {"JOBMANAGER_DASHBOARD_USERS": ""}
            settings = Settings.from_env({**ours, **users})
            assert settings.backend == backend, name
            if service["command"][0] == "jobmanager":
                command_line(service["command"][1:])
            assert variables["SAAS_SMTP_HOST"] in document["services"]
