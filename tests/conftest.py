"""What holds for every test: nobody's shell changes a result."""

import gc
import logging
import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from tests.pg_net.target import http_target
from tests.servers import (
    memory,
    pg_cron_databases,
    pg_cron_server,
    pg_cron_url,
    pg_net,
    postgres_pooler,
    postgres_server,
    postgres_url,
    rabbitmq_server,
    rabbitmq_url,
    redis_server,
    redis_url,
    still_pg_cron_server,
    still_pg_cron_url,
)

__all__ = [
    "http_target",
    "pg_cron_databases",
    "pg_cron_server",
    "pg_cron_url",
    "pg_net",
    "postgres_pooler",
    "postgres_server",
    "postgres_url",
    "rabbitmq_server",
    "rabbitmq_url",
    "redis_server",
    "redis_url",
    "still_pg_cron_server",
    "still_pg_cron_url",
]

# How long an example takes says of the machine's other work, and of what is imported for the first time.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# Our own switches, read before the environment is cleared.
REQUIRE_SERVERS = os.environ.get("JOBMANAGER_REQUIRE_SERVERS") == "1"

_KEPT = ("JOBMANAGER_REQUIRE_SERVERS", "JOBMANAGER_TEST_")
for _name in [name for name in os.environ if name.startswith("JOBMANAGER_") and not name.startswith(_KEPT)]:
    del os.environ[_name]


_HERE = Path(__file__).parent

# These wait for real processes and servers, on a machine that may be busy with others: patience costs only where it fails.
_PATIENT = {"behaviour", "browser", "contract", "docs", "faults", "integration", "security"}
_PATIENCE_SECONDS = 300

# One start too many in a hundred runs is the very thing they look for: a gate that repeats what failed must not repeat these.
# Of a file with words behind it, those tests whose names have one of them.
_NO_SECOND_CHANCE: dict[str, tuple[str, ...]] = {
    "contract/test_golden_local.py": (),
    "contract/test_postgres_store.py": (),
    "contract/test_stores.py": (),
    "faults/test_celery_faults.py": (),
    "faults/test_chaos.py": (),
    "faults/test_company_killed.py": (),
    "faults/test_dead_processes.py": (),
    "faults/test_killed_anywhere.py": (),
    "faults/test_ledger_model.py": (),
    "faults/test_mutations.py": (),
    "faults/test_unknown_outcomes.py": (),
    "integration/test_celery.py": ("ticks_become_runs", "many_runs", "older_worker"),
    "integration/test_many_processes.py": (),
    "integration/test_pg_cron_loop.py": ("once", "called_again", "made_again", "one_row", "crash"),
    "integration/test_pg_cron_transports.py": ("once_each", "twice", "whatever_backend", "nothing_later"),
    "integration/test_postgres_races.py": (),
}
# What these may be repeated for: a wait that a busy machine did not let end, and what an earlier test left to the garbage collector.
# Neither is a start too many.
_WAITED_IN_VAIN = [
    "it did not happen",
    "does not answer",
    "TimeoutExpired",
    "TimeoutError",
    "idle-in-transaction timeout",
    "unraisable exception warnings",
]
_unknown = [name for name in _NO_SECOND_CHANCE if not (_HERE / name).exists()]
assert not _unknown, f"moved without a word here: {_unknown}"


def pytest_configure(config):
    """Tell test modules, before they are imported, whether this is the fast set: `tests/effort.py`."""
    if (folder := memory()) is not None:
        os.environ.setdefault(
            "PYTEST_DEBUG_TEMPROOT", folder
        )  # below which tmp_path is: SQLite waits for no disk
    if "not slow" in config.option.markexpr:
        os.environ["JOBMANAGER_TEST_FAST"] = "1"


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Collect without the garbage collector, which would walk ten thousand tests again and again: half of the time it takes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# The longest first: where files go to several processes, a long one that comes last is waited for alone.
_ORDER = ("faults", "integration", "browser", "security", "docs", "behaviour", "contract", "unit")


def pytest_collection_modifyitems(items):
    """Let tests of processes and servers take their time, and those that count starts fail at once."""
    items.sort(key=lambda item: _place(item.path))
    for item in items:
        name, room = _inside(item.path)
        words = _NO_SECOND_CHANCE.get(name)
        if words is not None and (not words or any(word in item.name for word in words)):
            again = item.config.getoption("reruns") or 0
            item.add_marker(pytest.mark.flaky(reruns=again, only_rerun=_WAITED_IN_VAIN))
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.servers)  # to be without one is a failure where servers are required
        if room in _PATIENT and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_PATIENCE_SECONDS))


@cache
def _inside(path: Path) -> tuple[str, str]:
    """The name of a test's file below this folder, and its first part."""
    if not path.is_relative_to(_HERE):
        return "", ""
    inside = path.relative_to(_HERE)
    return inside.as_posix(), inside.parts[0]


@cache
def _place(path: Path) -> int:
    room = _inside(path)[1]
    return _ORDER.index(room) if room in _ORDER else len(_ORDER)


@pytest.fixture(autouse=True)
def _level_of_the_root_logger() -> Iterator[None]:
    """Commands, and a Celery worker in this process, set it; for the tests that follow, warnings would then be no records."""
    before = logging.root.level
    yield
    logging.root.setLevel(before)


@pytest.fixture(autouse=True, scope="module")
def _environment() -> Iterator[None]:
    """Django's settings set TZ; a process that a later file starts would show its hours in that zone."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    time.tzset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip of a test for want of a server into a failure where servers are required: it says what to install."""
    report = yield
    if (
        REQUIRE_SERVERS
        and report.skipped
        and item.get_closest_marker("servers")
        and "install" in str(report.longrepr)
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"JOBMANAGER_REQUIRE_SERVERS=1, but this test was skipped: {report.longrepr[2]}"
    # Some tests print what no encoding can say; between the processes of a parallel run a report travels as UTF-8.
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
