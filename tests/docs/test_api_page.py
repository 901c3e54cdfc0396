"""docs/reference/api.md lists every public name, and what it lists can be imported and has a docstring."""

import importlib
import re
from pathlib import Path

import pytest

import jobmanager

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^\.\. auto(?:class|exception|function|module):: ([\w.]+)", PAGE, re.MULTILINE)


def found(path: str) -> object:
    """The object of a dotted path: a module, or what stands in one."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def test_every_name_that_applications_import_is_listed():
    listed = {name.rpartition(".")[2] for name in LISTED} | set(
        dir(importlib.import_module("jobmanager.errors"))
    )

    assert set(jobmanager.__all__) - {"__version__"} <= listed


@pytest.mark.parametrize("path", LISTED)
def test_what_is_listed_is_there_and_says_what_it_is(path):
    assert found(path).__doc__


def test_nothing_is_listed_twice():
    assert sorted(LISTED) == sorted(set(LISTED))
