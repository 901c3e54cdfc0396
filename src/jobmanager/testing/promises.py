"""Running a contract's tests without pytest, to list the promises that an implementation breaks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jobmanager.testing.backend_contract import BackendContract
from jobmanager.testing.store_contract import RunStoreContract

Contract = BackendContract | RunStoreContract


def promises(contract: Contract) -> list[str]:
    """List the names of the contract's tests."""
    return [name for name in dir(contract) if name.startswith("test_")]


def broken_promises(contract: Contract, names: Iterable[str] | None = None) -> list[str]:
    """List the names of the tests that fail, of all or of the given ones; a skipped test counts as kept."""
    return [name for name in names or promises(contract) if not _is_kept(contract, name)]


def _is_kept(contract: Contract, name: str) -> bool:
    test = getattr(contract, name)
    with TemporaryDirectory() as folder:
        try:
            _open(contract, Path(folder))
            try:
                test(
                    **({"tmp_path": Path(folder)} if "tmp_path" in inspect.signature(test).parameters else {})
                )
            finally:
                contract.close()
        except pytest.skip.Exception:
            return True
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever it is, the promise is not kept
            return False
    return True


def _open(contract: Contract, folder: Path) -> None:
    if isinstance(contract, RunStoreContract):
        contract.open(folder)
    else:
        contract.open()
