"""`jobmanager export`: files that their own parsers take, that wake at every instant, hold no secret and are not overwritten."""

import json
import re
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from zoneinfo import ZoneInfo

import pytest
from tests.unit.schedule.test_wakeup import full_minute, matched

from jobmanager.cli.app import run
from jobmanager.cli.commands.export_clocks import weekdays_named
from jobmanager.cli.commands.export_targets import TARGETS, external_job
from jobmanager.schedule import At, Cron, Every

SECRET = "whsec_c2VjcmV0LXRoYXQtbm8tZmlsZS1tYXktaG9sZA=="
START = datetime(2026, 11, 22, 10, 20, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SHOP = """
from jobmanager import JobManager, Settings
jobs = JobManager(Settings(database_url="memory://", backend="noop", secret={secret!r}, **{settings!r}))

@jobs.job("cleanup", cron="0 9 * * *", timezone="Europe/Berlin")
def cleanup(): pass

@jobs.job("night_shift", cron="30 2 * * *", timezone="America/New_York", timeout=300)
def night_shift(): pass

@jobs.job("often", every=15)
def often(): pass

@jobs.job("month.end", cron="0 0 L * *")
def month_end(): pass

@jobs.job("by-hand")
def by_hand(): pass
"""
SCHEDULED = ["cleanup", "month.end", "night_shift", "often"]
_numbers = count()


@pytest.fixture
def export(tmp_path, monkeypatch, capsys):
    """Calls the verb for the shop; answers exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*words, source=SHOP, **settings):
        name = f"exported_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source.format(secret=SECRET, settings=settings))
        code = run(["export", *words, "--app", f"{name}:jobs"])
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        return code, printed.out, printed.err

    return call


@pytest.fixture
def files(export, tmp_path):
    """The files of a target by their path, written into a folder."""

    def write(target, url="https://shop.example/app", **settings):
        code, _, error = export(target, "--url", url, "--out", "made", **settings)
        assert code == 0, error
        paths = [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
        return {str(path.relative_to(tmp_path / "made")): path.read_text() for path in paths}

    return write


def documents(text):
    return [document for document in pytest.importorskip("yaml").safe_load_all(text) if document]


# --- each format, by its own parser


def test_vercel_gets_a_path_and_five_fields_in_utc(files):
    made = json.loads(files("vercel-crons")["vercel.json"])
    assert made["crons"] == [
        {"path": "/app/jobs/tick/cleanup", "schedule": "0 7,8 * * *"},
        {"path": "/app/jobs/tick/month.end", "schedule": "0 0 28,29,30,31 * *"},
        {"path": "/app/jobs/tick/night_shift", "schedule": "0,30 6,7 * * *"},
        {"path": "/app/jobs/tick/often", "schedule": "* * * * *"},
    ]


def test_vercel_needs_no_url(export):
    code, out, _ = export("vercel-crons")
    assert code == 0
    assert json.loads(out)["crons"][0]["path"] == "/jobs/tick/cleanup"


def test_vercel_gets_schedules_in_the_zones_of_the_jobs(files):
    made = json.loads(files("vercel")["vercel.json"])
    assert made["schedules"]["jm-cleanup"] == {
        "schedule": "0 9 * * *",
        "timezone": "Europe/Berlin",
        "path": "/app/jobs/tick/cleanup",
        "requestMethod": "GET",
    }
    assert [one["timezone"] for one in made["schedules"].values()] == ["Europe/Berlin", "UTC", "UTC", "UTC"]


def test_a_vercel_json_changes_over_to_schedules_and_keeps_those_of_others(export, tmp_path):
    own = {
        "crons": [{"path": "/mine", "schedule": "0 1 * * *"}],
        "schedules": {"mine": {"path": "/x", "schedule": "0 1 * * *"}},
    }
    (tmp_path / "vercel.json").write_text(json.dumps(own))
    assert export("vercel-crons", "--out", ".", "--force")[0] == 0
    assert len(json.loads((tmp_path / "vercel.json").read_text())["crons"]) == 5
    assert export("vercel", "--out", ".", "--force")[0] == 0
    made = json.loads((tmp_path / "vercel.json").read_text())
    assert made["crons"] == own["crons"]
    assert sorted(made["schedules"]) == sorted(["mine", *(f"jm-{job}" for job in SCHEDULED)])


def test_cloudflare_gets_a_trigger_for_each_text_and_one_for_all_if_they_are_too_many(files, export):
    made = files("cloudflare")
    calls = json.loads(re.search(r"const calls = (\{.*?\});", made["worker.js"], re.DOTALL)[1])
    assert calls["0 7,8 * * *"] == ["https://shop.example/app/jobs/tick/cleanup"]
    assert json.loads(re.search("crons = (.*)", made["wrangler.toml"])[1]) == list(calls)
    many = SHOP + "".join(f"jobs.add_job('more-{n}', by_hand, cron='{n} 3 * * 1')\n" for n in range(9))
    _, out, _ = export("cloudflare", "--url", "https://shop.example", source=many)
    assert '"https://shop.example/jobs/tick"' in out
    assert 'crons = ["* * * * *"]' in out


def test_weekdays_are_named_for_clocks_that_count_otherwise():
    assert weekdays_named("0 2 * * 0,1,6") == "0 2 * * SUN,MON,SAT"
    assert weekdays_named("0 2 1 * *") == "0 2 1 * *"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_cloud_scheduler_makes_or_updates_and_shows_no_secret(files, tmp_path):
    script = files("gcloud")["jobmanager-gcloud.sh"]
    (tmp_path / "bin").mkdir()
    stub = '#!/bin/bash\necho "$@" >> calls\nfor one in "$@"; do case $one in /dev/fd/*) cat "$one" >> flags;; esac; done\n[ "$4" != update ]'
    (tmp_path / "bin" / "gcloud").write_text(stub.replace("$4", "$3"))
    (tmp_path / "bin" / "gcloud").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "LOCATION": "europe-west1",
        "JOBMANAGER_SECRET": SECRET,
    }
    subprocess.run(["bash", "-c", script], env=environment, cwd=tmp_path, check=True)
    called = (tmp_path / "calls").read_text()
    assert called.count("update http") == called.count("create http") == 4
    assert "--schedule=0 9 * * * --time-zone=Europe/Berlin" in called
    assert SECRET not in called
    assert f'Authorization: "Bearer {SECRET}"' in (tmp_path / "flags").read_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_task_of_trigger_dev_calls_for_its_job_and_fails_where_it_is_to_come_again(files, tmp_path):
    package = tmp_path / "node_modules" / "@trigger.dev" / "sdk"
    package.mkdir(parents=True)
    (package / "package.json").write_text(
        '{"name": "@trigger.dev/sdk", "type": "module", "main": "index.js"}'
    )
    (package / "index.js").write_text(
        "export const schedules = {task: (t) => t}; export const waits = [];"
        "export const wait = {until: async ({date}) => waits.push(date)};"
    )
    (tmp_path / "task.mjs").write_text(files("trigger-dev")["jobmanager-tick.ts"])
    (tmp_path / "run.mjs").write_text(
        'import {jobmanagerTick} from "./task.mjs"; import {waits} from "@trigger.dev/sdk";'
        "const asked = []; let status = 202;"
        "globalThis.fetch = async (url, how) => { asked.push([url, how.headers.Authorization]);"
        ' return {ok: status < 300, status, text: async () => JSON.stringify({finding: "opened"})}; };'
        'const said = await jobmanagerTick.run({timestamp: new Date(0), externalId: "cleanup"});'
        "status = 425; let failed = ''; try { await jobmanagerTick.run({timestamp: new Date(0)}); } catch (e) { failed = e.message; }"
        "console.log(JSON.stringify({asked, said, failed, id: jobmanagerTick.id, waits: waits.length}));"
    )
    told = subprocess.run(
        ["node", "run.mjs"],
        check=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "JOBMANAGER_SECRET": SECRET},
        capture_output=True,
        text=True,
    )
    said = json.loads(told.stdout)
    assert said["asked"] == [
        ["https://shop.example/app/jobs/tick/cleanup", f"Bearer {SECRET}"],
        ["https://shop.example/app/jobs/tick", f"Bearer {SECRET}"],
    ]
    assert said["said"] == {"finding": "opened"}
    assert said["failed"].startswith("jobmanager answers 425")
    assert (said["id"], said["waits"]) == ("jobmanager-tick", 2)


def test_kubernetes_gets_a_cron_job_for_each_job(files):
    made = documents(files("k8s")["jobmanager-cronjobs.yaml"])
    assert [one["metadata"]["annotations"]["jobmanager/job"] for one in made] == SCHEDULED
    names = [one["metadata"]["name"] for one in made]
    assert names[0] == "jobmanager-cleanup"
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", name) for name in names)
    spec = made[0]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 9 * * *", "Europe/Berlin")
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 300)
    assert (made[2]["spec"]["schedule"], made[2]["spec"]["timeZone"]) == ("0,30 6,7 * * *", "Etc/UTC")
    container = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert re.fullmatch(r"curlimages/curl:\d+\.\d+\.\d+", container["image"])
    assert container["env"] == [
        {"name": "JOBMANAGER_SECRET", "valueFrom": {"secretKeyRef": {"name": "jobmanager", "key": "secret"}}}
    ]
    assert container["args"][0].endswith("--request POST https://shop.example/app/jobs/tick/cleanup")


def test_names_of_cron_jobs_fit_and_are_never_the_same():
    now = START
    ids = ["a" * 120, "a" * 119 + "b", "a.b", "a_b", "a-b", "x-", "0"]
    tickers = [
        external_job(job, Every(60), "k8s", url=f"https://h/jobs/tick/{job}", patience=60, now=now)
        for job in ids
    ]
    made = documents(TARGETS["k8s"].renders(tickers)["jobmanager-cronjobs.yaml"])
    names = [one["metadata"]["name"] for one in made]
    assert len(set(names)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", name) for name in names)


def test_github_gets_one_workflow_whose_jobs_run_for_their_own_schedules(files):
    (made,) = documents(files("github")[".github/workflows/jobmanager.yml"])
    crons = [entry["cron"] for entry in made["on"]["schedule"]]
    assert crons == sorted(crons)
    assert made["permissions"] == {}
    steps = {}
    for job in made["jobs"].values():
        assert job["env"] == {"JOBMANAGER_SECRET": "${{ secrets.JOBMANAGER_SECRET }}"}
        cron = re.search(r"github.event.schedule == '([^']+)'", job["if"])[1]
        steps |= {step["name"]: (cron, step["run"]) for step in job["steps"]}
    assert sorted(steps) == SCHEDULED
    assert {cron for cron, _ in steps.values()} == set(crons)
    assert steps["often"][0] == "4,9,14,19,24,29,34,39,44,49,54,59 * * * *"
    assert steps["cleanup"][1].endswith("https://shop.example/app/jobs/tick/cleanup")


def test_two_jobs_of_one_time_share_a_workflow_job():
    tickers = [
        external_job(
            job, Cron("0 9 * * *"), "github", url=f"https://h/jobs/tick/{job}", patience=60, now=START
        )
        for job in ("b", "a")
    ]
    (made,) = documents(TARGETS["github"].renders(tickers)[".github/workflows/jobmanager.yml"])
    assert made["on"]["schedule"] == [{"cron": "0 9 * * *"}]
    assert [step["name"] for step in made["jobs"]["tick-1"]["steps"]] == ["b", "a"]


def test_a_crontab_is_in_utc_and_says_above_each_line_what_is_not_exact(files):
    text = files("crontab")["jobmanager.crontab"]
    assert "\nCRON_TZ=UTC\n" in text
    assert "the crons of Debian and busybox do not" in text
    entries = crontab_entries(text)
    assert {job: fields for job, (fields, _) in entries.items()} == {
        "cleanup": "0 7,8 * * *",
        "month.end": "0 0 28,29,30,31 * *",
        "night_shift": "0,30 6,7 * * *",
        "often": "* * * * *",
    }
    blocks = text.split("\n\n")
    assert "keeps the time of Europe/Berlin" in blocks[1]
    assert "every 15 s and is woken once a minute" in blocks[4]
    assert re.search(r"(?<!\\)%", re.sub("#.*", "", text)) is None  # a bare one ends the command


def crontab_entries(text):
    """Fields and command of each job, as cron reads them."""
    lines = [line for line in text.splitlines() if re.match(r"[0-9*]", line)]
    found = {}
    for line in lines:
        *fields, command = line.split(" ", 5)
        found[re.search(r"/tick/(\S+)", command)[1]] = " ".join(fields), command.replace(r"\%", "%")
    return found


def test_systemd_gets_one_service_and_a_timer_for_each_job(files):
    made = files("systemd")
    assert sorted(made) == sorted(
        ["jobmanager-tick@.service", *(f"jobmanager-tick@{job}.timer" for job in SCHEDULED)]
    )
    assert "\nOnCalendar=*-*-* 9:0:00 Europe/Berlin\n" in made["jobmanager-tick@cleanup.timer"]
    assert "\nOnCalendar=*-*-* 6,7:0,30:00 UTC\n" in made["jobmanager-tick@night_shift.timer"]
    assert "\nEnvironmentFile=/etc/jobmanager/tick.env\n" in made["jobmanager-tick@.service"]
    assert "/jobs/tick/%i" in made["jobmanager-tick@.service"]


systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here"
)


@systemd
def test_systemd_takes_its_units(files, tmp_path):
    made = files("systemd")
    for unit in (name for name in made if name.endswith(".timer")):
        verified = subprocess.run(
            ["systemd-analyze", "verify", f"./{unit}"],
            cwd=tmp_path / "made",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (verified.returncode, verified.stderr) == (0, "")


# --- waking


SCHEDULES = [
    Cron("30 2 * * *", "America/New_York"),
    Cron("15,45 1-3 * * *", "Australia/Lord_Howe"),
    Cron("0 9 * * MON-FRI", "Europe/Berlin"),
    Cron("0 0 1 * *", "Asia/Kathmandu"),
    Cron("0 12 13 * FRI", "America/Sao_Paulo"),
    Cron("0 */4 L * *", "Antarctica/Troll"),
    Cron("30 59 23 * * *", "Europe/Berlin"),
    Every(5400),
    Every(100_000, START),
    At(START + 100 * DAY + timedelta(seconds=7)),
]


@pytest.mark.parametrize(
    "target", sorted(TARGETS.keys() - {"trigger-dev"})
)  # its schedules are made by the backend
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.text)
def test_a_year_of_instants_is_woken_for_as_the_file_says(schedule, target):
    ticker = external_job("job", schedule, target, url="https://h/jobs/tick/job", patience=60, now=START)
    text, zone = written_schedule(target, "\n".join(TARGETS[target].renders([ticker]).values()))
    instants = list(schedule.between(START, START + 366 * DAY))
    assert instants
    missed = [
        instant for instant in instants if not matched(text, full_minute(instant).astimezone(ZoneInfo(zone)))
    ]
    assert missed == []


def written_schedule(target, text):
    """The five fields and the zone, as they stand in a file of a target."""
    if target == "vercel-crons":
        return json.loads(text)["crons"][0]["schedule"], "UTC"
    if target == "vercel":
        [made] = json.loads(text)["schedules"].values()
        return made["schedule"], made["timezone"]
    if target == "gcloud":
        return re.search("--schedule='(.*?)'", text)[1], re.search("--time-zone='(.*?)'", text)[1]
    if target == "cloudflare":
        [text] = json.loads(re.search("crons = (.*)", text)[1])
        return five_numbers(text), "UTC"
    if target == "crontab":
        return crontab_entries(text)["job"][0], re.search("CRON_TZ=(.*)", text)[1]
    if target == "systemd":
        return five_fields(re.search("OnCalendar=(.*)", text)[1])
    (made,) = documents(text)
    if target == "k8s":
        return made["spec"]["schedule"], made["spec"]["timeZone"]
    return made["on"]["schedule"][0]["cron"], "UTC"


def five_numbers(text):
    """Five fields with weekdays as Cloudflare reads their names: from Sunday on, as cron counts them."""
    *fields, weekdays = text.split()
    named = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
    days = weekdays if weekdays == "*" else ",".join(str(named.index(day)) for day in weekdays.split(","))
    return " ".join([*fields, days])


def five_fields(calendar):
    *weekdays, date, time, zone = calendar.split()
    named = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    weekday = ",".join(str(named.index(name)) for name in weekdays[0].split(",")) if weekdays else "*"
    year, month, day = date.split("-")
    hour, minute, second = time.split(":")
    assert (year, second) == ("*", "00")
    return f"{minute} {hour} {day} {month} {weekday}", zone


@pytest.mark.slow
@systemd
@pytest.mark.parametrize("schedule", SCHEDULES[:4], ids=lambda schedule: schedule.text)
def test_systemd_itself_elapses_at_every_instant_of_a_year(schedule):
    ticker = external_job("job", schedule, "systemd", url="https://h/jobs/tick/job", patience=60, now=START)
    files = TARGETS["systemd"].renders([ticker])
    calendar = re.search("OnCalendar=(.*)", files["jobmanager-tick@job.timer"])[1]
    told = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=6000", f"--base-time={START:%Y-%m-%d %H:%M:%S} UTC", calendar],
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    elapsed = {
        datetime.fromisoformat(moment).replace(tzinfo=UTC)
        for moment in re.findall(r"(?:elapse|Iter\. #\d+): \w{3} ([-\d]+ [:\d]+) UTC", told)
    }
    expected = {full_minute(instant) for instant in schedule.between(START, START + 366 * DAY)}
    assert expected - elapsed == set()


def test_github_wakes_within_five_minutes_where_it_takes_no_more():
    schedule = Cron("*/2 9-17 * * *")
    ticker = external_job("job", schedule, "github", url="https://h/jobs/tick/job", patience=60, now=START)
    for instant in schedule.between(START, START + 3 * DAY):
        assert any(matched(ticker.text, instant + late * MINUTE) for late in range(5))
    assert any("up to 4 minutes late" in remark for remark in ticker.remarks)


# --- what is not exact


@pytest.mark.parametrize(
    ("schedule", "target", "said"),
    [
        (
            Cron("0 9 * * *", "Europe/Berlin"),
            "vercel-crons",
            "keeps the time of Europe/Berlin, written in UTC",
        ),
        (Cron("0 9 * * *", "Europe/Berlin"), "k8s", None),
        (Cron("30 2 * * *", "Europe/Berlin"), "k8s", "keeps the time of Europe/Berlin, written in UTC"),
        (Cron("0 9 * * *", "Asia/Tokyo"), "github", None),
        (Cron("*/15 * * * *", "America/New_York"), "crontab", None),
        (Cron("0 9 13 * FRI"), "systemd", "has days that not every cron knows"),
        (Cron("30 0 9 * * *"), "k8s", "is due between full minutes and woken at the next one"),
        (Cron("*/15 * * * * *"), "k8s", "every 15 s and is woken once a minute"),
        (Every(15), "systemd", "every 15 s and is woken once a minute"),
        (Every(5400), "k8s", "is no pattern of hours and minutes: woken 398 times for 200 instants"),
        (Every(300), "github", None),
        (Every(3600, START), "vercel-crons", None),
        (Every(60), "github", "nothing more often than every 5 minutes"),
        (At(START + DAY), "crontab", "take it out when it has run"),
        (Cron("0 0 29 2 *"), "crontab", "is not due within 400 days"),
    ],
)
def test_what_is_not_exact_is_said(schedule, target, said):
    ticker = external_job("job", schedule, target, url="https://h/jobs/tick/job", patience=60, now=START)
    assert len(ticker.remarks) == (said is not None)
    assert said is None or said in ticker.remarks[0]


def test_it_is_said_on_standard_error_job_by_job(export):
    _, out, error = export("vercel-crons", "--url", "https://shop.example")
    assert "night_shift: keeps the time of America/New_York, written in UTC" in error
    assert "often: asks for every 15 s" in error
    assert "Set CRON_SECRET in the Vercel project" in error
    json.loads(out)


def test_json_says_the_same(export):
    code, out, error = export("k8s", "--url", "https://shop.example", "--json")
    told = json.loads(out)
    assert (code, error) == (0, "")
    assert [(job["job"], job["cron"], job["timezone"], job["exact"]) for job in told["jobs"]][:2] == [
        ("cleanup", "0 9 * * *", "Europe/Berlin", True),
        ("month.end", "0 0 28,29,30,31 * *", "UTC", False),
    ]
    assert [(file["path"], file["written"]) for file in told["files"]] == [("jobmanager-cronjobs.yaml", None)]


# --- calling


OPENED = (202, b'{"job":"cleanup","finding":"opened","run":"1","scheduled_for":null}')
EARLY = (425, b'{"job":"cleanup","finding":"early","run":null,"scheduled_for":null,"due_in":20.5}')


@pytest.fixture
def endpoint():
    """An address, what was sent to it (method, path and authorization), and the responses it gives, the last one for ever."""
    calls, responses = [], [OPENED]

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            calls.append((self.command, self.path, self.headers["Authorization"]))
            status, body = responses[0] if len(responses) == 1 else responses.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 308:
                self.send_header("Location", f"{self.path}/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_): ...

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", calls, responses
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def execute(files, endpoint, tmp_path):
    """Executes the command of the job cleanup as a target's shell does; its pauses take no time and are written down."""
    url, *_ = endpoint
    (tmp_path / "tick.env").write_text(f"JOBMANAGER_SECRET={SECRET}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sleep").write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/pauses\n')
    (tmp_path / "bin" / "sleep").chmod(0o755)

    def call(target):
        environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "TICK_ENV": str(tmp_path / "tick.env")}
        if target != "crontab":
            environment["JOBMANAGER_SECRET"] = SECRET
        command = command_of(target, files(target, url=url))
        ended = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False
        )
        return ended, (tmp_path / "pauses").read_text().split()

    return call


curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


@curl
@pytest.mark.parametrize("target", ["crontab", "k8s", "github", "systemd"])
def test_the_commands_call_the_endpoint_with_the_secret(execute, endpoint, target):
    _, calls, _ = endpoint
    ended, pauses = execute(target)
    assert (ended.returncode, ended.stdout, ended.stderr, pauses) == (0, "", "", ["0"])
    assert calls == [("POST", "/jobs/tick/cleanup", f"Bearer {SECRET}")]


@curl
@pytest.mark.parametrize("target", ["crontab", "k8s", "github", "systemd"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (308, b""),
        (200, b"<form>Log in</form>"),
        (200, b'{"job":"another","finding":"opened"}'),
        (401, b'{"error":"unauthorized"}'),
        (404, b'{"error":"no such job","job":"cleanup"}'),
        (500, b'{"error":"internal error"}'),
    ],
)
def test_a_response_that_is_not_about_the_job_fails_the_command(execute, endpoint, target, status, body):
    """Fails if a redirect or a login page is green, or if the log does not show what came back."""
    _, calls, responses = endpoint
    responses[:] = [(status, body)]
    ended, pauses = execute(target)
    assert ended.returncode == 1
    assert f"{body.decode()} {status}" in ended.stderr
    assert pauses[0] == "0"
    assert "31" not in pauses
    assert calls


