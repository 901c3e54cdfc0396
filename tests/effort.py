"""How many examples a test takes: all of them in the full set, a sample of them in the fast one."""

import os

FAST = os.environ.get("JOBMANAGER_TEST_FAST") == "1"
"""True where the slow tests are left out; `tests/conftest.py` sets it by pytest's `-m`."""


def examples(full: int, *, sample: int) -> int:
    """Return `full`, or `sample` in the fast set."""
    return sample if FAST else full
