"""Crontab texts as jobs that run their commands, and a remark where the meaning changes."""

import os
import subprocess
import tempfile
from datetime import UTC, datetime
from typing import Any

import pytest

from jobmanager import JobManager, RunContext, Settings
from jobmanager.bridge import crontab

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def bring(text, **options):
    return crontab.bring(text, NOW, **{"zone": "Europe/Berlin", **options})


def one(line, **options):
    return bring(line, **options)[-1]


def told(brought):
    return "\n".join(f"{remark.mark}: {remark.text}" for remark in brought.remarks)


def jobs_of(*brought):
    return manager_of(*brought).registry


def manager_of(*brought):
    """A manager with the jobs whose source we printed, as it is pasted."""
    jobs = JobManager(Settings(backend="noop", database_url="memory://"))
    program = {
        "jobs": jobs,
        "os": os,
        "subprocess": subprocess,
        "tempfile": tempfile,
        "Any": Any,
        "RunContext": RunContext,
    }
    for source in (crontab.RUN_COMMAND, *(item.source for item in brought)):
        exec(source, program)  # noqa: S102 - what we printed is what is pasted
    return jobs


def test_cron_tz_is_the_zone_of_the_lines_after_it():
    before, after = bring("0 1 * * * one\nCRON_TZ=Asia/Tokyo\n0 1 * * * two")[1:]

    assert jobs_of(before).job("one").schedule.timezone == "Europe/Berlin"
    assert jobs_of(after).job("two").schedule.timezone == "Asia/Tokyo"


def test_tz_is_flagged_because_it_moves_no_instant():
    brought = one("TZ=Asia/Tokyo\n0 1 * * * one")

    assert "manual: TZ=Asia/Tokyo reaches the command only" in told(brought)
    assert 'timezone="Europe/Berlin"' in brought.source
    assert '"TZ": "Asia/Tokyo"' in brought.source


def test_a_zone_that_nobody_names_is_flagged_once():
    whole, job = bring("0 1 * * * one", zone=None)

    assert "manual: the file does not say its zone" in told(whole)
    assert job.unchanged
    assert "does not say its zone" not in told(bring("0 1 * * * one")[0])
    assert "does not say its zone" not in told(bring("CRON_TZ=UTC\n0 1 * * * one", zone=None)[0])


def test_a_zone_that_is_named_too_late_is_flagged():
    assert "does not say its zone" in told(bring("0 1 * * * one\nCRON_TZ=UTC\n0 1 * * * two", zone=None)[0])


def test_environment_and_mail_are_flagged_for_the_file():
    whole, mail, _ = bring("MAILTO=ops@example.org\n0 1 * * * one")

    assert "manual: cron runs a command in the user's home" in told(whole)
    assert "manual: cron mails what it prints" in told(whole)
    assert "mail to ops@example.org is not sent" in told(mail)
    assert len(bring('MAILTO=""\n0 1 * * * one')) == 2


def test_comments_and_empty_lines_are_nothing():
    assert bring("# 0 1 * * * one\n\n   # more\n") == []


@pytest.mark.parametrize(
    "alias", ["@daily", "@Midnight", "@hourly", "@weekly", "@monthly", "@yearly", "@annually"]
)
def test_aliases_stay(alias):
    assert f'cron="{alias}"' in one(f"{alias} /bin/one").source


def test_a_restart_is_no_instant():
    brought = one("@reboot /bin/one")

    assert (brought.source, brought.unchanged) == ("", False)
    assert "no job is bound to a restart" in told(brought)


def test_the_user_of_a_system_crontab_is_flagged():
    brought = one("0 1 * * * root /bin/one --all", system=True)
    alias = one("@daily www-data /bin/two", system=True)

    assert '"/bin/one --all"' in brought.source
    assert "manual: it ran as root" in told(brought)
    assert "manual: it ran as www-data" in told(alias)
    assert '"/bin/two"' in alias.source


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 9 * * MON#1 one", "cron reads MON#1 as every such weekday"),
        ("5/15 * * * * one", "cron refuses 5/15"),
        ("0 9 L * * one", "cron does not know L"),
        ("0 9 * * FRIL one", "cron does not know FRIL"),
        ("0 9 * * fri-sun one", "cron never fires for FRI-SUN"),
        ("0,30 2 * * * one", "on 2026-03-29 cron starts it 2 times at once"),
        ("0 2,3 * * * one", "on 2026-03-29 cron starts it 2 times at once"),
    ],
)
def test_what_means_something_else_to_cron_is_flagged(line, says):
    brought = one(line)

    assert f"changed: {says}" in told(brought)
    assert brought.source


@pytest.mark.parametrize(
    "line",
    [
        "30 2 * * *",
        "*/15 2 * * *",
        "10-50/10 9 * * *",
        "*/5 */2 1,15 * *",
        "0 9 * * 7",
        "0 9 13 * 5",
        "0 9 * * 5-7",
    ],
)
def test_what_cron_means_too_is_unchanged(line):
    assert one(f"{line} /bin/one").remarks == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("61 * * * * one", "'61' (in field minute"),
        ("0 22-2 * * * one", "Write 22-23,0-2"),
        ("0 0 30 2 * one", "never matches a date"),
        ("0~30 * * * * one", "Random ranges are not supported"),
        ("@never one", "is not an alias"),
        ("CRON_TZ=Berlin\n0 1 * * * one", "Did you mean Europe/Berlin?"),
        ("0 9 * * *", "it has no command"),
        ("garbage", "it has no command"),
        ("@daily", "it has no command"),
    ],
)
def test_what_is_no_line_says_why(line, says):
    brought = one(line)

    assert brought.source == ""
    assert says in told(brought)


@pytest.mark.parametrize(
    ("command", "job_id"),
    [
        ("/usr/local/bin/backup.sh --full", "backup"),
        ("cd /srv/shop && nice -n 10 python3 manage.py clearsessions >/dev/null 2>&1", "clearsessions"),
        ("LANG=C flock /tmp/lock /usr/bin/rsync -a a b", "rsync"),
        ("[ -x /bin/x ] || exit 1; sync", "sync"),
        ("%", "command"),
    ],
)
def test_a_job_is_named_by_its_program(command, job_id):
    assert one(f"0 1 * * * {command}").job_id == job_id


def test_names_differ_and_shadow_nothing():
    first, second, third = bring("0 1 * * * jobs\n0 2 * * * jobs\n0 3 * * * os")[1:]

    assert list(jobs_of(first, second, third).jobs) == ["jobs", "jobs-2", "os"]
    assert "def run_jobs_2(" in second.source
    compile(third.source, "third", "exec")


def test_this_machine_s_zone_is_a_name():
    assert crontab.Cron("* * * * *", crontab.machine_zone())
