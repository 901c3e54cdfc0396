"""`jobs.aio` has every method of JobManager with the signature of that method, and nothing else."""

import inspect
import threading

import pytest

from jobmanager import JobManager, RunStatus
from jobmanager.errors import JobNotFoundError, RunNotFoundError, WaitTimeoutError
from jobmanager.manager.aio import AsyncJobManager
from jobmanager.settings import Settings

# Decorators are used while modules are imported, lifespan is a coroutine's already, run_forever wants the main thread, and
# what surrounds a fork is called by the interpreter.
SYNCHRONOUS_ONLY = {
    "after_fork",
    "after_fork_in_parent",
    "before_fork",
    "handler",
    "job",
    "lifespan",
    "lifespan_with",
    "run_forever",
    "webhook",
}


def methods_of(face: type) -> dict[str, object]:
    return {name: method for name, method in inspect.getmembers(face, callable) if not name.startswith("_")}


def test_every_method_that_applications_await_is_there_and_nothing_else():
    assert methods_of(AsyncJobManager).keys() == methods_of(JobManager).keys() - SYNCHRONOUS_ONLY


@pytest.mark.parametrize("name", sorted(methods_of(AsyncJobManager)))
def test_signature_is_the_one_of_the_manager(name):
    awaited = getattr(AsyncJobManager, name)

    assert inspect.iscoroutinefunction(awaited)
    assert inspect.signature(awaited) == inspect.signature(getattr(JobManager, name))


@pytest.mark.parametrize("name", sorted(methods_of(AsyncJobManager).keys() - {"wait"}))  # it holds no thread
async def test_every_argument_reaches_the_manager_on_another_thread(name):
    seen = []

    class Manager:
        def __getattr__(self, method):
            def call(*args, **kwargs):
                bound = inspect.signature(getattr(JobManager, method)).bind(self, *args, **kwargs)
                seen.append((method, threading.get_ident(), dict(list(bound.arguments.items())[1:])))
                return method

            return call

    given = {}
    for parameter in list(inspect.signature(getattr(JobManager, name)).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            given["priority"] = 7
        else:
            given[parameter.name] = object()
    result = await getattr(AsyncJobManager(Manager()), name)(**given)

    ((method, thread, received),) = seen
    expected = dict(given)
    if "priority" in given and "priority" not in received:
        (words,) = {"options", "policies", "words"} & received.keys()
        expected[words] = {"priority": expected.pop("priority")}
    assert (method, received) == (name, expected)
    assert thread != threading.get_ident()
    assert result == name or inspect.signature(getattr(JobManager, name)).return_annotation == "None"


def test_a_name_that_no_method_has_is_an_attribute_error():
    with pytest.raises(AttributeError, match="triger_job"):
        JobManager(Settings(database_url="memory://")).aio.triger_job  # noqa: B018


async def test_results_and_errors_are_the_manager_s():
    jobs = JobManager(Settings(backend="noop", database_url="memory://"))
    jobs.job("greet")(lambda: "hello")

    run = await jobs.aio.trigger_job("greet")

    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "hello")
    assert await jobs.aio.wait(run.id) == run
    with pytest.raises(JobNotFoundError):
        await jobs.aio.trigger_job("great")


async def test_a_wait_ends_with_the_errors_of_the_manager():
    jobs = JobManager(Settings(database_url="memory://"))
    jobs.add_job("greet", lambda: "hello")
    run = await jobs.aio.trigger_job("greet", delay=60)

    with pytest.raises(WaitTimeoutError, match=r"is still pending after 0\.2 s"):
        await jobs.aio.wait(run.id, timeout=0.2)
    with pytest.raises(RunNotFoundError):
        await jobs.aio.wait("no-such-run")