@curl
@pytest.mark.parametrize("target", ["crontab", "k8s", "github", "systemd"])
def test_a_call_that_is_early_is_made_again(execute, endpoint, target):
    """Fails if a clock that is half a minute ahead leaves the job without its run."""
    _, calls, responses = endpoint
    responses[:] = [EARLY, EARLY, OPENED]
    ended, pauses = execute(target)
    assert (ended.returncode, len(calls), pauses) == (0, 3, ["0", "31", "31"])
    responses[:] = [EARLY]
    ended, _ = execute(target)
    assert (ended.returncode, len(calls)) == (1, 6)
    assert '"finding":"early"' in ended.stderr


@pytest.mark.parametrize(("backend", "said"), [("noop", True), ("external", False)])
def test_an_application_that_answers_no_ticker_is_remarked(export, backend, said):
    """Fails if the files of an application are green to make and useless to have."""
    source = SHOP.replace('"noop"', f'"{backend}"').replace('"often", every=15', '"often", every=60')
    code, _, error = export("vercel-crons", source=source)
    assert code == 0
    assert ("it answers every call with 503. Set JOBMANAGER_BACKEND=external" in error) == said


def command_of(target, made):
    """The shell command of the job cleanup, as the target hands it to the shell."""
    text = "\n".join(made.values())
    if target == "crontab":
        return crontab_entries(text)["cleanup"][1]
    if target == "k8s":
        return documents(text)[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"][
            0
        ]
    if target == "github":
        (workflow,) = documents(text)
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        return next(step["run"] for step in steps if step["name"] == "cleanup")
    quoted = re.search('ExecStart=/bin/sh -c "(.*)"', text)[1]
    assert re.search(r"(?<!\$)\$(?!\$)", quoted) is None  # one alone is systemd's
    replaced = {"%%": "%", "$$": "$", "%i": "cleanup", '\\"': '"'}
    return re.sub(r'%%|\$\$|%i|\\"', lambda found: replaced[found[0]], quoted)


