"""Objects that are no such part: refused where they are given, in a sentence with the name and what to use."""

from __future__ import annotations

from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.errors import ConfigurationError


class Observes:
    """An observer as `jobmanager.observe` describes it."""

    def started(self, context: Any) -> None: ...

    def ended(self, ending: Any, status: Any) -> None: ...


class StartsOnly:
    """Half an observer."""

    def started(self, context: Any) -> None: ...


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("settings", "sqlite:///jobs.db"),
        ("backend", "local"),
        ("store", "sqlite:///jobs.db"),
        ("clock", object()),
        ("observers", Observes()),
        ("observers", [Observes]),
        ("observers", [Observes(), object()]),
        ("observers", [StartsOnly()]),
        ("around", [1]),
        ("around", lambda context: context),
        ("address_of", "ana@shop.example"),
        ("locale_of", "de"),
        ("texts", ["de"]),
        ("texts", {"de": "Guten Tag"}),
        ("notifiers", "smtp"),
        ("notifiers", [object()]),
    ],
)
def test_what_is_no_such_part_is_refused_by_its_name_and_line(name: str, part: Any) -> None:
    """Fails if it is taken, and each run, message or request says so instead."""
    given = {"settings": Settings(database_url="memory://", backend="noop"), name: part}
    with pytest.raises(ConfigurationError) as refused:
        JobManager(**given)
    text = str(refused.value)
    assert text.startswith(f"JobManager: {name}=")
    assert "cannot be used; use " in text
    assert __file__ in text


def test_an_observer_by_shape_is_taken() -> None:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"), observers=(Observes(),))
    jobs.add_job("work", lambda: 1)
    assert jobs.trigger_job("work").status == "succeeded"
