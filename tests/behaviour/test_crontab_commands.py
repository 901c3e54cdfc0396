"""Commands of a crontab, brought over and executed."""

from tests.unit.bridge.test_crontab import bring, jobs_of, manager_of, one


def ended(brought):
    """The run of a brought job, and the lines of its log."""
    jobs = manager_of(brought)
    run = jobs.wait(jobs.trigger_job(brought.job_id).id, 60)
    try:
        return run, [line.text for _, _, line in jobs.store.history.lines(run.id)]
    finally:
        jobs.stop()


def said_by(brought):
    run, lines = ended(brought)
    assert run.status == "succeeded", run.error
    return "".join(f"{line}\n" for line in lines)


def test_a_line_becomes_a_job_that_runs_its_command():
    brought = one("0 12 * * MON-FRI echo hello 'big world'")

    job = jobs_of(brought).job("echo")
    assert brought.unchanged
    assert job.schedule.text == "cron 0 12 * * MON-FRI in Europe/Berlin"
    assert (job.overlap, job.catch_up) == ("allow", "none")
    assert said_by(brought) == "hello big world\n"


def test_what_follows_a_percent_sign_is_input_and_an_escaped_one_is_itself():
    assert (
        said_by(one(r"0 12 * * * cat; date -d 2026-01-01 +\%Y%one%two \% three"))
        == "one\ntwo % three\n2026\n"
    )


def test_variables_reach_the_lines_after_them():
    first, second = bring(
        '0 1 * * * echo "[$GREETING]"\nGREETING = "hello  there"\n0 2 * * * echo "[$GREETING]"'
    )[1:]

    assert said_by(first) == "[]\n"
    assert said_by(second) == "[hello  there]\n"


def test_the_shell_is_the_one_that_is_named():
    assert said_by(one('SHELL=/bin/bash\n0 1 * * * echo "${BASH_VERSION:+bash}"')) == "bash\n"
    assert "executable" not in one("SHELL=/bin/sh\n0 1 * * * echo").source


def test_a_command_that_fails_fails_the_run_and_leaves_what_it_said_in_the_log():
    """Fails if what a command prints, also to standard error, is lost with the run that would need it."""
    run, lines = ended(one("0 12 * * * echo begun; echo no space >&2; exit 3"))

    assert (run.status, run.error.type) == ("failed", "CalledProcessError")
    assert lines == ["begun", "no space"]


def test_a_command_reads_nothing_unless_the_line_gives_it():
    """Fails if a command waits for the standard input of the process."""
    assert said_by(one("0 12 * * * cat; echo over")) == "over\n"