def test_where_the_answer_waits_for_the_run_the_call_waits_as_long(files):
    made = crontab_entries(files("crontab", wait=True)["jobmanager.crontab"])
    assert "--max-time 360 " in made["night_shift"][1]
    assert "--max-time 960 " in made["cleanup"][1]


# --- where it goes


def test_files_that_differ_are_left_alone_and_named(export, tmp_path):
    words = ["crontab", "--url", "https://shop.example", "--out", "made"]
    path = tmp_path / "made" / "jobmanager.crontab"
    assert export(*words)[:2] == (0, "jobmanager.crontab: written\n")
    assert export(*words)[:2] == (0, "jobmanager.crontab: unchanged\n")
    path.write_text("# mine\n")
    code, out, error = export(*words)
    assert (code, out) == (3, "")
    assert "jobmanager.crontab: there already, and different" in error
    assert path.read_text() == "# mine\n"
    assert export(*words, "--force")[0] == 0
    assert "/jobs/tick/cleanup" in path.read_text()


def test_nothing_is_written_if_one_of_the_files_differs(export, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "jobmanager-tick@often.timer").write_text("")
    assert export("systemd", "--url", "https://shop.example", "--out", "made")[0] == 3
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["jobmanager-tick@often.timer"]


def test_a_vercel_json_keeps_what_is_not_ours(export, tmp_path):
    own = {
        "framework": "nextjs",
        "crons": [
            {"path": "/api/mine", "schedule": "0 1 * * *"},
            {"path": "/jobs/tick/gone", "schedule": "0 1 * * *"},
        ],
    }
    (tmp_path / "vercel.json").write_text(json.dumps(own))
    assert export("vercel-crons", "--out", ".")[0] == 3
    assert json.loads((tmp_path / "vercel.json").read_text()) == own
    assert export("vercel-crons", "--out", ".", "--force")[0] == 0
    made = json.loads((tmp_path / "vercel.json").read_text())
    assert made["framework"] == "nextjs"
    assert [entry["path"] for entry in made["crons"]] == [
        "/api/mine",
        *(f"/jobs/tick/{job}" for job in SCHEDULED),
    ]
    assert export("vercel-crons", "--out", ".")[:2] == (0, "vercel.json: unchanged\n")


