"""The tests see what they are there to see: with a mechanism removed, they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.mutations import GUARDS, MUTATIONS, ON_POSTGRES, SWITCHES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name",
    [
        *SWITCHES,
        *(pytest.param(name, marks=pytest.mark.faults) for name in GUARDS),
        *(pytest.param(name, marks=[pytest.mark.faults, pytest.mark.servers]) for name in ON_POSTGRES),
    ],
)
def test_without_this_mechanism_the_tests_fail(request: pytest.FixtureRequest, name: str) -> None:
    """Not by an error in collecting: pytest says 1, tests failed."""
    on_a_server = MUTATIONS[name].on_a_server
    if on_a_server:
        request.getfixturevalue("postgres_server")  # skips where there is none
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.faults.mutations", "-p", "no:cacheprovider",
            *(() if on_a_server else ("-m", "not servers")), *MUTATIONS[name].tests,
        ],
        cwd=ROOT,
        env={**os.environ, "JOBMANAGER_TEST_MUTATION": name, "JOBMANAGER_TEST_EXAMPLES": "60"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )  # fmt: skip

    assert ran.returncode == 1, f"{name} was removed, and nothing failed:\n{ran.stdout}{ran.stderr}"
    assert " failed" in ran.stdout, ran.stdout
    assert "mend the mutation" not in ran.stdout + ran.stderr, ran.stdout
