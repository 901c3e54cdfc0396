"""What an outside system brings to a manager that nobody started, that is just being stopped, or that was stopped."""

import threading

import pytest

from jobmanager import JobManager, JobManagerError, Settings
from jobmanager.backends.local import LocalBackend
from jobmanager.errors import StoppedError


@pytest.fixture
def settings(tmp_path):
    return Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db", drain_seconds=2)


class CalledWhileItStops(LocalBackend):
    """A call comes in from outside while the application stops, and has to wait for that."""

    def __init__(self):
        super().__init__()
        self.caller = None
        self.answer = None

    def attach(self, host):
        self._host = host

    def stop(self, timeout):
        if self.caller is None:
            self.caller = threading.Thread(target=self._call)
            self.caller.start()
        super().stop(timeout)

    def _call(self):
        try:
            self.answer = self._host.plan()
        except JobManagerError as error:
            self.answer = error


def test_a_call_that_comes_during_the_stop_starts_nothing_again(settings):
    """Fails if what brings work starts a manager that was stopped: it would live on, and nobody would stop it."""
    backend = CalledWhileItStops()
    manager = JobManager(settings, backend=backend)
    manager.job("work", every=3600)(lambda: "done")
    manager.start()
    manager.stop()
    backend.caller.join(10)

    assert isinstance(backend.answer, StoppedError)
    assert not manager.started
    with pytest.raises(StoppedError, match=r"start\(\) begins again"):
        manager.host.accept([])

    manager.start()
    manager.host.plan()
    manager.stop()
    manager.store.close()


def test_a_call_starts_a_manager_that_nobody_started(settings):
    manager = JobManager(settings)
    manager.host.plan()

    assert manager.started
    manager.stop()
    manager.store.close()
