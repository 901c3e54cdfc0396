"""The examples, run as a reader would: their commands, in an empty directory, with the project's Python."""

import http.client
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.docs.test_docs import command_line
from tests.waiting import until as awaited

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

SUMMARY_ROW = re.compile(r"^\W*([a-z_-]+)\W+(\d+)\W+(\d+)\W+(\d+)\W+(\d+)\W+(\S.*?)\W*$", re.MULTILINE)
DEMO_JOBS = set(
    re.findall(r"^\| `([a-z_-]+)` \|", (EXAMPLES / "saas" / "README.md").read_text(), re.MULTILINE)
)


def environment(**more: str) -> dict[str, str]:
    """What a shell would give, with the clone as the place to import examples from."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "120", **more}


def run(*arguments: str, cwd: Path, seconds: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def until(stream, wanted: str, seconds: float) -> str:
    """What the stream said until `wanted` was in it."""
    said, deadline = "", time.monotonic() + seconds
    while wanted not in said:
        left = deadline - time.monotonic()
        assert left > 0, f"{wanted!r} did not come within {seconds} s, but this: {said}"
        if select.select([stream], [], [], left)[0]:
            piece = os.read(stream if isinstance(stream, int) else stream.fileno(), 65_536).decode()
            assert piece, f"it ended without {wanted!r}: {said}"
            said += piece
    return said


def until_true(answer, seconds: float = 30):
    """What it answers, once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return found


