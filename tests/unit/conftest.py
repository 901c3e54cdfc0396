"""What a unit test is: no process of its own. What needs one lives in `tests/behaviour`."""

import os
import subprocess

import croniter  # noqa: F401 - asks the program `file` how wide a word is here, when it is first imported
import pytest


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that starts a process."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a unit test starts no process: it belongs to tests/behaviour")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(os, "fork", refuse)