def test_a_vercel_json_that_cannot_be_read_is_never_replaced(export, tmp_path):
    (tmp_path / "vercel.json").write_text("{ // mine\n}")
    code, _, error = export("vercel-crons", "--out", ".", "--force")
    assert code == 3
    assert "cannot be read" in error
    assert (tmp_path / "vercel.json").read_text() == "{ // mine\n}"


def test_a_timer_of_a_job_that_is_gone_is_named(export, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "jobmanager-tick@gone.timer").write_text("")
    _, _, error = export("systemd", "--url", "https://shop.example", "--out", "made")
    assert "jobmanager-tick@gone.timer: of no job that has a schedule; disable and delete it." in error


def test_the_url_is_the_public_one_and_the_path_the_endpoint_s(files, export):
    _, out, _ = export("crontab", public_url="https://shop.example/x", run_path="/internal/cron/run")
    assert "https://shop.example/x/internal/cron/tick/cleanup" in out


@pytest.mark.parametrize("target", ["k8s", "crontab", "systemd", "github"])
def test_without_a_url_it_asks_for_one(export, target):
    code, _, error = export(target)
    assert code == 2
    assert "Give --url https://host, or set JOBMANAGER_PUBLIC_URL." in error


@pytest.mark.parametrize(
    "url", ["shop.example", "https://h/$(id)", "https://h/a b", "https://h/'", "https://user:word@h", "https://h/?a=b", "ftp://h"]
)  # fmt: skip
def test_a_url_that_means_something_to_a_shell_is_refused(export, url):
    code, _, error = export("crontab", "--url", url)
    assert code == 2
    assert "cannot be written into these files" in error


