"""Django's own tests of its tasks, run against our backend: of Django 6.1, and of the backport where Python gets Django 5.2.

The tests lie in Django's source distribution alone. It is fetched by pip, and nothing of it is kept.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import django
import pytest
from tests.faults.django_tasks_suite import NAMES_THE_OTHER, NOT_IN_THE_BACKPORT

VERSION = "6.1.3"
ALL = 74
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The folder `tests` of Django's source distribution."""
    folder = tmp_path_factory.mktemp("django")
    if not (
        pip := shutil.which("pip", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    ):
        pytest.skip("pip is not there, which fetches Django's source distribution")
    command = [pip, "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--ignore-requires-python", f"django=={VERSION}", "--dest", str(folder)]
    subprocess.run(command, check=False, capture_output=True, text=True, timeout=550)
    found = list(folder.glob("[dD]jango-*.tar.gz"))
    if not found:
        pytest.skip("the source distribution of Django cannot be fetched here")
    with tarfile.open(found[0]) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"django-{VERSION}" / "tests"


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_every_test_that_is_not_about_another_backend_passes(suite, store, tmp_path, request):
    shutil.copytree(suite / "tasks", tmp_path / "tasks")
    url = f"sqlite:///{tmp_path}/jobs.db" if store == "sqlite" else request.getfixturevalue("postgres_url")
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tests/faults/django_tasks_suite.py"), str(tmp_path), url],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout)

    named = {*NAMES_THE_OTHER, *(NOT_IN_THE_BACKPORT if django.VERSION < (6,) else ())}
    print(f"Django {told['django']}, {store}: {len(told['passed'])} of {ALL} passed, {len(named)} named")
    assert {name: why for name, why in told["failed"].items() if name not in named} == {}
    assert set(told["failed"]) == named  # a name that passes needs no place in the list
    assert len(told["passed"]) == ALL - len(named)
