"""Commands of a crontab, brought over and executed."""

import subprocess

import pytest
from tests.unit.bridge.test_crontab import bring, jobs_of, one


def said_by(brought, capfd):
    registry = jobs_of(brought)
    registry.handler(brought.job_id).function()
    return capfd.readouterr().out


def test_a_line_becomes_a_job_that_runs_its_command(capfd):
    brought = one("0 12 * * MON-FRI echo hello 'big world'")

    job = jobs_of(brought).job("echo")
    assert brought.unchanged
    assert job.schedule.text == "cron 0 12 * * MON-FRI in Europe/Berlin"
    assert (job.overlap, job.catch_up) == ("allow", "none")
    assert said_by(brought, capfd) == "hello big world\n"


def test_what_follows_a_percent_sign_is_input_and_an_escaped_one_is_itself(capfd):
    assert (
        said_by(one(r"0 12 * * * cat; date -d 2026-01-01 +\%Y%one%two \% three"), capfd)
        == "one\ntwo % three\n2026\n"
    )


def test_variables_reach_the_lines_after_them(capfd):
    first, second = bring(
        '0 1 * * * echo "[$GREETING]"\nGREETING = "hello  there"\n0 2 * * * echo "[$GREETING]"'
    )[1:]

    assert said_by(first, capfd) == "[]\n"
    assert said_by(second, capfd) == "[hello  there]\n"


def test_the_shell_is_the_one_that_is_named(capfd):
    assert said_by(one('SHELL=/bin/bash\n0 1 * * * echo "${BASH_VERSION:+bash}"'), capfd) == "bash\n"
    assert "executable" not in one("SHELL=/bin/sh\n0 1 * * * echo").source


def test_a_command_that_fails_fails_the_run():
    brought = one("0 12 * * * exit 3")

    with pytest.raises(subprocess.CalledProcessError):
        jobs_of(brought).handler(brought.job_id).function()
