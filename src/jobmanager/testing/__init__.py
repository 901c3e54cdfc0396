"""Tools for tests of applications, and of third-party backends and stores; each name is loaded at first use.

`FakeClock` moves time by hand; `assert_ran` and its neighbours say what a test expects of the record; whoever writes a backend
or a store subclasses `BackendContract` or `RunStoreContract`. The pytest plugin brings the fixtures `jobmanager`,
`jobmanager_clock` and `jobmanager_settings`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobmanager.testing.assertions import (
        assert_fired,
        assert_fired_as_planned,
        assert_no_runs,
        assert_ran,
        assert_triggered,
        new_runs,
        run_due,
    )
    from jobmanager.testing.backend_contract import BackendContract
    from jobmanager.testing.clock import FakeClock, FakeClockError
    from jobmanager.testing.fake_api import FakeApi, FakeEntry
    from jobmanager.testing.flows import FlowRun, run_flow
    from jobmanager.testing.promises import broken_promises
    from jobmanager.testing.store_contract import RunStoreContract
    from jobmanager.testing.ticker_contract import TickerContract

__all__ = [
    "BackendContract",
    "FakeApi",
    "FakeClock",
    "FakeClockError",
    "FakeEntry",
    "FlowRun",
    "RunStoreContract",
    "TickerContract",
    "assert_fired",
    "assert_fired_as_planned",
    "assert_no_runs",
    "assert_ran",
    "assert_triggered",
    "broken_promises",
    "new_runs",
    "run_due",
    "run_flow",
]

_HOMES = {
    "assertions": (
        "assert_fired",
        "assert_fired_as_planned",
        "assert_no_runs",
        "assert_ran",
        "assert_triggered",
        "new_runs",
        "run_due",
    ),
    "backend_contract": ("BackendContract",),
    "clock": ("FakeClock", "FakeClockError"),
    "flows": ("FlowRun", "run_flow"),
    "fake_api": ("FakeApi", "FakeEntry"),
    "promises": ("broken_promises",),
    "store_contract": ("RunStoreContract",),
    "ticker_contract": ("TickerContract",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    # pytest loads this package in every session that has jobmanager installed: nothing else may follow before it is used.
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
