"""isolation="process": the handler runs in a child of its own, talks to its run, and can be killed; this process lives."""

import os
import re
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from jobmanager import JobManager, Retry, RunStatus, Settings
from jobmanager.errors import ConfigurationError, MissingExtraError, PayloadError, UnsupportedError
from jobmanager.execution import child_process as isolation
from jobmanager.execution import supervisor as watch
from jobmanager.execution.child_main import is_child
from jobmanager.execution.supervisor import Liveness
from jobmanager.testing import FakeClock

pytest.importorskip("pebble")

HERE = Path(__file__).parent
SUCCEEDED, FAILED, CANCELLED, PENDING = (
    RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.PENDING,
)  # fmt: skip


@pytest.fixture(autouse=True)
def child_finds_the_handlers(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    # A spawned child imports the main module again; pytest would cost each of them 0.2 s.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))


@pytest.fixture
def jobs(tmp_path):
    manager = JobManager(Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db"))
    yield manager
    manager.stop(drain=0)


def run_of(jobs, name, payload=None, *, start=True, **policies):
    jobs.add_job(name.replace("_", "-"), f"isolated_handlers:{name}", isolation="process", **policies)
    if start:
        jobs.start()
    return jobs.trigger_job(name.replace("_", "-"), payload)


def ended(jobs, name, payload=None, **policies):
    return jobs.wait(run_of(jobs, name, payload, **policies).id, 20)


def lines_of(jobs, run):
    return [line.text for _, _, line in jobs.store.history.lines(run.id)]


def pid_of(jobs, run, seconds=30):
    """The child's own word for it, which must reach the record while it runs."""
    return wait_for(
        lambda: next(
            (int(found[1]) for text in lines_of(jobs, run) if (found := re.match(r"pid (\d+)", text))), None
        ),
        seconds,
    )


def wait_for(answer, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := answer():
            return found
        time.sleep(0.02)
    raise AssertionError("did not come true in time")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(watch, "TIMEOUT_GRACE", timedelta(seconds=0.2))


@pytest.fixture
def quick_flush(monkeypatch):
    monkeypatch.setattr("jobmanager.manager.assembly.FLUSH_LINES_EVERY", timedelta(seconds=0.1))


# ---------------------------------------------------------------- what the handler has and gives


def test_the_handler_runs_in_another_process_and_has_the_same_context(jobs):
    run = ended(jobs, "face", {"days": "7"}, config={"since": "monday"}, every=3600)

    assert (run.status, run.error) == (SUCCEEDED, None)
    assert run.output["pid"] != os.getpid()
    wait_for(lambda: not alive(run.output["pid"]), 5)
    assert run.output["job"] == "face"
    assert run.output["run_id"] == run.output["key"] == run.id
    assert run.output["attempt"] == 1
    assert run.output["config"] == {"since": "monday"}
    assert run.output["payload"] == {"days": "7"}
    assert run.output["days"] == 7
    assert run.output["lease_ok"] is True
    assert run.output["previous"] != "None"
    assert abs(datetime.fromisoformat(run.output["started_at"]) - run.started_at) < timedelta(seconds=1)
    assert (run.progress.processed, run.progress.total, run.progress.message) == (3, 4, "nearly")
    assert "to the context" in lines_of(jobs, run)


def test_a_child_has_no_store_to_do_something_once_by(jobs):
    run = ended(jobs, "asks_once")
    assert (run.error.type, run.status) == ("UnsupportedError", "failed")
    assert "Use isolation='thread'" in run.error.message


def test_a_coroutine_function_is_awaited_in_the_child(jobs):
    assert ended(jobs, "coroutine").output == "awaited"


@pytest.mark.parametrize("name", ["pid", "coroutine"])
def test_what_surrounds_attempts_does_so_in_the_child(tmp_path, name):
    """Fails if an around is entered in the parent, or not at all."""
    from isolated_handlers import surrounds, surrounds_async

    settings = Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db")
    with JobManager(settings, around=[surrounds, surrounds_async]) as jobs:
        run = ended(jobs, name)
        lines = lines_of(jobs, run)
        jobs.stop(drain=0)

    assert run.status is SUCCEEDED, run.error
    pid = lines[0].removeprefix("in ")
    assert int(pid) != os.getpid()
    assert lines == [f"in {pid}", f"in {pid}", f"out {pid}", f"out {pid}"]
    assert run.output == (int(pid) if name == "pid" else "awaited")


def test_what_surrounds_attempts_and_cannot_be_read_there_is_on_record(tmp_path):
    from isolated_handlers import Unreadable

    settings = Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db")
    with JobManager(settings, around=[Unreadable()]) as jobs:
        run = ended(jobs, "pid")
        jobs.stop(drain=0)

    assert (run.status, run.error.kind) == (FAILED, "exception")
    assert "no number" in run.error.message


def test_a_function_is_found_by_its_name(jobs):
    import isolated_handlers

    jobs.add_job("work", isolated_handlers.coroutine, isolation="process")
    jobs.start()

    assert jobs.wait(jobs.trigger_job("work").id, 20).output == "awaited"


def test_a_child_is_a_fresh_process_and_no_fork_of_one_with_threads(jobs, monkeypatch):
    import isolated_handlers

    monkeypatch.setattr(isolated_handlers, "MARK", "changed here")

    assert ended(jobs, "mark").output == "as imported"


def test_loggers_log_in_the_child_what_they_would_log_here(jobs, caplog):
    caplog.set_level("INFO", logger="isolated_handlers")

    run = ended(jobs, "face")

    assert lines_of(jobs, run) == ["from a logger", "to the context"]


@pytest.mark.slow
def test_what_the_handler_prints_is_not_lost(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import test_isolation; test_isolation.print_in_a_child()"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )  # fmt: skip

    assert done.stdout == "said by the child\nwithout a newline", done.stderr


def print_in_a_child():
    jobs = JobManager(Settings(backend="local", database_url="memory://"))
    ended(jobs, "prints")
    jobs.stop()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text", {"clipped": "more than 64 KiB of JSON", "start": '"' + "x" * 32667}),
        ("object", "not_json"),
        ("set", "not_json"),
        ("tuple", [1, [2, 3]]),
    ],
)
def test_any_output_reaches_the_record(jobs, kind, expected):
    run = ended(jobs, "large", {"kind": kind})

    assert run.status is SUCCEEDED
    assert run.output == expected or expected in run.output


@pytest.mark.slow
def test_a_flood_of_lines_is_cut(jobs):
    run = ended(jobs, "talks", {"count": 5000})

    lines = lines_of(jobs, run)
    assert (len(lines), lines[0], lines[999]) == (1001, "line 0", "line 999")
    assert "log cut here" in lines[1000]


# ---------------------------------------------------------------- how it fails


def test_an_exception_comes_back_with_its_traceback(jobs):
    run = ended(jobs, "refuses")

    assert (run.status, run.error.kind, run.error.type) == (FAILED, "exception", "RefusedError")
    assert run.error.message == "this and that"
    assert 'raise RefusedError("this", "that")' in run.error.traceback
    assert "child_main.py" not in run.error.traceback


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "status", "attempts"), [("later", FAILED, 2), ("cancel", CANCELLED, 1), ("never", FAILED, 1)]
)
def test_the_handler_steers_its_run(jobs, word, status, attempts):
    run = ended(jobs, "steered", {"word": word}, retry=Retry(max_attempts=2, base=0))

    assert (run.status, run.attempt) == (status, attempts)