@pytest.fixture
def started():
    """Start a process that is gone when the test ends, whatever happens."""
    processes = []

    def start(*arguments: str, cwd: Path, env: dict[str, str] | None = None, **streams) -> subprocess.Popen:
        processes.append(
            subprocess.Popen(
                [sys.executable, *arguments], cwd=cwd, env={**environment(), **(env or {})}, **streams
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def answer_of(port: int, method: str, path: str) -> dict[str, str]:
    """The JSON that a server on this machine answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        return json.load(connection.getresponse())
    finally:
        connection.close()


def rows_of_summary(text: str) -> dict[str, tuple[int, int, int, int, str]]:
    _, _, summary = text.partition("What happened")
    return {
        job: (int(runs), int(succeeded), int(failed), int(other), did)
        for job, runs, succeeded, failed, other, did in SUMMARY_ROW.findall(summary)
    }


class TestQuickstart:
    @pytest.mark.slow
    def test_prints_every_five_seconds_and_ends_when_asked(self, tmp_path, started):
        process = started(str(EXAMPLES / "quickstart.py"), cwd=tmp_path, stdout=subprocess.PIPE)

        said = until(process.stdout, "UTC: hello", seconds=20)
        process.send_signal(signal.SIGTERM)

        assert int(said.split()[0][-2:]) % 5 == 0
        assert process.wait(timeout=15) == 0

    def test_is_as_short_as_it_says(self):
        code = [line for line in (EXAMPLES / "quickstart.py").read_text().splitlines()[1:] if line.strip()]

        assert len(code) <= 10


class TestNotify:
    @pytest.mark.slow
    def test_prints_a_mail_for_the_failure_and_one_for_the_recovery(self, tmp_path, started):
        process = started(str(EXAMPLES / "notify" / "notify.py"), cwd=tmp_path, stdout=subprocess.PIPE)

        said, _ = process.communicate(timeout=30)

        assert re.findall(rb"^Subject: (.*?)\r?$", said, re.MULTILINE) == [
            b"import-prices failed: ConnectionError: the price list cannot be read",
            b"import-prices works again",
        ]


class TestWebhook:
    @pytest.mark.slow
    def test_prints_the_run_on_both_sides(self, tmp_path):
        ended = run(str(EXAMPLES / "webhook.py"), cwd=tmp_path)

        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines() == [
            "received: invoices {'month': '2026-11'}, attempt 1",
            "recorded: succeeded {'invoices': 12}",
        ]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.servers
def test_the_queue_is_filled_in_sql_and_welcomes_nobody_twice(tmp_path, started, postgres_url, monkeypatch):
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", postgres_url)
    example = EXAMPLES / "queue"
    process = started("-m", "jobmanager", "--app", "jobs:jobs", "run", cwd=example, stdout=subprocess.PIPE)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        until_true(lambda: connection.execute("SELECT to_regclass('jobmanager.instances')").fetchone()[0])
        until_true(
            lambda: connection.execute("SELECT 1 FROM jobmanager.jobs WHERE id = 'send-welcome'").fetchone()
        )
        connection.execute((example / "enqueue.sql").read_text())
        said = until(process.stdout, "welcome, 4711", seconds=30)
        ended = "SELECT count(*) = 2 AND bool_and(status = 'succeeded' AND output = '\"letter to 4711\"') FROM jobmanager.runs"
        until_true(lambda: connection.execute(ended).fetchone()[0])
    process.send_signal(signal.SIGTERM)
    said += process.communicate(timeout=30)[0].decode()
    assert said.count("welcome, 4711") == 1


@pytest.mark.slow
def test_the_flows_take_a_week_and_send_each_mail_once(tmp_path):
    said = subprocess.run(
        [sys.executable, EXAMPLES / "flows" / "welcome.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert (
        said.count("mail: welcome, ann")
        == said.count("mail: three tips")
        == said.count("please confirm")
        == 1
    )
    assert "welcome: reminded; steps greet, settle in, tips, user/confirmed, remind; 7 days" in said
    assert said.count("charged 4711") == said.count("refunded payment of 4711") == 1
    assert "nightly: 13; steps tenants, reports; 0:00:00" in said


@pytest.mark.slow
def test_the_serverless_application_works_off_what_is_pending(tmp_path, started):
    started(str(EXAMPLES / "serverless" / "app.py"), cwd=tmp_path, stderr=subprocess.DEVNULL)
    headers = {"Authorization": "Bearer dGhlLXNlY3JldC1vZi1hbi1leGFtcGxlLWlzLW5vbmU="}

    def post(path):
        connection = http.client.HTTPConnection("127.0.0.1", 8765, timeout=20)
        try:
            connection.request("POST", path, headers=headers)
            return json.load(connection.getresponse())
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    first = until_true(lambda: post("/jobs/work?limit=2"))
    assert first == {"processed": 2, "failed": 0, "left": 1}
    assert post("/jobs/work") == {"processed": 1, "failed": 0, "left": 0}
    assert "jobs" in post("/jobs/tick")


class TestSaas:
    @pytest.mark.slow
    def test_declares_what_its_readme_says(self, tmp_path):
        readme = (EXAMPLES / "saas" / "README.md").read_text()
        told = dict(re.findall(r"^\| `([a-z_-]+)` \| (.*?) \|", readme, re.MULTILINE))
        program = (
            "import json; from examples.saas.jobs import defaults, fixtures\n"
            "jobs = {**defaults(), **fixtures.JOBS}\n"
            "print(json.dumps({id: each.get('cron') or each.get('every') for id, each in jobs.items()}))"
        )

        ended = run("-c", program, cwd=tmp_path)

        assert ended.returncode == 0, ended.stderr
        declared = json.loads(ended.stdout)
        said = {None: "by hand", 30: "every 30 s"}
        assert told == {
            job: f"`{when}`" if isinstance(when, str) else said.get(when) or f"every {when // 60} min"
            for job, when in declared.items()
        }
        assert len(told) == 28
        assert list(tmp_path.iterdir()) == []  # importing it connects to nothing

    @pytest.mark.slow
    def test_seeded_jobs_do_their_work_when_started_by_hand(self, tmp_path):
        program = (
            "import json; from examples.saas.jobs import jobs\n"
            "with jobs:\n"
            "    runs = [jobs.wait(jobs.trigger_job(job_id).id) for job_id in jobs.registry.jobs if job_id in {'cleanup-sessions', 'cleanup-invitations'}]\n"
            "print(json.dumps([run.output['deleted'] for run in runs]))"
        )

        assert run("-m", "examples.saas.init", cwd=tmp_path).returncode == 0
        first = run("-c", program, cwd=tmp_path)
        second = run("-c", program, cwd=tmp_path)

        assert all(deleted > 50 for deleted in json.loads(first.stdout)), first.stderr
        assert json.loads(second.stdout) == [0, 0], second.stderr


class TestDemo:
    def test_without_a_terminal_it_ends_with_a_summary_of_every_job(self, tmp_path):
        ended = run("-m", "examples.saas.demo", "--seconds", "8", cwd=tmp_path)

        assert ended.returncode == 0, ended.stderr
        rows = rows_of_summary(ended.stdout)
        assert rows.keys() == DEMO_JOBS
        for job, (runs, succeeded, failed, other, did) in rows.items():
            assert runs == succeeded + failed + other >= 1, job
            # On a busy machine some still run when the demo ends, and are asked to; the summary may say so once more.
            cut = len(re.findall(rf"{job} +failed .* the process was stopped", ended.stdout))
            assert failed - cut == (job == "test-fail-job"), ended.stdout
            assert did
        assert int(rows["purge-logs"][4].split()[0].replace(",", "")) > 4_000
        sent = int(rows["process-pending-emails"][4].split()[0])
        [took] = re.findall(r"The mail server took (\d+) mails", ended.stdout)
        # None twice, none lost; a run that was cut did not tell of its own.
        assert sent == int(took) or (sent < int(took) and "process was stopped" in ended.stdout)

    @pytest.mark.slow
    def test_without_a_terminal_it_ends_by_itself(self, tmp_path):
        began = time.monotonic()

        ended = run("-m", "examples.saas.demo", cwd=tmp_path)

        assert ended.returncode == 0, ended.stderr
        assert 15 < time.monotonic() - began < 40
        assert rows_of_summary(ended.stdout).keys() == DEMO_JOBS

    @pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
    def test_in_a_terminal_it_opens_the_dashboard_and_lives_until_ctrl_c(self, tmp_path, started):
        ours, theirs = os.openpty()
        browser = tmp_path / "browser"
        browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
        browser.chmod(0o755)
        process = started(
            "-m",
            "examples.saas.demo",
            cwd=tmp_path,
            env={"BROWSER": f"{browser} %s", "DISPLAY": ":0", "CI": ""},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

        until(ours, "Ctrl-C ends the demo", seconds=20)
        until(ours, "succeeded", seconds=20)
        opened = awaited(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text().strip())
        assert "process-pending-emails" in httpx.get(str(opened), timeout=30).text
        process.send_signal(signal.SIGINT)
        said = until(ours, "See for yourself", seconds=30)

        assert process.wait(timeout=15) == 0
        assert "What happened" in said
        assert "Traceback" not in said
        os.close(ours)


class TestLocal:
    def test_job_by_hand_takes_a_date_and_tells_its_progress(self, tmp_path):
        program = (
            "from jobs import jobs\n"
            "with jobs:\n"
            "    run = jobs.trigger_job('import-orders', {'since': '2026-03-01', 'limit': 40})\n"
            "    print(jobs.wait(run.id))"
        )

        ended = run("-c", program, cwd=tmp_path, PYTHONPATH=str(EXAMPLES / "local"))

        assert "'imported': 40" in ended.stdout, ended.stderr
        assert "Progress(processed=4, total=4" in ended.stdout

    def test_commands_of_its_readme_work(self, tmp_path):
        here = {"cwd": tmp_path, "PYTHONPATH": str(EXAMPLES / "local")}
        command = ("-m", "jobmanager", "--app", "jobs:jobs")

        listed = run(*command, "jobs", "list", **here)
        payload = '{"since": "2026-03-01", "limit": 40}'
        triggered = run(*command, "trigger", "import-orders", "--payload", payload, "--wait", **here)
        refused = run(*command, "trigger", "import-orders", "--payload", '{"since": "yesterday"}', **here)

        assert all(job in listed.stdout for job in ("daily-report", "check-stock", "import-orders")), (
            listed.stderr
        )
        assert (triggered.returncode, refused.returncode) == (0, 2)
        assert '{"imported": 40}' in triggered.stdout
        assert "since='yesterday'" in refused.stderr

    def test_says_nothing_about_who_keeps_the_time(self):
        text = (EXAMPLES / "local" / "jobs.py").read_text().lower()

        assert not re.search(
            r"\b(local|noop|celery|beat|worker|pg_?cron|apscheduler|postgres\w*|redis|sqlite|backend)\b", text
        )


class TestCelery:
    def test_its_jobs_are_those_of_the_local_example(self):
        here, there = (EXAMPLES / name / "jobs.py" for name in ("celery", "local"))

        assert here.read_bytes() == there.read_bytes()

    @pytest.mark.servers
    @pytest.mark.slow
    @pytest.mark.timeout(240)
    def test_beat_and_worker_of_its_readme_execute_until_they_are_asked_to_end(
        self, tmp_path, started, redis_url, monkeypatch
    ):
        monkeypatch.setenv("JOBMANAGER_BACKEND", "celery")
        monkeypatch.setenv("JOBMANAGER_CELERY_BROKER_URL", redis_url)
        command = ("-m", "jobmanager", "--app", "jobs:jobs")
        shutil.copy(EXAMPLES / "celery" / "jobs.py", tmp_path)
        here = {"cwd": tmp_path}

        beat = started(*command, "beat", **here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        worker = started(*command, "worker", **here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until(worker.stdout, "ready.", seconds=60)
        payload = '{"since": "2026-03-01", "limit": 40}'
        triggered = run(*command, "trigger", "import-orders", "--payload", payload, "--wait", **here)
        said = until(worker.stdout, "succeeded job=check-stock", seconds=90)
        listed = run(*command, "runs", "list", **here)
        deadline = time.monotonic() + 30
        looked = run(*command, "doctor", **here)
        while (
            "brought ticks" not in looked.stdout and time.monotonic() < deadline
        ):  # told with its next heartbeat
            looked = run(*command, "doctor", **here)
        for process in (beat, worker):
            process.send_signal(signal.SIGTERM)

        assert '{"imported": 40}' in triggered.stdout, triggered.stderr
        assert "succeeded job=import-orders" in said
        assert re.search(r"check-stock\s+✓ succeeded", listed.stdout), listed.stdout + listed.stderr
        assert re.search(r"import-orders\s+✓ succeeded", listed.stdout)
        assert looked.returncode == 0, looked.stdout
        assert "brought ticks" in looked.stdout
        assert [process.wait(timeout=30) for process in (beat, worker)] == [0, 0]


class TestPgCronFastapi:
    def test_its_jobs_are_those_of_the_local_example(self):
        here, there = (EXAMPLES / name / "jobs.py" for name in ("pg_cron_fastapi", "local"))

        assert here.read_bytes() == there.read_bytes()

    def test_commands_of_its_readme_exist(self):
        readme = (EXAMPLES / "pg_cron_fastapi" / "README.md").read_text()
        commands = re.findall(r"^    jobmanager (.+)$", readme, re.MULTILINE)

        assert len(commands) > 4
        for words in commands:
            command_line(shlex.split(words, comments=True))

    @pytest.mark.servers
    @pytest.mark.slow
    @pytest.mark.timeout(180)
    def test_a_call_of_the_database_is_executed_by_the_application_of_its_readme(
        self, tmp_path, started, pg_cron_url, pg_net, monkeypatch
    ):
        """The moment is set, not waited for; what pg_cron itself does meanwhile opens no second run."""
        import psycopg
        from tests.faults.conftest import until as true_within
        from tests.servers import free_port

        port = free_port()
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("JOBMANAGER_DATABASE_URL", pg_cron_url)
        for file in (EXAMPLES / "pg_cron_fastapi").glob("*.py"):
            shutil.copy(file, tmp_path)
        here = {"cwd": tmp_path}
        command = ("-m", "jobmanager", "--app", "jobs:jobs")

        made = run(*command, "--json", "init", "--yes", "--url", url, **here)
        assert made.returncode == 0, made.stderr
        variables = json.loads(made.stdout)["environment"]
        assert variables.keys() == {"JOBMANAGER_BACKEND", "JOBMANAGER_PUBLIC_URL", "JOBMANAGER_SECRET"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        server = started(
            *("-m", "uvicorn", "app:app", "--port", str(port)),
            **here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = until(server.stdout, "Uvicorn running on", seconds=60)
        with psycopg.connect(pg_cron_url, autocommit=True) as database:
            database.execute(
                "UPDATE jobmanager.jobs SET next_due_at = date_trunc('minute', now()),"
                " accounted_until = date_trunc('minute', now()) - interval '1 second' WHERE id = 'check-stock'"
            )
            [instant] = database.execute(
                "SELECT next_due_at FROM jobmanager.jobs WHERE id = 'check-stock'"
            ).fetchone()
            database.execute("SELECT jobmanager.fire(NULL)")

            def ended():
                return database.execute(
                    "SELECT r.status, c.outcome FROM jobmanager.runs r JOIN jobmanager.run_calls rc ON rc.run_id = r.id"
                    " JOIN jobmanager.calls c ON c.id = rc.call_id, jobmanager.sweep()"
                    " WHERE r.job_id = 'check-stock' AND r.scheduled_for = %s",
                    (instant,),
                ).fetchall()

            true_within(lambda: ended() == [("succeeded", "accepted")], 30)
        told = answer_of(port, "GET", "/")
        by_hand = answer_of(port, "POST", "/orders?since=2026-03-01&limit=40")["run"]
        listed = run(*command, "runs", "list", **here)
        looked = run(*command, "doctor", **here)
        entries = run(*command, "pg-cron", "entries", **here)
        server.send_signal(signal.SIGINT)
        said += server.communicate(timeout=30)[0].decode()

        assert 'POST /jobs/run HTTP/1.1" 202' in said
        assert told["check-stock"] == "completed"
        assert re.search(r"check-stock\s+✓ succeeded", listed.stdout), listed.stdout + listed.stderr
        assert by_hand[-8:] in listed.stdout
        assert looked.returncode == 0, looked.stdout
        assert entries.returncode == 0, entries.stdout + entries.stderr
        assert variables["JOBMANAGER_SECRET"] not in said + listed.stdout + looked.stdout + entries.stdout
        assert server.returncode == 0


class TestNoopInTests:
    def test_the_applications_own_tests_pass(self, tmp_path):
        ended = run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "noop_in_tests"), cwd=tmp_path
        )

        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "6 passed" in ended.stdout
        assert list(tmp_path.iterdir()) == []


class TestOwnBackend:
    def test_it_passes_the_contract_in_ten_lines(self, tmp_path):
        ended = run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "own_backend"), cwd=tmp_path
        )

        assert ended.returncode == 0, ended.stdout + ended.stderr
        _, _, contract = (EXAMPLES / "own_backend" / "test_file_backend.py").read_text().partition("class ")
        assert len([line for line in contract.splitlines() if line.strip()]) <= 10

    def test_a_file_that_appears_is_a_tick_and_nothing_else_is(self, tmp_path):
        program = """
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from jobmanager import JobManager

jobs = JobManager()

@jobs.job("heartbeat", every=1)
def heartbeat() -> str:
    return "beat"

with jobs:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    Path(f"spool/due/heartbeat@{soon:%Y-%m-%dT%H:%M:%SZ}").touch()
    Path("spool/due/not-ours").touch()
    while not (runs := jobs.runs(status="succeeded")):
        time.sleep(0.05)
    time.sleep(1.5)  # seconds that nobody rang for
    print(len(jobs.runs()), runs[0].scheduled_for == soon, runs[0].output, [path.name for path in Path("spool/due").iterdir()])
"""
        ended = run(
            "-c",
            program,
            cwd=tmp_path,
            PYTHONPATH=str(EXAMPLES / "own_backend"),
            JOBMANAGER_BACKEND="file_backend:FileBackend",
            FILE_BACKEND_FOLDER="spool",
        )

        assert ended.stdout == "1 True beat ['not-ours']\n", ended.stderr


@pytest.mark.slow
def test_the_commands_of_the_django_project_work(tmp_path):
    readme = (EXAMPLES / "django" / "README.md").read_text()
    shutil.copytree(EXAMPLES / "django", tmp_path / "site")
    commands = [shlex.split(line) for line in readme.splitlines() if line.startswith("python manage.py")]
    assert len(commands) == 4
    for _, *words in commands:
        ended = run(*words, cwd=tmp_path / "site")
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_the_commands_of_the_flask_application_work(tmp_path):
    readme = (EXAMPLES / "flask" / "README.md").read_text()
    commands = [shlex.split(line) for line in readme.splitlines() if line.startswith("flask --app shop jobs")]
    assert len(commands) == 2
    shutil.copy(EXAMPLES / "flask" / "shop.py", tmp_path)
    for words in commands:
        ended = run("-m", *words, cwd=tmp_path)
        assert ended.returncode == 0, ended.stdout + ended.stderr
