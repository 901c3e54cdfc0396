"""Handlers for child processes. A child imports this file alone, by the path that the tests put on sys.path."""

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import signal
import sys
import time

from jobmanager import CancelRun, JobManager, NonRetryable, RetryLater, Settings

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def surrounds(context):
    logger.warning("in %d", os.getpid())
    yield
    logger.warning("out %d", os.getpid())


@contextlib.asynccontextmanager
async def surrounds_async(context):
    with surrounds(context):
        yield


class Unreadable:
    """An around that the child cannot read."""

    def __call__(self, context):
        return contextlib.nullcontext()

    def __reduce__(self):
        return (int, ("no number",))


class RefusedError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def asks_once(context):
    return context.once("key", int)


def face(context, days: int = 30, since: "str | None" = None):
    logger.info("from a logger")
    context.log.info("to the context")
    context.progress(3, 4, "nearly")
    return {
        "pid": os.getpid(),
        "job": context.job.id,
        "run_id": context.run_id,
        "attempt": context.attempt,
        "key": context.idempotency_key,
        "config": context.config,
        "payload": context.payload,
        "days": days,
        "lease_ok": context.lease_ok(),
        "started_at": context.started_at.isoformat(),
        "previous": str(context.previous_tick),
    }


def waits_for(url: str, run_id: str):
    JobManager(Settings(database_url=url)).wait(run_id, timeout=0.1)


MARK = "as imported"


def mark():
    return MARK


def pid():
    return os.getpid()


async def coroutine(context):
    await asyncio.sleep(0)
    return "awaited"


def refuses():
    raise RefusedError("this", "that")


def steered(word: str):
    raise {"later": RetryLater(0, "not yet"), "cancel": CancelRun("enough"), "never": NonRetryable("no")}[
        word
    ]


def dies(how: str):
    logging.getLogger(__name__).warning("last words")
    if how == "segfault":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest's faulthandler is not here, but be sure
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(7)


def until_cancelled(context):
    context.log.info("pid %d", os.getpid())
    while True:
        context.raise_if_cancelled()
        time.sleep(0.01)


def deaf(context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context.log.info("pid %d", os.getpid())
    while True:
        time.sleep(1)


def holds_the_interpreter(context):
    context.log.info("pid %d", os.getpid())
    ctypes.PyDLL(None).usleep(ctypes.c_uint(60_000_000))


def hungry(mib: int):
    return len(bytearray(mib * 1024 * 1024))


def large(kind: str):
    return {"text": "x" * 3_000_000, "object": object(), "set": {1, 2}, "tuple": (1, (2, 3))}[kind]


def prints():
    print("said by the child")
    sys.stdout.write("without a newline")


def talks(count: int):
    for number in range(count):
        logger.warning("line %d", number)


def not_top():
    def inner():
        return None

    return inner


bound = functools.partial(hungry, 1)


class Bomb:
    """What runs code in every process that unpickles it."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


def attacks_its_host(context, path: str, kind: str):
    """Write to whatever leads out of this process: the host must read none of it as code, and record the run all the same."""
    import json
    import pickle
    import stat
    import struct

    told = {
        "pickle": pickle.dumps(Bomb(path)),
        "no json": b"{",
        "no message": json.dumps({"a": 1}).encode(),
        "no outcome": json.dumps(["done", {"status": "running"}]).encode(),
        "no kind": json.dumps(["exec", "1"]).encode(),
    }[kind]
    message = struct.pack("!i", len(told)) + told
    for descriptor in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.set_blocking(descriptor, False)
                os.write(descriptor, message)
        except OSError:
            continue
    context.log.info("written")
    return Bomb(path)
