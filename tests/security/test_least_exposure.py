"""Files, errors, imports and the list of processes show no more than they must, and no file nearby takes a library's place."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobmanager import JobManager, Settings
from jobmanager.bridge.crontab import bring
from jobmanager.clock import SystemClock
from jobmanager.stores import store_for

ROOT = Path(__file__).parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_sqlite_file_and_what_lies_beside_it_are_the_owner_s_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "jobs.db"
    before = os.umask(0o022)
    try:
        with closing(store_for(Settings(database_url=f"sqlite:///{path}"), SystemClock())) as store:
            store.install()
            beside = {file.name: mode(file) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert beside == {"jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600}
    assert mode(tmp_path) == 0o755


def test_a_file_whose_mode_somebody_chose_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.touch()
    path.chmod(0o640)
    with closing(store_for(Settings(database_url=f"sqlite:///{path}"), SystemClock())) as store:
        store.install()

    assert mode(path) == 0o640


@pytest.mark.parametrize("url", ["sqlite:///{}/jobs.db", "memory://"])
def test_an_error_of_a_statement_shows_no_parameters(tmp_path: Path, url: str) -> None:
    with JobManager(Settings(database_url=url.format(tmp_path))) as jobs:
        database = jobs.store.database  # type: ignore[attr-defined]
        # Not beside the manager's threads: the store in memory is one connection.
        with database.writing() as connection, pytest.raises(sa.exc.SQLAlchemyError) as raised:
            connection.execute(sa.text("SELECT * FROM nowhere WHERE it = :it"), {"it": "s3cret"})

    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_a_crontab_has_no_other_lines_than_cron_sees(mark: str) -> None:
    """Else a command that cron never ran would become a job."""
    text = f"0 2 * * * echo one{mark}*/5 * * * * rm -rf /srv\n0 3 * * * echo two{mark}\n"

    commands = [
        ast.literal_eval(node.args[1])
        for item in bring(text, datetime(2026, 1, 1, tzinfo=UTC), zone="UTC")
        for node in ast.walk(ast.parse(item.source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_command"
    ]

    assert commands == [f"echo one{mark}*/5 * * * * rm -rf /srv", f"echo two{mark}"]


APPLICATION = """
import sys
from jobmanager import JobManager
jobs = JobManager()

@jobs.job("look")
def look():
    import lazily
    import colorsys
    return {"first": sys.path[0], "lazily": lazily.__file__, "colorsys": colorsys.__file__}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["-m", "jobmanager"], ["-c", "import sys; from jobmanager.cli import main; sys.exit(main())"]]
)
def test_a_file_in_the_working_directory_takes_no_library_s_place(tmp_path: Path, command: list[str]) -> None:
    """Of the libraries that the command loads after it has begun, and of those that a handler loads."""
    for library in ("rich", "sqlalchemy", "typing_extensions", "croniter", "colorsys", "psycopg"):
        (tmp_path / f"{library}.py").write_text(
            f"open('{tmp_path}/owned', 'a').write('{library} ')\nraise SystemExit(9)\n"
        )
    (tmp_path / "lazily.py").touch()
    (tmp_path / "shop.py").write_text(APPLICATION)
    start = [sys.executable, *command]
    if command[0] == "-c":  # a console script has the script's folder first, not the working directory
        start.insert(1, "-P")
    environment = {**os.environ, "JOBMANAGER_DATABASE_URL": f"sqlite:///{tmp_path}/jobs.db"}
    environment.pop("PYTHONPATH", None)

    for words in (["version"], ["doctor"], ["--app", "lazily:jobs", "jobs", "list"]):
        subprocess.run(
            [*start, *words], cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False
        )

    assert not (tmp_path / "owned").exists(), (tmp_path / "owned").read_text()


@pytest.mark.parametrize(
    "page", ["README.md", "backends/celery/README.md", "backends/celery/compose.yaml", "docs/howto/celery.md"]
)
def test_no_page_puts_a_broker_s_password_on_a_command_line(page: str) -> None:
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        assert not ("celery" in line and (" -b " in line or "--broker" in line)), line
