"""Every verb, called in this process on a SQLite file: what it prints, what its JSON says, how it exits."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from jobmanager.cli import main
from jobmanager.cli.app import hoisted
from jobmanager.cli.loading import load
from jobmanager.run import new_id

APPLICATION = """
import logging
import os
import time

from jobmanager import JobManager, Retry, RunContext

log = logging.getLogger(__name__)
jobs = JobManager()

@jobs.job("cleanup", cron="0 2 * * *", timezone="Europe/Berlin", name="Clean up", config={"days": 30, "api_token": "s3cret"},
          retry=Retry(max_attempts=3, delays=[1, 5]), timeout=300)
def cleanup(context: RunContext, days: int = 30, api_token: str = "") -> dict[str, int]:
    log.warning("older than %d days", days)
    return {"days": days}

@jobs.job("fails")
def fails() -> None:
    raise ValueError("it [is] broken")

@jobs.job("gated", every=60, enabled_when="WITH_GATED")
def gated() -> None:
    pass

@jobs.job("once-more", retry=Retry(max_attempts=2, delays=[0], jitter=0))
def once_more(context: RunContext) -> str:
    log.warning("attempt %d", context.attempt)
    if context.attempt == 1:
        raise ConnectionError("hung up")
    return "sent"
"""

_numbers = count()


@dataclass
class Said:
    """What one command line answered."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def application(tmp_path, monkeypatch):
    """The name of a fresh module in the working directory that declares four jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    name = f"shop_{next(_numbers)}"
    Path(f"{name}.py").write_text(APPLICATION)
    monkeypatch.setenv("JOBMANAGER_APP", name)
    yield name
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def cli(application, capsys):
    def call(*arguments: str) -> Said:
        code = main(list(arguments))
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def run(cli):
    """The run of `trigger JOB --wait`, as JSON."""

    def trigger(job: str, *arguments: str):
        return cli("trigger", job, "--wait", "--json", *arguments).json

    return trigger


# ---------------------------------------------------------------- the command line itself


def test_global_options_may_stand_anywhere():
    assert hoisted(["jobs", "list", "--json", "--app", "a:b"]) == ["--json", "--app", "a:b", "jobs", "list"]
    assert hoisted(["runs", "--app=a:b", "--", "--json"]) == ["--app=a:b", "runs", "--", "--json"]
    assert hoisted(["--app"]) == ["--app"]


@pytest.mark.parametrize(
    "verb",
    ["", "run", "jobs", "jobs list", "jobs show", "jobs next", "jobs pause", "jobs resume", "runs", "runs list", "runs show", "logs",
     "cancel", "trigger", "redrive", "explain", "simulate", "doctor", "purge", "version", "demo"],
)  # fmt: skip
def test_every_verb_has_help(cli, verb):
    said = cli(*verb.split(), "--help")
    assert said.code == 0
    assert "Usage: jobmanager" in said.out


def test_without_a_verb_the_help_is_shown(cli):
    assert "Usage: jobmanager" in cli().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nonsense", "No such command 'nonsense'."),
        ("trigger", "Missing argument 'JOB'."),
        ("trigger cleanup --nonsense", "No such option '--nonsense'."),
        ("runs list --limit 0", "Invalid value for '--limit'"),
        ("runs list --status lost", "'lost' is no status."),
        ("jobs show nope", "No job 'nope' is declared or stored."),
        ("jobs show cleanop", "Did you mean 'cleanup'?"),
        ("runs show 12345678", "No run '12345678' in sqlite:////"),
        ("explain nope", "No job 'nope' is declared or stored."),
        ("jobs pause", "Name one job, or give --all."),
        ("trigger cleanup --payload [1]", "a JSON array, not an object"),
        ("trigger cleanup --payload {}x", "is not JSON"),
        ("trigger nope", "No job 'nope' is declared."),
        ("trigger cleanup --delay soon", "'soon' is not a length of time."),
        ("simulate --from 2026-11-02 --to 2026-11-01", "is no stretch of time."),
        ("--app nowhere jobs", "There is no module 'nowhere'"),
    ],
)
def test_a_wrong_command_line_is_usage_and_told_in_two_lines(cli, words, message):
    said = cli(*words.split())
    assert (said.code, said.out) == (2, "")
    what, do = said.err.splitlines()
    assert what.startswith("error: ")
    assert message in what
    assert do.startswith("   do: ")
    as_json = cli("--json", *words.split())
    assert (as_json.code, as_json.err) == (2, "")
    error = as_json.json["error"]
    assert (error["message"], error["exit_code"]) == (what.removeprefix("error: "), 2)
    assert error["hint"] == do.removeprefix("   do: ")


def test_a_payload_that_does_not_fit_is_usage(cli):
    said = cli("trigger", "cleanup", "--payload", '{"days": "many"}')
    assert said.code == 2
    assert "refuses days='many'" in said.err


def test_a_mistyped_setting_is_told_with_its_suggestion(cli, monkeypatch):
    monkeypatch.setenv("JOBMANAGER_BAKEND", "local")
    said = cli("jobs")
    assert said.code == 2
    assert "JOBMANAGER_BAKEND is not a setting. Did you mean JOBMANAGER_BACKEND?" in said.err


def test_debug_adds_the_traceback(cli):
    said = cli("jobs", "show", "nope", "--debug")
    assert "Traceback (most recent call last)" in said.err
    assert said.err.splitlines()[-1].startswith("   do: ")


def test_what_nobody_expected_is_one_line_too(cli, monkeypatch):
    monkeypatch.setattr("jobmanager.manager.manager.JobManager.runs", lambda *_, **__: 1 / 0)
    said = cli("runs")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[0] == "error: ZeroDivisionError: division by zero"


def test_without_an_application_the_verbs_that_need_one_say_so(cli, monkeypatch):
    monkeypatch.delenv("JOBMANAGER_APP")
    for verb in ("jobs", "run", "trigger x", "explain x", "simulate"):
        said = cli(*verb.split())
        assert said.code == 2
        assert "No application is named." in said.err
    for verb in ("runs", "doctor", "version", "purge"):
        assert cli(*verb.split()).code == 0


def test_verbs_that_read_create_nothing(cli, tmp_path):
    for verb in (
        "jobs",
        "jobs show cleanup",
        "jobs next",
        "runs",
        "explain cleanup",
        "simulate",
        "doctor",
        "purge",
        "version",
    ):
        assert cli(*verb.split()).code == 0, verb
    assert cli("runs", "show", "12345678").code == 2
    assert cli("cancel", "12345678").code == 2
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".py"]


# ---------------------------------------------------------------- jobs


def test_jobs_list_shows_every_job(cli, run):
    run("cleanup")
    lines = cli("jobs", "list").out.splitlines()
    assert lines[0].split() == ["JOB", "SCHEDULE", "NEXT", "DUE", "LAST", "RUN", "TOOK", "STATE"]
    assert [line.split()[0] for line in lines[1:5]] == ["cleanup", "fails", "gated", "once-more"]
    assert "at 02:00 every day, Europe/Berlin" in lines[1]
    assert "succeeded" in lines[1]
    assert lines[3].endswith("disabled")
    assert "No living process keeps the time now" in lines[-1]
    assert not any(line.endswith(" ") for line in lines)


def test_jobs_list_says_when_nothing_would_fire_anyway(cli, monkeypatch):
    monkeypatch.setenv("JOBMANAGER_BACKEND", "noop")
    last = cli("jobs", "list").out.splitlines()[-1]
    assert last == "Nothing fires by itself: backend noop, because JOBMANAGER_BACKEND=noop."


def test_jobs_list_as_json(cli, run):
    ended = run("cleanup")
    records = {record["id"]: record for record in cli("jobs", "--json").json}
    cleanup = records["cleanup"]
    assert cleanup["name"] == "Clean up"
    assert cleanup["schedule"] == "cron 0 2 * * * in Europe/Berlin"
    assert (cleanup["state"], cleanup["stored"], cleanup["last_status"]) == ("active", True, "succeeded")
    assert cleanup["last_run"]["id"] == ended["id"]
    assert cleanup["next_run"].endswith(":00:00Z")
    assert (records["gated"]["state"], records["gated"]["state_reason"]) == ("disabled", "gate")
    assert records["fails"]["schedule"] is None


def test_jobs_show_tells_everything_but_secrets(cli, run):
    run("cleanup", "--payload", '{"days": 7}')
    told = cli("jobs", "show", "cleanup").out
    for words in ("Clean up", "at 02:00 every day, Europe/Berlin", "days: int = 30", '"days": 30', "up to 3 attempts, after 1 s, 5 s",
                  "5 min", "skip", "CET", "Last runs", '{"days": 7}'):  # fmt: skip
        assert words in told or words.replace("CET", "CEST") in told, words
    assert "s3cret" not in told
    record = cli("jobs", "show", "cleanup", "--json").json
    assert record["config"] == {"days": 30, "api_token": "[redacted]"}
    assert record["policies"]["retry"]["delays"] == [1, 5]
    assert (record["policies"]["overlap"], record["policies"]["timeout_seconds"]) == ("skip", 300)
    assert len(record["next_fires"]) == 5
    fire = record["next_fires"][0]
    assert fire["zone"] == "Europe/Berlin"
    assert datetime.fromisoformat(fire["in_zone"]) == datetime.fromisoformat(fire["utc"])
    assert fire["in_zone"][11:16] == "02:00"
    assert record["runs"][0]["output"] == {"days": 7}


def test_jobs_next_of_one_job_and_of_all(cli, monkeypatch):
    monkeypatch.setenv("WITH_GATED", "yes")
    mine = cli("jobs", "next", "cleanup", "-n", "3", "--json").json
    assert [record["job"] for record in mine] == ["cleanup"] * 3
    everybody = cli("jobs", "next", "-n", "4", "--json").json
    # At one of four minutes of the day "cleanup" comes, too.
    assert [record["job"] for record in everybody].count("gated") >= 3
    assert len(cli("jobs", "next", "cleanup").out.splitlines()) == 6
    assert "UTC" in cli("jobs", "next").out
    assert "Nothing is due" in cli("jobs", "next", "fails").out


def test_a_pause_is_remembered_and_ended(cli):
    said = cli("jobs", "pause", "cleanup", "--reason", "moving house")
    assert said.code == 0
    assert "paused cleanup since" in said.out
    assert ": moving house" in said.out
    record = cli("jobs", "show", "cleanup", "--json").json
    assert (record["state"], record["state_reason"], record["next_run"]) == ("paused", "moving house", None)
    assert record["state_by"]
    assert "moving house" in cli("jobs", "show", "cleanup").out
    assert "It is paused." in cli("jobs", "next", "cleanup").out

    resumed = cli("jobs", "resume", "cleanup", "--json").json
    assert (resumed["state"], resumed["state_reason"]) == ("active", None)
    assert resumed["next_run"]


def test_all_jobs_are_paused_and_resumed_but_those_that_are_off(cli):
    states = {record["id"]: record["state"] for record in cli("jobs", "pause", "--all", "--json").json}
    assert states == {"cleanup": "paused", "fails": "paused", "gated": "disabled", "once-more": "paused"}
    states = {record["id"]: record["state"] for record in cli("jobs", "resume", "--all", "--json").json}
    assert states == {"cleanup": "active", "fails": "active", "gated": "disabled", "once-more": "active"}


def test_a_disabled_job_is_neither_paused_nor_started(cli):
    for words in ("jobs pause gated", "trigger gated"):
        said = cli(*words.split())
        assert said.code == 3
        assert "disabled" in said.err


# ---------------------------------------------------------------- trigger and redrive


def test_a_trigger_leaves_the_run_to_others(cli):
    said = cli("trigger", "cleanup")
    assert said.code == 0
    first, second = said.out.splitlines()
    word, short, job = first.split()[-3:]
    assert (word, job, len(short)) == ("pending", "cleanup", 8)
    assert second.startswith("No living process executes this job")
    record = cli("runs", "show", short, "--json").json
    assert (record["status"], record["trigger"], record["requested_by"] is not None) == (
        "pending",
        "manual",
        True,
    )


def test_a_trigger_says_priority_attempts_and_delay_and_the_run_shows_them(cli):
    said = cli("trigger", "cleanup", "--priority", "7", "--max-attempts", "4", "--delay", "2h", "--json").json
    assert (said["priority"], said["max_attempts"], said["status"]) == (7, 4, "pending")
    shown = cli("runs", "show", said["id"]).out
    assert "0 of 4" in shown
    assert "priority" in shown
    assert "\ndue " in shown
    assert cli("trigger", "cleanup", "--max-attempts", "0").code == 2


def test_a_trigger_that_waits_executes_here(run):
    record = run("cleanup", "--payload", '{"days": 7}', "--key", "monday")
    assert (record["status"], record["output"], record["idempotency_key"]) == (
        "succeeded",
        {"days": 7},
        "monday",
    )
    again = run("cleanup", "--key", "monday")
    assert again["id"] == record["id"]


def test_a_failure_that_was_waited_for_is_exit_1(cli):
    said = cli("trigger", "fails", "--wait")
    assert said.code == 1
    assert "ValueError: it [is] broken" in said.out
    assert cli("trigger", "fails", "--wait", "--json").json["error"]["type"] == "ValueError"


def test_retries_are_waited_for(run):
    record = run("once-more")
    assert (record["status"], record["attempt"], record["output"]) == ("succeeded", 2, "sent")


def test_a_conflict_is_exit_3_and_names_the_active_run(cli):
    active = cli("trigger", "cleanup", "--json").json["id"]
    said = cli("trigger", "cleanup")
    assert said.code == 3
    assert active[-8:] in said.err
    assert active not in said.err
    error = cli("trigger", "cleanup", "--json")
    assert error.code == 3
    assert error.json["error"]["run_id"] == active


def test_a_delayed_run_says_when_it_is_due(cli):
    said = cli("trigger", "cleanup", "--delay", "2h")
    assert "It is due in 119 min" in said.out
    record = cli("runs", "--json").json[0]
    due = datetime.fromisoformat(record["due_at"])
    assert timedelta(minutes=119) < due - datetime.now(UTC) < timedelta(hours=2)


def test_waiting_longer_than_allowed_is_exit_1(cli):
    said = cli("trigger", "cleanup", "--delay", "1h", "--wait", "--timeout", "200ms")
    assert said.code == 1
    assert "has not ended within 0.2 s; it goes on." in said.err


def test_a_failed_run_is_redriven_here(cli, run):
    failed = run("fails")
    said = cli("redrive", failed["id"][-8:], "--wait", "--json")
    assert said.code == 1
    assert (said.json["id"], said.json["attempt"]) == (failed["id"], 2)
    record = cli("runs", "show", failed["id"], "--json").json
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["failed"]


def test_a_run_that_succeeded_is_not_redriven(cli, run):
    said = cli("redrive", run("cleanup")["id"])
    assert said.code == 3
    assert "cannot go from succeeded to pending" in said.err


def test_on_noop_a_trigger_runs_inline(cli, monkeypatch):
    monkeypatch.setenv("JOBMANAGER_BACKEND", "noop")
    assert cli("trigger", "cleanup", "--json").json["status"] == "succeeded"
    assert cli("trigger", "fails").code == 1


def test_while_the_switch_is_set_a_trigger_starts_nothing(cli, monkeypatch):
    """Fails if the command runs a handler although nothing is to run."""
    monkeypatch.setenv("JOBMANAGER_DISABLED", "true")
    said = cli("trigger", "cleanup", "--wait")
    assert said.code == 3
    assert "JOBMANAGER_DISABLED=true" in said.err
    assert cli("runs", "list", "--json").json == []


# ---------------------------------------------------------------- runs, logs, cancel


def test_runs_are_listed_newest_first_and_filtered(cli, run):
    first, second, third = run("cleanup"), run("fails"), run("cleanup")
    lines = cli("runs").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [record["id"][-8:] for record in (third, second, first)]
    assert "ValueError: it [is] broken" in lines[2]
    assert '{"days": 30}' in lines[1]

    def ids(*arguments):
        return [record["id"] for record in cli("runs", "list", "--json", *arguments).json]

    assert ids("--job", "cleanup") == [third["id"], first["id"]]
    assert ids("--status", "failed") == [second["id"]]
    assert ids("--status", "failed", "--status", "succeeded", "--limit", "2") == [third["id"], second["id"]]
    assert ids("--before", second["id"][-8:]) == [first["id"]]
    assert (
        "No such run is on record" in cli("runs", "--job", "gated").out
        or cli("runs", "list", "--job", "gated").code == 0
    )


def test_runs_are_chosen_by_moment_scope_trigger_and_text(cli, run):
    """Fails if a filter lets another run pass, or hides one that fits."""
    of_ana = run("cleanup", "--scope", "ana")
    failed = run("fails", "--key", "K-17")
    cli("backfill", "cleanup", "--from", "-2d")

    def ids(*arguments):
        return [record["id"] for record in cli("runs", "list", "--json", *arguments).json]

    assert ids("--scope", "ana") == [of_ana["id"]]
    assert ids("--text", "it [is] BROKEN") == ids("--text", "k-17") == [failed["id"]]
    assert set(ids("--trigger", "manual")) == {of_ana["id"], failed["id"]}
    assert ids("--trigger", "manual", "--job", "cleanup", "--since", "-1h") == [of_ana["id"]]
    assert len(ids("--trigger", "backfill")) == len(ids()) - 2 > 0
    assert ids("--since", "+1h") == ids("--scope", "bob") == []
    assert ids("--trigger", "manual", "--limit", "1") == [failed["id"]]
    assert "'sun' is no trigger." in cli("runs", "list", "--trigger", "sun").err


def test_a_filter_says_that_it_looked_at_the_newest_runs_only(cli, run, monkeypatch):
    """Fails if an empty answer looks as if all of history had been read."""
    from jobmanager.cli.commands import runs

    for _ in range(3):
        run("cleanup")
    monkeypatch.setattr(runs, "PAGE", 1)
    monkeypatch.setattr(runs, "MOST_LOOKED_AT", 2)
    assert "Only the newest 2 runs were looked at." in cli("runs", "list", "--scope", "ana").err
    assert cli("runs", "list", "--scope", "ana", "--since", "+1h").err == ""


def test_watched_runs_are_told_when_they_come_and_when_they_change(cli, run, application):
    """Fails if a new run, or the end of one that was shown, is not printed before Ctrl-C."""
    run("cleanup")
    watching = subprocess.Popen(
        [sys.executable, "-m", "jobmanager", "runs", "list", "--watch", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with watching:
        first = json.loads(watching.stdout.readline())
        pending = cli("trigger", "fails", "--json").json
        second = json.loads(watching.stdout.readline())
        cli("cancel", pending["id"])
        third = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
    assert [(told["job"], told["status"]) for told in (first, second, third)] == [
        ("cleanup", "succeeded"),
        ("fails", "pending"),
        ("fails", "cancelled"),
    ]
    assert watching.returncode == 130


def test_a_mistyped_job_is_no_empty_list(cli):
    assert cli("runs", "list", "--job", "cleanap").code == 2


def test_a_run_is_shown_whole(cli, run):
    record = run("once-more")
    told = cli("runs", "show", record["id"][-8:].upper()).out
    for words in (record["id"], "Timeline", "opened", "started", "finished", "EST", "UTC", "Attempt 1", "ConnectionError: hung up",
                  "attempt 1", "attempt 2", '"sent"', "2 of 2"):  # fmt: skip
        assert words in told or words.replace("EST", "EDT") in told, words
    shown = cli("runs", "show", record["id"], "--json").json
    assert [attempt["error"]["message"] for attempt in shown["attempts"]] == ["hung up"]
    assert [(line["attempt"], line["level"], line["text"]) for line in shown["lines"]] == [
        (1, "WARNING", "attempt 1"),
        (2, "WARNING", "attempt 2"),
    ]
    assert shown["duration_seconds"] >= 0


def test_the_traceback_of_a_failure_is_shown(cli, run):
    told = cli("runs", "show", run("fails")["id"]).out
    assert "Traceback (most recent call last):" in told
    assert 'raise ValueError("it [is] broken")' in told


def test_logs_are_told_by_attempt(cli, run):
    record = run("once-more")
    lines = cli("logs", record["id"][-8:], "-f").out.splitlines()
    assert [line.partition(" ")[2].split(maxsplit=1)[-1] for line in lines if "---" not in line] == [
        "attempt 1",
        "attempt 2",
    ]
    assert lines[1] == "--- attempt 2 ---"
    assert [json.loads(line)["attempt"] for line in cli("logs", record["id"], "--json").out.splitlines()] == [
        1,
        2,
    ]
    assert "It logged nothing." in cli("logs", run("fails")["id"]).err


def test_a_pending_run_is_cancelled_at_once(cli):
    pending = cli("trigger", "cleanup", "--json").json["id"]
    assert cli("cancel", pending[-8:]).out == f"Run {pending[-8:]} of cleanup is cancelled.\n"
    assert cli("cancel", pending, "--json").json["status"] == "cancelled"


def test_what_has_ended_cannot_be_cancelled(cli, run):
    said = cli("cancel", run("cleanup")["id"])
    assert said.code == 3
    assert "has already ended: succeeded." in said.err


# ---------------------------------------------------------------- explain and simulate


def test_explain_names_the_cause_first(cli):
    cli("jobs", "pause", "cleanup", "--reason", "moving house")
    explanations = cli("explain", "cleanup", "--json").json["explanations"]
    assert explanations[-1]["cause"] == "paused"
    told = cli("explain", "cleanup", "--at", "tomorrow").out.splitlines()
    assert "will not run" in told[0]
    assert "is no instant of its schedule" in told[1]
    assert "moving house" in cli("explain", "cleanup").out


def test_explain_of_a_moment(cli, run):
    [explained] = cli("explain", "cleanup", "--at", "2026-01-01T01:00Z", "--json").json["explanations"]
    assert (explained["verdict"], explained["cause"]) == ("did_not_run", "never_started")
    run("cleanup")
    [explained] = cli("explain", "cleanup", "--at", "2026-01-01T01:00Z", "--json").json["explanations"]
    assert explained["cause"] == "before_history"
    assert explained["before"] == "2025-12-31T01:00:00Z"
    assert explained["after"] == "2026-01-02T01:00:00Z"


def test_simulate_lists_what_would_fire(cli, monkeypatch):
    monkeypatch.setenv("WITH_GATED", "1")
    found = cli(
        "simulate", "--from", "2026-03-28T12:00Z", "--to", "2026-03-30T12:00Z", "--job", "cleanup", "--json"
    ).json
    assert [record["scheduled_for"] for record in found] == ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]
    assert all(record["fires"] for record in found)
    limited = cli("simulate", "--to", "+7d", "--limit", "5")
    assert len(limited.out.partition("\n\n")[0].splitlines()) == 1 + 5
    assert "More than 5; --limit shows more." in limited.err


def test_simulate_says_why_nothing_fires(cli):
    found = cli("simulate", "--to", "+2m", "--job", "gated", "--json").json
    assert [(record["fires"], record["why"]) for record in found] == [(False, "disabled: gate")] * 2


# ---------------------------------------------------------------- doctor, purge, version


def test_doctor_of_a_fresh_application_says_that_nothing_fires_yet(cli):
    said = cli("doctor", "--json")
    assert said.code == 0
    assert said.json["ok"] is True
    assert {finding["level"] for finding in said.json["findings"]} == {"ok", "note"}
    [note] = [finding for finding in said.json["findings"] if finding["check"] == "processes"]
    assert note["text"] == "no process has been started yet: nothing fires"
    assert "`jobmanager run`" in note["fix"]


def test_doctor_looks_at_the_application_of_the_folder(cli, application, monkeypatch, tmp_path):
    monkeypatch.delenv("JOBMANAGER_APP")
    (tmp_path / f"{application}.py").rename(tmp_path / "jobs.py")
    said = cli("doctor")
    assert "jobs can be imported" in said.out
    assert "note: the application is jobs, found in jobs.py of this folder" in said.err


def test_a_job_that_fires_often_is_one_line_of_the_simulation(cli, monkeypatch):
    """Fails if one job of many instants leaves no room for the others, or if two of them are too much."""
    monkeypatch.setenv("WITH_GATED", "1")
    said = cli("simulate", "--from", "2027-01-01T00:00Z", "--to", "2027-01-02T00:00Z")
    [gated] = [line for line in said.out.splitlines() if " gated " in line]
    assert "every minute: 1,440 times, the last at 1 Jan 19:00:00 EST" in gated.replace(
        "2027-01-01 19", "1 Jan 19"
    )
    assert " cleanup " in said.out
    assert "1,441 fires" in said.out
    each = cli("simulate", "--from", "2027-01-01T00:00Z", "--to", "2027-01-01T01:00Z", "--job", "gated")
    assert each.out.count(" gated ") == 60


def test_doctor_exits_1_and_names_the_fix(cli):
    cli("trigger", "cleanup")
    said = cli("doctor")
    assert said.code == 1
    assert "No process lives: nothing fires." in said.out
    assert "do: Start one: `jobmanager run`" in said.out


def test_doctor_survives_an_application_that_cannot_be_imported(cli, application):
    Path(f"{application}.py").write_text("import nothing_of_that_name\n")
    said = cli("doctor", "--json")
    assert said.code == 1
    [failing] = [finding for finding in said.json["findings"] if finding["level"] == "failing"]
    assert failing["check"] == "application"
    assert "Install nothing_of_that_name" in failing["fix"]


def test_doctor_sends_nobody_to_the_doctor(cli, monkeypatch):
    monkeypatch.setenv("JOBMANAGER_BACKEND", "celery")
    said = cli("doctor", "--json")
    assert said.code == 1
    [failing] = [finding for finding in said.json["findings"] if finding["level"] == "failing"]
    assert failing["text"] == "JOBMANAGER_BACKEND=celery needs JOBMANAGER_CELERY_BROKER_URL."
    assert failing["fix"] == "Correct that, then ask again."


def test_purge_deletes_what_is_old(cli, run, tmp_path):
    record = run("cleanup")
    assert (
        cli("purge").out
        == "0 runs deleted that retention no longer keeps (30 d, failed and missed ones 90 d).\n"
    )
    long_ago = datetime.now(UTC) - timedelta(days=91)
    with closing(sqlite3.connect(tmp_path / "jobmanager.db", isolation_level=None)) as database:
        old = (new_id(long_ago), int(long_ago.timestamp() * 1_000_000))
        database.execute("UPDATE jobmanager_runs SET id = ?, finished_at = ?", old)
    assert cli("purge", "--older-than", "92d", "--json").json["deleted"] == 0
    assert cli("purge", "--job", "fails", "--json").json["deleted"] == 0
    assert cli("purge", "--json").json["deleted"] == 1
    assert cli("runs", "show", record["id"]).code == 2


def test_version(cli):
    assert cli("version").out.startswith("jobmanager 0.")
    assert cli("--version").out == cli("version").out
    assert set(cli("version", "--json").json) == {"jobmanager", "python", "sqlite"}


# ---------------------------------------------------------------- how wide it is


@pytest.mark.parametrize(
    "columns", [40, 80, *(pytest.param(columns, marks=pytest.mark.slow) for columns in (60, 100, 200))]
)
def test_no_line_is_wider_than_the_terminal(run, capsys, monkeypatch, columns):
    record = run("fails")
    for name, value in (
        ("FORCE_COLOR", "1"),
        ("TERM", "xterm-256color"),
        ("COLUMNS", str(columns)),
        ("WITH_GATED", "1"),
    ):
        monkeypatch.setenv(name, value)
    for words in ("jobs", "jobs next", "jobs show cleanup", "runs", f"runs show {record['id']}", "explain cleanup", "doctor",
                  "simulate --to +5m", "jobs pause cleanup"):  # fmt: skip
        main(words.split())
        captured = capsys.readouterr()
        assert "\x1b[" in captured.out
        lines = re.sub(r"\x1b\[[0-9;]*m", "", captured.out).splitlines()
        assert max(map(len, lines)) <= columns, (words, captured.out)


# ---------------------------------------------------------------- a store in trouble


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_is_told(cli, tmp_path):
    cli("trigger", "cleanup")
    (tmp_path / "jobmanager.db").chmod(0o444)
    said = cli("trigger", "fails")
    assert said.code == 1
    assert "read-only" in said.err


def test_a_file_that_is_no_database_is_told(cli, tmp_path):
    (tmp_path / "jobmanager.db").write_text(
        "this is not a database, and longer than a page header needs to be" * 20
    )
    for words in ("runs", "jobs", "trigger cleanup"):
        said = cli(*words.split())
        assert (said.code, said.out) == (1, ""), words
        assert "not a database" in said.err
    assert cli("doctor").code == 1


def test_the_application_is_not_started_by_the_command_line(application):
    assert load(application).started is False
