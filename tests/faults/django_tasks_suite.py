"""Run Django's own tests of its tasks against our backend: `python django_tasks_suite.py FOLDER STORE_URL`, in a process of its own.

FOLDER has `tasks/`, the tests/tasks of Django's source distribution. Where Django has no tasks yet, their imports are turned to the backport.
Prints one JSON object: the names of the tests that passed and failed, with the ends of the tracebacks.
"""

from __future__ import annotations

import json
import re
import sys
import unittest
from pathlib import Path

import django
from django.conf import settings

OURS = "jobmanager.contrib.django.TaskBackend"

# Not about our backend but about the two of Django, each with the reason.
NAMES_THE_OTHER = {
    "TaskTestCase.test_using_correct_backend": "asks for an instance of Django's DummyBackend",
    "TaskTestCase.test_get_backend": "asks for instances of Django's own backends",
    "TaskTestCase.test_enqueue_task": "reads the list .results of the DummyBackend",
    "TaskTestCase.test_enqueue_task_async": "reads the list .results of the DummyBackend",
    "DummyBackendTestCase.test_using_correct_backend": "asks for an instance of Django's DummyBackend",
    "DummyBackendTestCase.test_enqueue_task": "reads the list .results of the DummyBackend",
    "DummyBackendTestCase.test_enqueue_task_async": "reads the list .results of the DummyBackend",
    "DummyBackendTestCase.test_refresh_result": "changes an item of the list .results",
    "DummyBackendTestCase.test_refresh_result_async": "changes an item of the list .results",
    "DummyBackendTestCase.test_clear": "calls .clear() of the DummyBackend",
    "ImmediateBackendTestCase.test_using_correct_backend": "asks for an instance of Django's ImmediateBackend",
    "ImmediateBackendTestCase.test_cannot_get_result": "wants that results cannot be had; ours can",
    "ImmediateBackendTestCase.test_cannot_refresh_result": "wants that results cannot be had; ours can",
    "ImmediateBackendTestCase.test_cannot_pass_run_after": "wants that tasks cannot be deferred; ours can",
    "ImmediateBackendTestCase.test_throws_keyboard_interrupt": "wants KeyboardInterrupt of a task to reach the caller; ours is on record",
}  # fmt: skip
# The backport 0.12 lacks what Django 6.1 has: its own backends fail these as well.
NOT_IN_THE_BACKPORT = {
    "TaskTestCase.test_pickle_task": "tasks that can be pickled",
    "TaskTestCase.test_pickle_task_result": "tasks that can be pickled",
    "TaskTestCase.test_unpickle_arbitrary_string": "tasks that can be pickled",
    "TaskTestCase.test_unpickle_non_task_object": "tasks that can be pickled",
    "TaskTestCase.test_run_after_in_decorator": "the sentence about run_after in the decorator",
    "DummyBackendTestCase.test_validate_disallowed_async_task": "the sentence has another spelling",
}
# They use a second backend that executes at once, beside one that does not.
AT_ONCE = {"test_task_error_invalid_exception", "test_task_error_unknown_module"}


def turned(folder: Path) -> None:
    """Turn the settings of the tests to our backend, and their imports to the backport where Django has no tasks yet."""
    for path in (folder / "tasks").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(
            r'"django\.tasks\.backends\.(dummy\.Dummy|immediate\.Immediate)Backend"', f'"{OURS}"', text
        )
        if django.VERSION < (6,):
            text = text.replace("from django.tasks", "from django_tasks").replace(
                '"django.tasks"', '"django_tasks"'
            )
            text = re.sub(r"\b(InvalidTask|InvalidTaskBackend)\b", r"\1Error", text)
        path.write_text(text, encoding="utf-8")


def configure(url: str) -> None:
    settings.configure(
        INSTALLED_APPS=["tasks", "jobmanager.contrib.django"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        JOBMANAGER={"DATABASE_URL": url, "BACKEND": "local"},
        TASKS={"default": {"BACKEND": OURS, "QUEUES": []}, "immediate": {"BACKEND": OURS, "QUEUES": []}},
        USE_TZ=True,
        SECRET_KEY="of a test",
    )
    django.setup()


class Told(unittest.TestResult):
    def __init__(self) -> None:
        super().__init__()
        self.passed: list[str] = []
        self.failed: dict[str, str] = {}

    def _fail(self, test: unittest.TestCase, error: object) -> None:
        self.failed[name_of(test)] = self._exc_info_to_string(error, test)[-1500:]  # type: ignore[attr-defined]

    def addSuccess(self, test: unittest.TestCase) -> None:
        if name_of(test) not in self.failed:
            self.passed.append(name_of(test))

    def addError(self, test: unittest.TestCase, error: object) -> None:
        self._fail(test, error)

    def addFailure(self, test: unittest.TestCase, error: object) -> None:
        self._fail(test, error)

    def addSubTest(self, test: unittest.TestCase, subtest: object, error: object) -> None:
        if error is not None:
            self._fail(test, error)


def name_of(test: unittest.TestCase) -> str:
    return f"{type(test).__name__}.{test._testMethodName}"


def main(folder: Path, url: str) -> None:
    turned(folder)
    sys.path.insert(0, str(folder))
    configure(url)
    from django.test import override_settings
    from tasks.test_dummy_backend import DummyBackendTestCase
    from tasks.test_immediate_backend import ImmediateBackendTestCase
    from tasks.test_tasks import TaskTestCase

    del TaskTestCase.setUp, DummyBackendTestCase.setUp  # they clear the list of the DummyBackend
    told = Told()
    for case in (TaskTestCase, DummyBackendTestCase, ImmediateBackendTestCase):
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
            at_once = case is ImmediateBackendTestCase or test._testMethodName in AT_ONCE
            backend = "noop" if at_once else "local"
            with override_settings(JOBMANAGER={"DATABASE_URL": url, "BACKEND": backend}):
                unittest.TestSuite([test]).run(told)
                told._previousTestClass = None  # the next one of this class is set up again
    print(json.dumps({"passed": told.passed, "failed": told.failed, "django": django.get_version()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
