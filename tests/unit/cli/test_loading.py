"""Finding the application, and one clear line when it cannot be found or imported."""

import sys
from itertools import count

import pytest

from jobmanager.cli.loading import load
from jobmanager.cli.output.failures import problem_of
from jobmanager.errors import JobManagerError

_numbers = count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of a new name into the working directory, and answers the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> str:
        name = f"application_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(f"from jobmanager import JobManager, Settings\n{text}")
        return name

    return write


MANAGER = "JobManager(Settings(database_url='memory://'))"


def refused(target):
    with pytest.raises(JobManagerError) as caught:
        load(target)
    return problem_of(caught.value)


def test_the_named_manager_and_the_only_one_are_found(module):
    name = module(f"jobs = {MANAGER}\nalias = jobs\n")
    assert load(f"{name}:jobs") is load(name) is load(f"{name}:alias")


def test_a_manager_inside_something_else_is_found(module):
    name = module(f"class site:\n    jobs = {MANAGER}\n")
    assert load(f"{name}:site.jobs").started is False


def test_an_application_that_starts_itself_stays_inert(module):
    name = module(f"jobs = {MANAGER}\njobs.job('work', every=1)(print)\njobs.start()\n")
    assert load(name).started is False


def test_of_two_managers_one_must_be_named(module):
    problem = refused(module(f"first = {MANAGER}\nsecond = {MANAGER}\n"))
    assert "has 2 JobManagers: first, second" in problem.message
    assert ":first" in problem.hint
    assert problem.code == 2


def test_a_module_without_a_manager_says_so(module):
    assert "There is no JobManager in" in refused(module("")).message


def test_a_wrong_name_lists_the_right_ones(module):
    name = module(f"jobs = {MANAGER}\nnumber = 3\n")
    assert refused(f"{name}:job").message == f"{name}:job is nothing."
    assert refused(f"{name}:number").message == f"{name}:number is an object of type int, not a JobManager."
    assert refused(f"{name}:job").hint == f"JobManagers in {name}: jobs."


def test_a_module_that_is_not_there_is_told_apart_from_one_that_it_imports(module):
    assert "There is no module 'not_there_at_all'" in refused("not_there_at_all.jobs:x").message
    name = module("import not_installed_anywhere\n")
    problem = refused(name)
    assert problem.message == (
        f"Importing {name} failed in {name}.py, line 2: ModuleNotFoundError: No module named 'not_installed_anywhere'"
    )
    assert "Install not_installed_anywhere" in problem.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "line 2: SyntaxError"),
        ("raise SystemExit('no database')\n", "line 2: SystemExit: no database"),
        ("import json\njson.loads('x')\n", "line 3: JSONDecodeError"),
    ],
)
def test_an_error_at_import_names_the_applications_own_line(module, text, says):
    name = module(text)
    problem = refused(name)
    assert problem.message.startswith(f"Importing {name} failed in {name}.py, {says}")
    assert problem.code == 1
    assert "\n" not in problem.message


def test_an_error_of_ours_keeps_its_own_words(module):
    problem = refused(module(f"jobs = {MANAGER}\njobs.job('work', cron='99 * * * *')(print)\n"))
    assert (problem.kind, problem.code) == ("CronError", 2)
    assert "99" in problem.message


@pytest.mark.parametrize(
    ("target", "hint"),
    [("shop/jobs.py", "--app shop.jobs"), ("./jobs.py:jobs", "--app jobs"), ("a b:c", "shop.jobs:jobs")],
)
def test_a_file_name_is_answered_with_the_module(target, hint):
    assert hint in refused(target).hint
