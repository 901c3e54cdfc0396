"""A backend in one file: a tick for every file that appears in a directory. Toy, but complete.

Outside is a folder. `plan/<job>.job` says when the job is due next, for whoever keeps the time to read; when the time has come they
put an empty file `due/<job>@<instant>` there, and take no further interest. From a shell:

    touch "due/heartbeat@2026-03-29T01:00:00Z"
"""

import logging
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from jobmanager.backends.base import Backend, Capabilities, Deliver, Entry, Health
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import ConfigurationError
from jobmanager.run import Tick
from jobmanager.settings import Settings

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 0.2
SECOND = timedelta(seconds=1)


class FileBackend(Backend):
    """Ticks from files. The folder may be shared: what does not look like ours stays untouched."""

    name: ClassVar[str] = "file"
    capabilities: ClassVar[Capabilities] = Capabilities(survives_restart=False)

    def __init__(self, folder: Path, *, clock: Clock | None = None) -> None:
        self._plan, self._due = folder / "plan", folder / "due"
        self._clock = clock or SystemClock()
        self._jobs: dict[str, ScheduledJob] = {}
        self._planned: dict[str, datetime | None] = {}
        self._deliver: Deliver | None = None
        self._looking = threading.RLock()  # what is delivered may lead to a sync
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock) -> "FileBackend":  # noqa: ARG003 - it has its own
        """Return the folder is `FILE_BACKEND_FOLDER`; ConfigurationError without it."""
        if folder := os.environ.get("FILE_BACKEND_FOLDER"):
            return cls(Path(folder), clock=clock)
        raise ConfigurationError("Backend 'file' needs to know its folder. Set FILE_BACKEND_FOLDER.")

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        with self._looking:
            self._jobs, self._planned = {item.job.id: item for item in jobs}, {}
            self._plan.mkdir(parents=True, exist_ok=True)
            for path in self._plan.glob("*.job"):
                if path.stem not in self._jobs:
                    path.unlink(missing_ok=True)
            for item in jobs:
                self._write(item.job.id, item.next_due_at)

    def start(self, deliver: Deliver) -> None:
        if self._deliver is not None:
            return
        self._due.mkdir(parents=True, exist_ok=True)
        self._deliver = deliver
        self._stopped.clear()
        if not self._clock.drive(None, self._look):  # a clock moved by hand looks for us
            self._thread = threading.Thread(target=self._keep_looking, name="file-backend", daemon=True)
            self._thread.start()

    def stop(self, timeout: timedelta) -> None:
        self._stopped.set()
        self._clock.release(self._look)
        if self._thread is not None:
            self._thread.join(timeout.total_seconds())
            self._thread = None
        with self._looking:  # whoever is looking has delivered by now, and nobody will again
            self._deliver = None

    def entries(self) -> list[Entry]:
        return [self._entry(path) for path in sorted(self._plan.glob("*.job"))]

    def health(self) -> Health:
        if self._deliver is None:
            return Health(ok=False, detail="not started in this process")
        if not os.access(self._due, os.R_OK | os.W_OK):
            return Health(ok=False, detail=f"{self._due} cannot be read and written")
        return Health(ok=True, detail=f"looking into {self._due} every {LOOK_EVERY_SECONDS:g} s")

    def _keep_looking(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_SECONDS):
            try:
                self._look()
            except Exception:
                logger.exception("backend=file could not look into %s; trying on", self._due)

    def _look(self) -> None:
        """Deliver what is due, all together; only then do the files go, so that a crash rings twice rather than never."""
        with self._looking:
            if self._deliver is None:
                return
            now = self._clock.now()
            found = [(path, tick) for path in sorted(self._due.iterdir()) if (tick := self._read(path, now))]
            if found:
                self._deliver([tick for _, tick in found])
            for path, _ in found:
                path.unlink(missing_ok=True)
            for job_id, due in list(self._planned.items()):
                if due is not None and due <= now:
                    self._write(job_id, self._jobs[job_id].schedule.next_after(now))

    def _read(self, path: Path, now: datetime) -> Tick | None:
        """Return the tick this file stands for; None if it is too early, no instant of that job's, or not ours at all."""
        job_id, _, text = path.name.partition("@")
        item, instant = self._jobs.get(job_id), _instant(text)
        if item is None or instant is None or instant > now:
            return None
        if item.schedule.next_after(instant - SECOND) != instant:
            return None
        return Tick(job_id=job_id, scheduled_for=instant, revision=item.revision)

    def _write(self, job_id: str, due: datetime | None) -> None:
        """Say when the job is due; by a rename, so that nobody reads half a line."""
        self._planned[job_id] = due
        text = f"{due:%Y-%m-%dT%H:%M:%SZ}\n" if due else "never\n"
        path = self._plan / f"{job_id}.job"
        if not path.exists() or path.read_text() != text:
            fresh = path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(path)

    def _entry(self, path: Path) -> Entry:
        planned, item = _instant(path.read_text().strip()), self._jobs.get(path.stem)
        drift = "" if item is None or planned else "never due"
        return Entry(name=path.name, job_id=path.stem if item else None, next_due_at=planned, drift=drift)


def _instant(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
