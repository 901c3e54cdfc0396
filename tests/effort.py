"""How many examples a test takes: all of them in the full set, a sample of them in the fast one."""

import os
from collections.abc import Sequence
from typing import Any

import pytest

FAST = os.environ.get("JOBMANAGER_TEST_FAST") == "1"
"""True where the slow tests are left out; `tests/conftest.py` sets it by pytest's `-m`."""


def examples(full: int, *, sample: int) -> int:
    """Return `full`, or `sample` in the fast set."""
    return sample if FAST else full


def sampled(cases: Sequence[Any], *, every: int) -> list[Any]:
    """Return all cases, of which only each `every`-th is tried outside of the fault programme; in the fast set still fewer."""
    kept = cases[:: 3 * every] if FAST else cases
    return [case if FAST or n % every == 0 else _in_the_fault_programme(case) for n, case in enumerate(kept)]


def _in_the_fault_programme(case: Any) -> Any:
    given = case if hasattr(case, "marks") else pytest.param(case)
    return pytest.param(*given.values, id=given.id, marks=[*given.marks, pytest.mark.faults])
