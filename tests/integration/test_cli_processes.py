"""The command line as people meet it: real processes, real signals, a real terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

import pytest
from tests.forked import ran

from jobmanager import JobManager, Settings

APPLICATION = """
import logging
import time
from datetime import timedelta

from jobmanager import JobManager, RunContext
from jobmanager.manager import assembly

assembly.POLL = timedelta(seconds=0.3)  # what others opened is found that soon
log = logging.getLogger(__name__)
jobs = JobManager()

@jobs.job("tick", every=1, overlap="allow")  # none is skipped where a busy machine is late
async def tick() -> str:
    return "tock"

@jobs.job("count")
def count(context: RunContext, to: int = 10, pause: float = 0.05) -> int:
    for number in context.track(range(to), message="sheep"):
        log.info("sheep %d", number)
        time.sleep(pause)
    return to

@jobs.job("stubborn")
def stubborn() -> None:
    time.sleep(60)
"""

PATIENCE = 60.0
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def shop(tmp_path):
    """A folder with an application in it; what is started there is ended with the test."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    made = Shop(tmp_path)
    yield made
    made.end()


class Shop:
    def __init__(self, folder: Path):
        self.folder = folder
        self.processes = []
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JOBMANAGER_", "FORCE_COLOR", "NO_COLOR"))
        }
        self.environ = {
            **kept,
            "JOBMANAGER_APP": "shop",
            "JOBMANAGER_DRAIN_SECONDS": "3",
            "TERM": "xterm-256color",
        }

    @cached_property
    def ledger(self) -> JobManager:
        return JobManager(Settings(database_url=f"sqlite:///{self.folder}/jobmanager.db"))

    def command(self, *words):
        return [sys.executable, "-m", "jobmanager", *words]

    def __call__(self, *words):
        return ran(["jobmanager", *words], folder=self.folder, env=self.environ, seconds=PATIENCE)

    def start(self, *words):
        process = subprocess.Popen(
            self.command(*words), cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
        self.processes.append(process)
        return process

    def server(self):
        """A process that runs jobs, once it does."""
        process = self.start("run")
        self.until(lambda: any(run.status == "succeeded" for run in self.ledger.runs(job="tick")))
        return process

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.05)
        raise AssertionError("it did not come true in time")

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            process.stderr.close()
        self.ledger.store.close()


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, shop, *words, columns=100):
        self.raw = b""
        self._screen, end = pty.openpty()
        self._process = subprocess.Popen(
            shop.command(*words), cwd=shop.folder, env={**shop.environ, "COLUMNS": str(columns), "LINES": "30"},
            stdin=end, stdout=end, stderr=end, start_new_session=True,
        )  # fmt: skip
        os.close(end)

    @property
    def screen(self):
        return ESCAPE.sub("", self.raw.decode())

    def wait_for(self, words):
        while words not in self.screen:
            assert self._read(), self.screen

    def interrupt(self):
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self):
        """The exit code."""
        while self._read():
            pass
        os.close(self._screen)
        return self._process.wait(PATIENCE)

    def _read(self):
        assert select.select([self._screen], [], [], PATIENCE)[0], f"nothing more after {self.screen}"
        try:
            read = os.read(self._screen, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.raw += read
        return bool(read)


# ---------------------------------------------------------------- run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_drains_and_ends_with_0(shop, number):
    process = shop.server()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "Stopped."
    assert re.search(r"^tick +every second ", out, re.MULTILINE)
    assert f"{signal.Signals(number).name}: what runs may end within 3 s" in err
    assert "succeeded job=tick" in err
    assert "\x1b" not in out + err
    assert shop.ledger.store.processes.living() == []
    assert {run.status for run in shop.ledger.runs()} == {"succeeded"}


@pytest.mark.slow
def test_run_lets_a_handler_end_before_it_leaves(shop):
    process = shop.server()
    triggered = json.loads(shop("trigger", "count", "-p", '{"to": 10, "pause": 0.1}', "--json").stdout)
    shop.until(lambda: shop.ledger.run(triggered["id"]).status != "pending")
    process.terminate()
    assert process.wait(PATIENCE) == 0
    ended = shop.ledger.run(triggered["id"])
    assert (ended.status, ended.error.kind if ended.error else None) in [
        ("succeeded", None),
        ("failed", "shutdown"),
    ]


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(shop):
    shop.environ["JOBMANAGER_DRAIN_SECONDS"] = "60"
    process = shop.server()
    triggered = json.loads(shop("trigger", "stubborn", "--json").stdout)
    shop.until(lambda: shop.ledger.run(triggered["id"]).status == "running")
    process.send_signal(signal.SIGINT)
    while "a second one leaves at once" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 128 + signal.SIGINT


def test_run_speaks_json(shop):
    process = shop.start("run", "--json")
    started = json.loads(process.stdout.readline())
    assert (started["event"], started["backend"], [job["id"] for job in started["jobs"]]) == (
        "started",
        "local",
        ["count", "stubborn", "tick"],
    )
    process.terminate()
    assert json.loads(process.communicate(timeout=PATIENCE)[0]) == {"event": "stopped"}


def test_run_on_noop_announces_no_instant(shop):
    shop.environ["JOBMANAGER_BACKEND"] = "noop"
    process = shop.start("run", "--json")
    assert [job["next_run"] for job in json.loads(process.stdout.readline())["jobs"]] == [None] * 3
    process.terminate()
    process.communicate(timeout=PATIENCE)
    process = shop.start("run")
    said = list(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
    process.terminate()
    process.communicate(timeout=PATIENCE)

    assert said[-1] == 'Nothing fires by itself: backend=noop reason="JOBMANAGER_BACKEND=noop".\n'


def test_log_lines_tell_the_time_with_its_zone(shop):
    """Fails if a reader elsewhere has to guess the zone of the host."""
    shop.environ["TZ"] = "Asia/Tokyo"
    process = shop.server()
    process.terminate()
    _, logged = process.communicate(timeout=PATIENCE)

    lines = [line for line in logged.splitlines() if "job=tick" in line]
    assert lines
    assert all(re.match(r"\d\d:\d\d:\d\d JST succeeded ", line) for line in lines)


# ---------------------------------------------------------------- trigger --wait


def test_a_living_process_executes_what_is_waited_for(shop):
    shop.server()
    said = shop("trigger", "count", "--wait", "--json")
    assert said.returncode == 0
    record = json.loads(said.stdout)
    assert (record["status"], record["output"]) == ("succeeded", 10)
    assert record["owner"] == shop.ledger.store.processes.living()[0].id


def test_without_one_it_is_executed_here_with_its_log(shop):
    said = shop("trigger", "count", "--wait")
    assert said.returncode == 0
    assert said.stderr == ""
    assert said.stdout.splitlines()[-1].startswith("✓ succeeded ")
    assert "\x1b" not in said.stdout
    [run] = shop.ledger.runs()
    assert [line.text for _, _, line in shop.ledger.store.history.lines(run.id)] == [
        f"sheep {number}" for number in range(10)
    ]
    assert shop.ledger.store.processes.living() == []


def test_in_a_terminal_a_bar_shows_how_far_it_is(shop):
    terminal = Terminal(shop, "trigger", "count", "--wait", "-p", '{"to": 30, "pause": 0.05}')
    terminal.wait_for("/30 sheep")
    assert terminal.end() == 0
    assert "━" in terminal.screen
    assert "✓ succeeded" in terminal.screen
    assert b"\x1b[" in terminal.raw


def test_ctrl_c_ends_a_run_that_is_executed_here(shop):
    terminal = Terminal(shop, "trigger", "count", "--wait", "-p", '{"to": 1000, "pause": 0.05}')
    terminal.wait_for("/1,000 sheep")
    terminal.interrupt()
    assert terminal.end() == 1
    assert "cancelled" in terminal.screen
    [run] = shop.ledger.runs()
    assert (run.status, run.reason) == ("cancelled", "requested")
    assert shop.ledger.store.processes.living() == []


def test_ctrl_c_twice_leaves_and_records_it(shop):
    terminal = Terminal(shop, "trigger", "stubborn", "--wait")
    terminal.wait_for("here")
    terminal.interrupt()
    shop.until(lambda: shop.ledger.runs()[0].cancel_requested_at is not None)
    terminal.interrupt()
    assert terminal.end() == 130
    [run] = shop.ledger.runs()
    assert run.status.closed
    assert shop.ledger.store.processes.living() == []


@pytest.mark.slow
def test_ctrl_c_only_ends_the_watching_of_a_run_elsewhere(shop):
    shop.server()
    terminal = Terminal(shop, "trigger", "count", "--wait", "-p", '{"to": 1000, "pause": 0.05}')
    terminal.wait_for("/1,000 sheep")
    terminal.interrupt()
    assert terminal.end() == 1
    assert "No longer watching; run" in terminal.screen
    [run] = shop.ledger.runs(job="count")
    assert run.status == "running"
    assert shop("cancel", run.id[-8:]).returncode == 0
    shop.until(lambda: shop.ledger.run(run.id).status == "cancelled")


def test_sigterm_leaves_nothing_running_in_the_record(shop):
    process = shop.start("trigger", "count", "--wait", "-p", '{"to": 1000, "pause": 0.05}')
    shop.until(lambda: shop.ledger.runs() and shop.ledger.runs()[0].status == "running")
    process.terminate()
    assert process.wait(PATIENCE) == 1
    assert shop.ledger.runs()[0].status == "cancelled"


@pytest.mark.slow
def test_a_run_here_that_outlasts_its_timeout_is_asked_to_end(shop):
    said = shop("trigger", "count", "--timeout", "500ms", "-p", '{"to": 1000, "pause": 0.05}', "--json")
    assert said.returncode == 1
    assert json.loads(said.stdout)["status"] == "cancelled"


# ---------------------------------------------------------------- logs, demo, pipes


def test_logs_are_followed_to_the_end(shop):
    shop.server()
    triggered = json.loads(shop("trigger", "count", "-p", '{"to": 20, "pause": 0.1}', "--json").stdout)
    said = shop("logs", triggered["id"][-8:], "--follow")
    assert said.returncode == 0
    assert [line.split(maxsplit=2)[2] for line in said.stdout.splitlines()] == [
        f"sheep {number}" for number in range(20)
    ]


def test_the_demo_needs_no_application_and_leaves_nothing(shop):
    del shop.environ["JOBMANAGER_APP"]
    shop.environ["TZ"] = "Asia/Tokyo"
    said = shop("demo", "--seconds", "2.5")
    assert (said.returncode, said.stderr) == (0, "")
    *lines, summary = said.stdout.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d JST  ", line) for line in lines if line)
    assert any(" heartbeat " in line and "succeeded" in line for line in lines)
    assert summary.endswith("Every tick has its row.")
    assert [path.name for path in shop.folder.iterdir() if path.suffix != ".py" and path.is_file()] == []


@pytest.mark.slow
def test_the_demo_in_a_terminal_ends_with_ctrl_c(shop):
    terminal = Terminal(shop, "demo")
    terminal.wait_for("Ctrl-C ends them.")
    terminal.wait_for("✓ succeeded")
    terminal.interrupt()
    assert terminal.end() == 0
    assert "Every tick has its row." in " ".join(
        terminal.screen.split()
    )  # the line may be longer than the terminal is wide


def test_a_reader_that_has_seen_enough_is_no_error(shop):
    process = shop.start("simulate", "--to", "+1h", "-n", "100000")
    assert process.stdout.readline().startswith("UTC")
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""


@pytest.mark.slow
def test_colour_is_for_terminals_that_want_it(shop):
    coloured = Terminal(shop, "jobs")
    assert coloured.end() == 0
    plain = Terminal(shop, "jobs", "--no-color")
    assert plain.end() == 0
    assert b"\x1b[" in coloured.raw
    assert b"\x1b[" not in plain.raw
    assert "every second" in plain.screen


@pytest.mark.slow
def test_a_terminal_without_utf_8_gets_question_marks(shop):
    shop.environ |= {"PYTHONIOENCODING": "ascii"}
    said = shop("trigger", "count", "--wait")
    assert said.returncode == 0
    assert "succeeded" in said.stdout
