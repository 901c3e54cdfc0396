"""What `import jobmanager` loads, and that every public name is found at its home."""

import json
import subprocess
import sys

import jobmanager

OPTIONAL_OR_HEAVY = (
    "alembic",
    "apscheduler",
    "celery",
    "croniter",
    "importlib.metadata",
    "psycopg",
    "pydantic",
    "pydantic_settings",
    "redis",
    "rich",
    "sqlalchemy",
    "starlette",
    "typer",
)


def loaded_after(statement: str) -> set[str]:
    """The modules a fresh interpreter has loaded after `statement`; site packages' own .pth imports do not count."""
    code = (
        "import json, sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(printed.stdout))


def test_importing_jobmanager_loads_no_other_package():
    loaded = loaded_after("import jobmanager")
    assert "jobmanager" in loaded
    assert not loaded.intersection(OPTIONAL_OR_HEAVY)


def test_the_errors_load_no_other_package():
    loaded = loaded_after("from jobmanager import CronError, RetryLater, RunConflictError")
    assert "jobmanager.errors" in loaded
    assert not loaded.intersection(OPTIONAL_OR_HEAVY)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(jobmanager, "Scheduler")


def test_dir_shows_the_public_names():
    assert set(jobmanager.__all__) <= set(dir(jobmanager))