def test_retry_on_knows_the_exceptions_of_the_child(jobs):
    run = ended(jobs, "refuses", retry=Retry(max_attempts=3, base=0, retry_on=(ZeroDivisionError,)))

    assert (run.status, run.attempt) == (FAILED, 1)


def test_what_does_not_fit_the_handler_is_payload_invalid(jobs):
    run = ended(jobs, "hungry", {"mib": "much"})

    assert (run.status, run.error.kind) == (FAILED, "payload_invalid")


def test_a_handler_that_is_not_there_is_handler_missing(jobs):
    run = ended(jobs, "nobody")

    assert (run.status, run.error.kind) == (FAILED, "handler_missing")


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "exit code 7"), ("segfault", "SIGSEGV"), ("kill", "SIGKILL")]
)
def test_a_child_that_dies_ends_its_attempt_as_crashed(jobs, how, said):
    run = ended(jobs, "dies", {"how": how}, retry=Retry(max_attempts=3, on_crash=False))

    assert (run.status, run.attempt, run.error.kind) == (FAILED, 1, "crashed")
    assert said in run.error.message
    assert lines_of(jobs, run) == ["last words"]


@pytest.mark.slow
def test_a_poison_job_stops_at_its_last_attempt_and_the_host_lives(jobs):
    jobs.add_job("next", "isolated_handlers:coroutine", isolation="process")
    run = ended(jobs, "dies", {"how": "exit"}, retry=Retry(max_attempts=2))

    assert (run.status, run.attempt) == (FAILED, 2)
    assert [attempt.error.kind for attempt in jobs.store.history.attempts(run.id)] == ["crashed"]
    assert jobs.wait(jobs.trigger_job("next").id, 20).status is SUCCEEDED


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
def test_a_child_may_take_no_more_than_its_memory_limit(jobs):
    jobs.add_job("enough", "isolated_handlers:hungry", isolation="process", memory_limit=200)
    run = ended(jobs, "hungry", {"mib": 400}, memory_limit=200)
    fits = jobs.trigger_job("enough", {"mib": 100})

    assert (run.status, run.error.kind, run.error.type) == (FAILED, "exception", "MemoryError")
    assert jobs.wait(fits.id, 20).output == 100 * 1024 * 1024