def test_plain_http_is_remarked(export):
    assert "the secret travels unencrypted" in export("crontab", "--url", "http://shop.internal")[2]


def test_an_application_without_a_schedule_is_told(export):
    bare = (
        'from jobmanager import JobManager, Settings\njobs = JobManager(Settings(database_url="memory://"))\n'
    )
    code, _, error = export("vercel-crons", source=bare)
    assert code == 2
    assert "No job of this application has a schedule." in error


def test_what_operators_have_overridden_is_exported(export):
    overridden = SHOP + 'jobs.sync()\njobs.override_job("cleanup", cron="0 10 * * *")\n'
    _, out, _ = export("vercel-crons", source=overridden)
    assert json.loads(out)["crons"][0] == {"path": "/jobs/tick/cleanup", "schedule": "0 8,9 * * *"}


def test_a_store_out_of_reach_is_said_and_the_declarations_are_exported(export, monkeypatch):
    from jobmanager.errors import StoreUnavailableError

    def away(*_):
        raise StoreUnavailableError("the store is away")

    monkeypatch.setattr("jobmanager.manager.manager.JobManager.list_jobs", away)
    code, out, error = export("vercel-crons")
    assert code == 0
    assert "exported as declared, without overrides: the store is away" in error
    assert [entry["path"].rpartition("/")[2] for entry in json.loads(out)["crons"]] == SCHEDULED


def test_it_has_help_and_refuses_a_target_that_it_does_not_know(export, capsys):
    assert run(["export", "--help"]) == 0
    assert "No file holds the secret" in " ".join(capsys.readouterr().out.split())
    code, _, error = export("nomad")
    assert code == 2
    assert "'nomad'" in error
