"""The proof: every promise of a backend, tested on this one. Run it: pytest examples/own_backend."""

from datetime import datetime
from pathlib import Path

import pytest
from file_backend import FileBackend

from jobmanager.backends.base import Backend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock
from jobmanager.testing import BackendContract


class TestFileBackend(BackendContract):
    """A file backend keeps them too."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_backend(self, clock: Clock) -> Backend:
        return FileBackend(self.folder, clock=clock)

    def make_due(self, backend: Backend, scheduled: ScheduledJob, instant: datetime) -> None:
        (self.folder / "due" / f"{scheduled.job.id}@{instant:%Y-%m-%dT%H:%M:%SZ}").touch()