# ---------------------------------------------------------------- how it is ended


@pytest.mark.usefixtures("short_grace", "quick_flush")
@pytest.mark.parametrize("name", ["deaf", "holds_the_interpreter"])
def test_a_handler_that_ignores_its_timeout_is_killed(jobs, name):
    run = run_of(jobs, name, timeout=3)  # a busy machine takes a second or two for the start of a child
    pid = pid_of(jobs, run)

    run = jobs.wait(run.id, 20)

    assert (run.status, run.error.kind) == (FAILED, "timeout")
    assert not alive(pid)
    assert run.duration < timedelta(seconds=15)


@pytest.mark.usefixtures("short_grace")
def test_an_attempt_that_timed_out_may_be_tried_again(jobs):
    run = ended(jobs, "deaf", timeout=0.3, retry=Retry(max_attempts=2, base=0))

    assert (run.attempt, run.error.kind) == (2, "timeout")


@pytest.mark.usefixtures("short_grace")
def test_a_cancelled_handler_that_does_not_look_is_killed_at_its_timeout(jobs):
    run = run_of(jobs, "deaf", timeout=1)
    jobs.cancel(run.id)

    after = jobs.wait(run.id, 20)
    assert (after.status, after.error.kind) == (FAILED, "timeout")  # whatever was asked before


def test_a_handler_that_looks_ends_by_itself_at_its_timeout(jobs):
    started = time.monotonic()
    run = ended(jobs, "until_cancelled", timeout=0.5)

    assert (run.status, run.error.kind) == (FAILED, "timeout")
    assert time.monotonic() - started < watch.TIMEOUT_GRACE.total_seconds()


@pytest.mark.usefixtures("quick_flush")
def test_a_cancel_request_reaches_the_child(jobs):
    run = run_of(jobs, "until_cancelled")
    pid_of(jobs, run)

    jobs.cancel(run.id)

    assert jobs.wait(run.id, 20).status is CANCELLED


