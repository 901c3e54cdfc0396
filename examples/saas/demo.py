"""A small company's recurring jobs at a pace that can be watched: `make demo`, or `python -m examples.saas.demo`.

Fills a database in .demo/, starts the services of others on loopback, a mail server that refuses some of the mail among them, keeps
visitors coming, and runs all jobs of the application on the local backend. Ctrl-C ends it with a summary; without a terminal it ends by itself.
"""

import argparse
import logging
import math
import os
import random
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import uvicorn
from rich.console import Console
from rich.live import Live

from jobmanager import JobManager, Settings

from . import data, jobs, seed
from .app import make_app
from .fakes import Fakes
from .init import fill
from .screen import Screen, line

SEED = 7
LOOK_EVERY_SECONDS = 0.25
SECONDS_WITHOUT_TERMINAL = 20.0
HALF_A_SECOND_OF_USE = seed.Amounts(
    users=0,
    sessions=4,
    invitations=1,
    push_subscriptions=1,
    logs=30,
    error_logs=1,
    ai_requests=3,
    activities=5,
    conversions=0,
    mails=1,
)


def at_a_pace_to_be_watched() -> dict[str, dict[str, Any]]:
    """Return each job every few seconds, deletions in small batches, and a back-off of seconds instead of minutes."""
    changes: dict[str, dict[str, Any]] = {}
    for number, (job_id, options) in enumerate(jobs.defaults().items()):
        seconds = 4 + number % 3
        if "cron" in options:
            changes[job_id] = {"cron": f"*/{seconds} * * * * *"}
        elif "every" in options:
            changes[job_id] = {"every": seconds}
    for job_id in ("cleanup-sessions", "cleanup-invitations", "purge-logs"):
        config = jobs.defaults()[job_id].get("config", {})
        changes[job_id]["config"] = {**config, "batch_size": 100, "rest_seconds": 0.05}
    changes["process-pending-emails"] = {
        "cron": "*/2 * * * * *",
        "config": {"backoff_seconds": [1, 3, 9, 15]},
    }
    return changes


def plant(manager: JobManager) -> None:
    """Make the jobs, and the two fixtures that `seed` leaves out, as an operator would."""
    jobs.register(manager)
    jobs.plant(manager, at_a_pace_to_be_watched())
    for job_id in jobs.fixtures.JOBS:
        manager.create_job(job_id, handler=job_id, by="demo")


