"""What `import jobmanager` loads, what only its use loads, and that every public name is found at its home."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jobmanager

OPTIONAL_OR_HEAVY = (
    "click",
    "alembic",
    "apscheduler",
    "celery",
    "croniter",
    "importlib.metadata",
    "psycopg",
    "pydantic",
    "redis",
    "rich",
    "sqlalchemy",
    "starlette",
)


def loaded_after(statement: str, folder: Path | None = None) -> set[str]:
    """The modules a fresh interpreter has loaded after `statement`; site packages' own .pth imports do not count."""
    code = (
        "import json, sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    return set(json.loads(printed.stdout.splitlines()[-1]))


def test_importing_jobmanager_loads_no_other_package():
    loaded = loaded_after("import jobmanager")
    assert "jobmanager" in loaded
    assert not loaded.intersection(OPTIONAL_OR_HEAVY)


def test_the_errors_load_no_other_package():
    loaded = loaded_after("from jobmanager import CronError, RetryLater, RunConflictError")
    assert "jobmanager.errors" in loaded
    assert not loaded.intersection(OPTIONAL_OR_HEAVY)


def test_help_loads_no_engine_and_nothing_to_validate_or_to_draw_with():
    """Fails if a verb's module imports at its top what only its work needs."""
    loaded = loaded_after("from jobmanager.cli import main; main(['--help'])")
    assert "jobmanager.cli.commands.jobs" in loaded
    assert not loaded.intersection(
        {*OPTIONAL_OR_HEAVY, "asyncio", "jobmanager.job", "jobmanager.manager.manager"} - {"click"}
    )


def test_a_list_of_jobs_loads_neither_who_keeps_the_time_nor_what_validates(tmp_path):
    """Fails if a verb that reads the store loads what only other stores, a start or an upgrade need."""
    (tmp_path / "app.py").write_text(
        "from jobmanager import JobManager\n"
        "jobs = JobManager()\n"
        "jobs.schedule_cron_job('nightly', 'Nightly', print, '0 3 * * *')\n"
        "jobs.sync()\n"
    )
    loaded = loaded_after("from jobmanager.cli import main; assert main(['jobs', 'list']) == 0", tmp_path)
    assert "sqlalchemy" in loaded
    assert not loaded.intersection(
        {"alembic", "apscheduler", "celery", "psycopg", "pydantic", "sqlalchemy.dialects.postgresql"}
    )


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(jobmanager, "Scheduler")


def test_dir_shows_the_public_names():
    assert set(jobmanager.__all__) <= set(dir(jobmanager))


def test_croniter_is_loaded_by_the_first_question_only():
    program = """if True:
        import sys
        from datetime import UTC, datetime
        from jobmanager.schedule import Cron
        schedule = Cron("0 9 * * 1", "Europe/Berlin")
        schedule.describe(), schedule.text, schedule.never_matches
        assert not {"croniter", "dateutil"} & set(sys.modules)
        schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC))
        assert "croniter" in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_lazy_handler_is_not_imported_before_it_is_called():
    code = (
        "import sys; from jobmanager.registry import Registry; r = Registry();"
        "r.add_handler('k', 'colorsys:rgb_to_hsv'); assert 'colorsys' not in sys.modules;"
        "r.handler('k').function; assert 'colorsys' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_jobmanager_loads_no_telemetry_by_itself():
    loads = "import jobmanager, jobmanager.manager.manager, sys; print([m for m in sys.modules if m.startswith(('opentelemetry', 'prometheus', 'pebble', 'multiprocessing', 'pydantic'))])"
    assert (
        subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_without_the_driver_the_sentence_names_the_extra():
    code = """
import sys
sys.modules["psycopg"] = None
from jobmanager import JobManager, Settings
from jobmanager.errors import MissingExtraError
try:
    JobManager(Settings(database_url="postgresql://u@db/n")).store
except MissingExtraError as error:
    print(error.extra, error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert said.startswith("postgres ")
    assert said.endswith("Install jobmanager-backends[postgres].\n")


def test_a_session_that_does_not_use_it_loads_nothing_but_the_plugin(tmp_path):
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_modules():\n"
        "    ours = {name for name in sys.modules if name.partition('.')[0] == 'jobmanager'}\n"
        "    assert ours == {'jobmanager', 'jobmanager.testing', 'jobmanager.testing.plugin'}\n"
        "    assert not {'sqlalchemy', 'pydantic', 'apscheduler', 'croniter'} & {*sys.modules}\n"
    )
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "jobmanager.testing.plugin",
            "-p",
            "no:cacheprovider",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