@pytest.mark.slow
@pytest.mark.usefixtures("quick_flush")
def test_a_stop_asks_the_child_to_end_and_waits_for_it(jobs):
    run = run_of(jobs, "until_cancelled", retry=Retry(max_attempts=2))
    pid = pid_of(jobs, run)

    jobs.stop(drain=10)

    assert (jobs.run(run.id).status, jobs.store.history.attempts(run.id)[0].error.kind) == (
        PENDING,
        "shutdown",
    )
    assert not alive(pid)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_flush")
def test_a_child_that_outlives_the_drain_is_killed(jobs):
    run = run_of(jobs, "deaf")
    pid = pid_of(jobs, run)

    jobs.stop(drain=0.2)

    run = jobs.run(run.id)
    assert (run.status, run.error.kind) == (FAILED, "shutdown")
    wait_for(lambda: not alive(pid), 2)


@pytest.mark.usefixtures("quick_flush")
def test_a_child_is_killed_when_its_host_was_declared_dead(jobs):
    run = run_of(jobs, "deaf")
    pid = pid_of(jobs, run)

    Liveness(jobs._assembly.failure_detector, jobs._assembly.attempts).declared_dead()

    wait_for(lambda: not alive(pid), 3)
    jobs.wait(run.id, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deaf", "holds_the_interpreter"])
def test_no_child_outlives_a_host_that_is_killed(tmp_path, name):
    host = subprocess.Popen(
        [sys.executable, "-c", f"import test_isolation; test_isolation.host({name!r})"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(HERE)},
    )  # fmt: skip
    with host:
        pid = int(host.stdout.readline())
        assert alive(pid)
        host.kill()

    wait_for(lambda: not alive(pid), 3)


def host(name):
    import jobmanager.manager.assembly

    jobmanager.manager.assembly.FLUSH_LINES_EVERY = timedelta(seconds=0.1)
    jobs = JobManager(Settings(backend="local", database_url="memory://"))
    print(pid_of(jobs, run_of(jobs, name)), flush=True)
    time.sleep(60)


# ---------------------------------------------------------------- what is refused, and where


@pytest.mark.parametrize("name", ["lambda", "closure", "partial", "method"])
def test_a_handler_that_a_child_cannot_import_is_refused_at_start(jobs, name):
    import isolated_handlers

    handlers = {
        "lambda": lambda: None,
        "closure": isolated_handlers.not_top(),
        "partial": isolated_handlers.bound,
        "method": [].append,
    }
    jobs.add_job("work", handlers[name], isolation="process")

    with pytest.raises(ConfigurationError, match="child process, which cannot import it"):
        jobs.start()


def test_a_retry_policy_that_a_child_cannot_read_is_refused_at_start(jobs):
    class LocalError(Exception): ...

    jobs.add_job("work", "isolated_handlers:face", isolation="process", retry=Retry(retry_on=(LocalError,)))

    with pytest.raises(ConfigurationError, match="exceptions of module level"):
        jobs.start()


def test_an_around_that_a_child_cannot_read_is_refused_at_start():
    jobs = JobManager(Settings(backend="local", database_url="memory://"), around=[lambda context: None])
    jobs.add_job("work", "isolated_handlers:face", isolation="process")

    with pytest.raises(ConfigurationError, match=r"cannot take over around=.*functions of module level"):
        jobs.start()


def test_a_gate_of_any_kind_is_fine(jobs):
    assert ended(jobs, "coroutine", enabled_when=lambda: True).status is SUCCEEDED


def test_without_the_extra_it_is_refused_at_registration(jobs, monkeypatch):
    monkeypatch.setattr(isolation.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match=r"jobmanager-backends\[process\]") as caught:
        jobs.add_job("work", "isolated_handlers:face", isolation="process")
    assert caught.value.extra == "process"
    assert not jobs.registry.jobs


def test_a_memory_limit_is_refused_where_nobody_enforces_it(jobs, monkeypatch):
    monkeypatch.setattr(isolation.sys, "platform", "darwin")

    with pytest.raises(UnsupportedError, match="only Linux"):
        jobs.add_job("work", "isolated_handlers:face", isolation="process", memory_limit=100)


@pytest.mark.parametrize(
    "options",
    [
        {"isolation": "thread", "memory_limit": 100},
        {"isolation": "process", "memory_limit": 0},
        {"isolation": "process", "memory_limit": 512 * 1024 * 1024},
        {"isolation": "container"},
    ],
)
def test_options_that_make_no_sense_are_refused(jobs, options):
    with pytest.raises(ConfigurationError, match=r"memory_limit|isolation"):
        jobs.add_job("work", "isolated_handlers:face", **options)


# ---------------------------------------------------------------- other clocks, other hosts


def test_on_a_clock_moved_by_hand_the_child_runs_for_real_and_is_waited_for():
    clock = FakeClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    jobs = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    jobs.add_job("face", "isolated_handlers:face", isolation="process", every=60)
    with jobs:
        clock.advance(minutes=1)
        run = jobs.runs("face")[0]

    assert (run.status, run.output["started_at"]) == (SUCCEEDED, "2026-03-01T12:01:00+00:00")
    assert run.output["pid"] != os.getpid()


def test_on_noop_the_child_is_waited_for():
    jobs = JobManager(Settings(backend="noop", database_url="memory://"))

    run = run_of(jobs, "face", start=False)

    assert (run.status, run.output["pid"] != os.getpid()) == (SUCCEEDED, True)


@pytest.mark.slow
def test_nothing_starts_in_a_child_that_imports_an_unguarded_application(tmp_path):
    application = tmp_path / "application.py"
    application.write_text(
        textwrap.dedent("""
        import os, sys
        from jobmanager import JobManager, Settings
        jobs = JobManager(Settings(backend="local", database_url="memory://"))

        @jobs.job("work", isolation="process")
        def work():
            return [os.getpid(), jobs.started]

        jobs.start()
        if jobs.started:
            run = jobs.wait(jobs.trigger_job("work").id, 20)
            print(os.getpid(), *run.output, run.status, run.error)
            jobs.stop()
        """)
    )
    done = subprocess.run(
        [sys.executable, str(application)], capture_output=True, text=True, timeout=30, check=False
    )

    host, child, started, status, error = done.stdout.split()
    assert (host != child, started, status, error) == (True, "False", "succeeded", "None"), done.stderr


def test_this_is_no_child():
    assert not is_child()


def test_a_payload_is_checked_before_the_run_is_opened_where_the_handler_is_known(jobs):
    import isolated_handlers

    jobs.add_job("work", isolated_handlers.hungry, isolation="process")
    with pytest.raises(PayloadError):
        jobs.trigger_job("work", {"mib": "much"})


@pytest.mark.parametrize("kind", ["pickle", "no json", "no message", "no outcome", "no kind"])
def test_a_handler_that_writes_to_the_pipes_runs_nothing_in_the_host(jobs, tmp_path, kind):
    """Its own process is what isolation gives it; the host reads JSON, and no field that is not checked."""
    marker = tmp_path / "owned"

    run = ended(jobs, "attacks_its_host", {"path": str(marker), "kind": kind})

    assert not marker.exists()
    assert run.status.closed
    after = ended(jobs, "face")
    assert after.status is SUCCEEDED


def test_no_code_unpickles_what_a_child_sends():
    """`Connection.recv` does; only the assignment is pickled, and that goes the other way."""
    for name in ("child_process", "child_main", "child_messages", "child_context"):
        source = (Path(isolation.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        assert not re.search(r"[a-z_]\.recv\(\)|pickle\.loads?\(", source), name


def test_a_wait_in_vain_inside_of_a_child_says_that_it_keeps_a_worker(jobs):
    """Fails if a handler that cannot lend its worker is not told what to do about it."""
    jobs.add_job("child", "isolated_handlers:mark")
    waited_for = jobs.trigger_job("child", delay=600)

    run = ended(jobs, "waits_for", {"url": jobs.settings.database_url, "run_id": waited_for.id})

    assert run.status is FAILED
    assert (
        "still pending after 0.1 s; it goes on. The handler that waits keeps its worker" in run.error.message
    )