def main() -> None:
    """Prepare, run, watch, stop, sum up."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    arguments = _arguments()
    ending = Ending(arguments.seconds)
    with _company(arguments.folder) as services:
        manager = JobManager(Settings(database_url=f"sqlite:///{arguments.folder / 'jobmanager.db'}"))
        plant(manager)
        console.print(f"{manager.resolution} store={manager.store.url}", highlight=False)
        screen = Screen(manager)
        with manager, _dashboard(manager, arguments.port, opens=arguments.open) as address:
            console.print(f"The dashboard shows it live: {address}admin/jobs/", highlight=False)
            console.print(f"Let a service fail, and see what becomes of it: {address}", highlight=False)
            manager.trigger_job("test-job", {"steps": 60, "seconds": 6}, requested_by="demo")
            manager.trigger_job("test-fail-job", requested_by="demo")
            manager.trigger_job("revenuecat_sync", {"project_id": 1}, requested_by="demo")
            (_watch if console.is_terminal else _report)(screen, console, ending)
            console.print("Ending: nothing new starts.")
        for run in screen.look():
            console.print(line(run), highlight=False)
        console.print(screen.summary())
    console.print(
        f"The mail server took {len(services.smtp.received)} mails. See for yourself in {arguments.folder}: "
        "saas.db, jobmanager.db, mails.mbox, demo.log.",
        highlight=False,
    )


def _watch(screen: Screen, console: Console, ending: "Ending") -> None:
    screen.look()
    with Live(screen.live(console.width, console.height), console=console, auto_refresh=False) as live:
        while not ending.within(LOOK_EVERY_SECONDS):
            screen.look()
            live.update(screen.live(console.width, console.height), refresh=True)


def _report(screen: Screen, console: Console, ending: "Ending") -> None:
    while not ending.within(LOOK_EVERY_SECONDS):
        for run in screen.look():
            console.print(line(run), highlight=False, soft_wrap=True)


class Ending:
    """When the demo ends: at Ctrl-C or SIGTERM, or `seconds` after the first look. A second signal ends it the hard way."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        # A queue, because an Event must not be set by a handler that interrupts the thread that waits for it.
        self._signals: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def within(self, seconds: float) -> bool:
        """Wait up to `seconds`; True as soon as the end has come."""
        self._until = self._until or time.monotonic() + self._seconds
        try:
            return bool(self._signals.get(timeout=seconds))
        except Empty:
            return time.monotonic() >= self._until

    def _on_signal(self, number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._signals.put(number)


@contextmanager
def _dashboard(manager: JobManager, port: int, *, opens: bool) -> Iterator[str]:
    """Serve the dashboard to this machine while this lasts, on the port or on a free one, and yield its address.

    With `opens` the browser opens it as soon as it is served.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    application = make_app(manager)
    # Open streams of events are cut off at the end.
    server = uvicorn.Server(
        uvicorn.Config(application, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    if opens:
        threading.Thread(target=_open, args=(server, address), daemon=True).start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()


def _open(server: uvicorn.Server, address: str) -> None:
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.05)
    webbrowser.open(f"{address}admin/jobs/jobs")


@contextmanager
def _company(folder: Path) -> Iterator[Fakes]:
    """Yield the services of others; there are a database full of rows, and visitors who keep adding to it."""
    _prepare(folder)
    os.environ["SAAS_DATABASE_URL"] = f"sqlite:///{folder / 'saas.db'}"
    os.environ.update(dict.fromkeys(("LOGS_ENABLED", "AFFILIATES_ENABLED"), "true"))
    fill(seed.Amounts())
    with Fakes(mails=folder / "mails.mbox") as services, _visitors(random.Random(SEED)):
        os.environ.update(services.environment)
        yield services


def _prepare(folder: Path) -> None:
    """Make a folder without the files of an earlier demo; what is logged goes there, because the screen is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in (*folder.glob("saas.db*"), *folder.glob("jobmanager.db*"), folder / "mails.mbox"):
        earlier.unlink(missing_ok=True)
    (folder / ".gitignore").write_text("*\n")
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(filename=folder / "demo.log", filemode="w", level=logging.INFO, format=form)


@contextmanager
def _visitors(rng: random.Random) -> Iterator[None]:
    """While this lasts, people use the application: rows arrive twice a second."""
    closed = threading.Event()

    def visit() -> None:
        while not closed.wait(0.5):
            with data.transaction() as db:
                seed.populate(db, HALF_A_SECOND_OF_USE, rng, data.now())

    visitors = threading.Thread(target=visit, name="visitors")
    visitors.start()
    try:
        yield
    finally:
        closed.set()
        visitors.join()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.saas.demo", description="Jobs of a small company, to be watched."
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(".demo"), help="where the files go (default: .demo)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf if sys.stdout.isatty() else SECONDS_WITHOUT_TERMINAL,
        help="end by itself after so long (default: never in a terminal, else 20)",
    )
    parser.add_argument(
        "--port", type=int, default=8787, help="where the dashboard is (default: 8787, else a free one)"
    )
    parser.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=_has_somebody(),
        help="open the dashboard in the browser (default: in a terminal with a display, but not in CI)",
    )
    return parser.parse_args()


def _has_somebody() -> bool:
    """Return whether somebody sits before a terminal on whose display a browser can open."""
    has_display = sys.platform in ("darwin", "win32") or any(
        map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))
    )
    return sys.stdout.isatty() and has_display and not os.environ.get("CI")


if __name__ == "__main__":
    main()
