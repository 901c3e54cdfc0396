"""The tests see what they are there to see: with a mechanism removed, they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.mutations import MUTATIONS, SWITCHES, TABLES, Mutation, source_of
from tests.servers import GIVEN

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "src/jobmanager/testing/store_contract"


# ---------------------------------------------------------------- the tables themselves


def test_every_mutation_still_finds_its_text() -> None:
    """A mutation whose text is gone removes nothing, and the test that it names proves nothing any more."""
    dead = [
        f"{table} {name!r}: {mutation.module} has no {mutation.old!r}"
        for table, mutations in TABLES.items()
        for name, mutation in mutations.items()
        if mutation.old not in source_of(mutation.module)
    ]

    assert not dead, "mend these mutations:\n" + "\n".join(dead)


def test_every_mutation_leaves_a_module_that_can_be_read() -> None:
    """A test that fails for want of the module notices nothing."""
    for mutation in MUTATIONS.values():
        source = source_of(mutation.module)
        if mutation.old in source and not mutation.module.endswith(".sql"):
            compile(source.replace(mutation.old, mutation.new), mutation.module, "exec")


def test_every_mutation_names_tests_that_exist() -> None:
    lost = [
        f"{name!r}: {test}"
        for name, mutation in MUTATIONS.items()
        for test in _named_tests(mutation)
        if not _exists(test)
    ]

    assert not lost, "these mutations name tests that are gone:\n" + "\n".join(lost)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_mutation_names_tests_that_pytest_finds() -> None:
    """Their parameters, too: pytest itself is asked, once for all of them."""
    named = sorted({test for mutation in MUTATIONS.values() for test in _named_tests(mutation)})
    asked = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *named],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert asked.returncode == 0, f"these mutations name tests that are gone:\n{asked.stderr}"


def test_no_two_mutations_have_one_name() -> None:
    names = Counter(name for mutations in TABLES.values() for name in mutations)

    assert [name for name, times in names.items() if times > 1] == []


def _named_tests(mutation: Mutation) -> Iterator[str]:
    """The tests and files, without what follows an option such as -k."""
    arguments = iter(mutation.tests)
    for argument in arguments:
        if argument.startswith("-"):
            next(arguments)
        else:
            yield argument


def _exists(test: str) -> bool:
    path, *names = test.partition("[")[0].split("::")
    if not (ROOT / path).is_file():
        return False
    promises = sorted(CONTRACT.glob("*.py")) if path.startswith("tests/contract/") else []
    text = "\n".join(file.read_text(encoding="utf-8") for file in [ROOT / path, *promises])
    return all(
        f"def {name}(" in text or f"class {name}(" in text or f"class {name}:" in text for name in names
    )


# ---------------------------------------------------------------- what they remove is missed


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.slow if name in SWITCHES else pytest.mark.faults,
                *([pytest.mark.servers] if MUTATIONS[name].on_a_server else []),
            ],
        )
        for name in MUTATIONS
    ],
)
def test_without_this_mechanism_the_tests_fail(request: pytest.FixtureRequest, name: str) -> None:
    """Not by an error in collecting: pytest says 1, tests failed."""
    on_a_server = MUTATIONS[name].on_a_server
    environment = {
        **os.environ,
        "JOBMANAGER_TEST_MUTATION": name,
        "JOBMANAGER_TEST_EXAMPLES": "60",
        "JOBMANAGER_TEST_FAST": "0",
    }
    if on_a_server:
        environment[GIVEN] = request.getfixturevalue("postgres_server")  # skips where there is none
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.faults.mutations", "-p", "no:cacheprovider",
            *(() if on_a_server else ("-m", "not servers")), *MUTATIONS[name].tests,
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )  # fmt: skip

    assert ran.returncode == 1, f"{name} was removed, and nothing failed:\n{ran.stdout}{ran.stderr}"
    assert " failed" in ran.stdout, ran.stdout
    assert "mend the mutation" not in ran.stdout + ran.stderr, ran.stdout
