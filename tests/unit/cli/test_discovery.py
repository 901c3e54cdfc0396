"""The application that no option names: what is taken, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobmanager.cli import main
from jobmanager.cli.discovery import stated_target, usual_target
from jobmanager.cli.output.failures import UsageError

APPLICATION = (
    "from jobmanager import JobManager, Settings\njobs = JobManager(Settings(database_url='memory://'))\n"
)


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        ({"app.py": APPLICATION}, "app"),
        ({"jobs.py": APPLICATION}, "jobs"),
        ({"app.py": APPLICATION, "jobs.py": APPLICATION}, "app"),
        ({"app.py": "from jobs import jobs\n", "jobs.py": APPLICATION}, "jobs"),
        ({"app.py": "jobs: JobManager = jobmanager.JobManager()\n"}, "app"),
        ({"app.py": "print('no JobManager() here')\n"}, None),
        ({"app.py": "# jobs = JobManager()\n"}, None),
        ({"main.py": APPLICATION}, None),
    ],
)
def test_a_usual_file_that_makes_a_manager_is_taken(
    tmp_path: Path, files: dict[str, str], taken: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert usual_target(tmp_path) == taken


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ('[tool.jobmanager]\napp = "shop.jobs:jobs"\n', "shop.jobs:jobs"),
        ("[tool.other]\n", None),
        ("[tool]\njobmanager = 3\n", None),
        ("not TOML", None),
    ],
)
def test_pyproject_states_the_application(tmp_path: Path, text: str, stated: str | None) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert stated_target(tmp_path) == stated


@pytest.mark.parametrize("value", ["3", '""', "[]"])
def test_an_application_that_is_no_text_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.jobmanager]\napp = {value}\n")
    with pytest.raises(UsageError, match=r"\[tool.jobmanager\]"):
        stated_target(tmp_path)


@pytest.mark.parametrize("by_pyproject", [True, False])
def test_a_sentence_says_what_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by_pyproject: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "app", raising=False)
    (tmp_path / "app.py").write_text(APPLICATION + "jobs.add_job('greet', print, every=60)\n")
    if by_pyproject:
        (tmp_path / "pyproject.toml").write_text('[tool.jobmanager]\napp = "app:jobs"\n')

    code = main(["trigger", "greet", "--json"]), main(["trigger", "nobody"])

    said = capsys.readouterr()
    assert code[0] == 0
    assert code[1] != 0
    place = "pyproject.toml" if by_pyproject else "app.py of this folder"
    assert said.err.count(f"found in {place}; --app names another") == 1
