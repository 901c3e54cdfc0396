"""Findings about Celery for `jobmanager doctor`: the broker, the application's settings, and the consumers of each queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from amqp.exceptions import AccessRefused
from celery import Celery
from kombu.entity import Queue

from jobmanager.backends.base import Found
from jobmanager.backends.celery.application import TASK, is_amqp, queue_named
from jobmanager.backends.celery.probe import WITHIN, connected, mismatch, use
from jobmanager.job import Job

LISTED = 5
CONSUMER_TIMEOUT = timedelta(minutes=30)  # RabbitMQ's default
REFUSED_LOGIN = ("Login was refused", "NOAUTH", "WRONGPASS", "username-password", "Authentication required")
"""Texts with which brokers refuse a wrong password."""
RIGHTS = "Grant its user the rights that docs/howto/celery.md lists under 'Rights'."
REFUSALS = {
    "maxmemory": "Raise its maxmemory, or remove what else fills it.",
    "read only replica": "It is a replica: name the primary in {variable}.",
    "MISCONF": "Redis cannot save to its disk: see its log, free the disk, or switch saving off with CONFIG SET save ''.",
    "no permissions": RIGHTS,
    "ACCESS_REFUSED": RIGHTS,
    "short of memory or disk": "`rabbitmqctl status` names its alarms: free memory or disk, or raise the limits.",
}
"""Texts with which brokers refuse a message, and what to do about each."""

T = TypeVar("T")


def examine(app: Celery, jobs: Sequence[Job], *, queue: str, group_max: int) -> Iterator[Found]:
    """All that can be said without a store, the broker first."""
    used: dict[str, list[str]] = {}
    for job in jobs:
        used.setdefault(job.queue or queue, []).append(job.id)
    queues = _declared(app, used, queue)
    broker = _broker(app, queues)
    yield broker
    yield from _messages(app)
    yield from _limits(app, jobs, group_max)
    yield from _patience(app, jobs)
    yield from _company(app)
    yield from _unknown_queues(app, used)
    if broker.level == "ok":
        yield from _forms(app, used, queues)
        yield from _queues(app, used)


def _declared(app: Celery, names: Iterable[str], own: str) -> list[Queue]:
    """Return these queues as the application declares them, without those that it does not know."""
    queues = []
    for name in names:
        with suppress(KeyError):
            queues.append(queue_named(app, name, own=name == own))
    return queues


def _broker(app: Celery, queues: Sequence[Queue]) -> Found:
    variable = "JOBMANAGER_CELERY_BROKER_URL" if app.main == "jobmanager" else "the application's broker_url"
    away = "Until then runs are opened and stay pending."
    try:
        shown = app.connection_for_write().as_uri()
    except ImportError as error:  # of the transport
        return Found(
            level="failing",
            text=f"The broker needs the package {error.name or error}, which is not installed.",
            fix=f"Install it, or name redis://host:6379/0 or amqp://user:password@host// in {variable}.",
        )
    try:
        _within(2 * WITHIN, lambda: _knock(app, queues))
    except TimeoutError:
        return Found(
            level="failing",
            text=f"The broker {shown} does not answer within {2 * WITHIN:g} s.",
            fix=f"See whether it hangs, a firewall drops what is sent there, or {variable} names another port. {away}",
        )
    except Exception as error:  # noqa: BLE001 - brokers raise what they like, and all of it means: out of reach
        text = f"The broker {shown} cannot be used: {_without_password(app, error)}"
        if any(word in str(error) for word in REFUSED_LOGIN):
            return Found(level="failing", text=text, fix=f"Correct user and password in {variable}. {away}")
        away_or = f"Start it if it does not run, see whether this host reaches it, or correct {variable}."
        refused = (advice for words, advice in REFUSALS.items() if words in str(error))
        fix = next(refused, away_or).format(variable=variable)
        return Found(level="failing", text=text, fix=f"{fix} {away}")
    return Found(level="ok", text=f"the broker {shown} answers and takes messages")


def _knock(app: Celery, queues: Sequence[Queue]) -> None:
    with connected(app) as connection:
        use(connection, queues)


def _forms(app: Celery, used: dict[str, list[str]], queues: Sequence[Queue]) -> Iterator[Found]:
    """Judge whether RabbitMQ has the queues in the form in which the application declares them."""
    if not is_amqp(app):
        return
    with connected(app) as connection:
        for queue in queues:
            error = mismatch(connection, queue)
            if error is None:
                continue
            refused = isinstance(error, AccessRefused)
            fix = (
                RIGHTS
                if refused
                else (
                    f"Stop the workers, delete it (`rabbitmqctl delete_queue {queue.name}`) and start them: no run is lost, what is "
                    "pending is sent again. Or declare it in task_queues as it is."
                )
            )
            yield Found(
                level="failing",
                text=(
                    f"No worker can take from queue {queue.name!r}, where the runs of {_some(used[queue.name])} go: "
                    f"{'RabbitMQ refuses it' if refused else 'it exists in another form than the application declares'}, "
                    f"{error.reply_text}."
                ),
                fix=fix,
            )


def _without_password(app: Celery, error: Exception) -> str:
    sentence, password = (
        f"{type(error).__name__}: {error}".rstrip(".") + ".",
        app.connection_for_write().password,
    )
    return sentence.replace(password, "***") if password else sentence


def _messages(app: Celery) -> Iterator[Found]:
    conf = app.conf
    if not {"json", "application/json"} & set(conf.accept_content or ()):
        accepted = ", ".join(sorted(conf.accept_content or ())) or "nothing"
        yield Found(
            level="failing",
            text=f"The application's workers accept {accepted}, and runs travel as json.",
            fix="Add 'json' to accept_content.",
        )
    if conf.task_protocol != 2:
        yield Found(
            level="warning",
            text=f"task_protocol is {conf.task_protocol}; runs are made for 2, and nothing else is tested.",
            fix="Remove task_protocol from the application's configuration.",
        )
    if conf.task_always_eager:
        yield Found(
            level="note", text="task_always_eager does not hold for runs: they go to the broker all the same"
        )


def _limits(app: Celery, jobs: Sequence[Job], group_max: int) -> Iterator[Found]:
    """Judge time limits: a message carries its job's own hard limit, but no soft one, and in a group none at all."""
    task = app.tasks[TASK]
    soft, hard = task.soft_time_limit, task.time_limit
    for name, limit, holds in (
        ("task_soft_time_limit", soft, True),
        ("task_time_limit", hard, group_max > 1),
    ):
        if limit is None:
            continue
        cut = [job for job in jobs if holds and job.timeout and job.timeout.total_seconds() > limit]
        for job in cut[:LISTED]:
            yield Found(
                level="warning",
                text=f"Job {job.id!r} may take {job.timeout.total_seconds():g} s, but {name} of the application ends it after {limit:g} s.",  # type: ignore[union-attr]  # looked at above
                fix=f"Give the job a shorter timeout, or exempt our task: task_annotations={{'{TASK}': {{'{name.removeprefix('task_')}': None}}}}.",
            )
        free = [job.id for job in jobs if job.timeout is None]
        if free:
            yield Found(
                level="note",
                text=f"{name} of the application ends runs after {limit:g} s that have no timeout of their own: {_some(free)}",
            )


def _patience(app: Celery, jobs: Sequence[Job]) -> Iterator[Found]:
    """Judge whether a long run can end its worker: our own application sees to that."""
    if not is_amqp(app) or app.conf.broker_channel_error_retry:
        return
    long = [job.id for job in jobs if job.timeout is None or job.timeout > CONSUMER_TIMEOUT]
    if long:
        yield Found(
            level="warning",
            text=(
                "A worker of this application ends when a run takes longer than RabbitMQ's consumer_timeout (30 minutes "
                f"unless it is configured), as these may: {_some(long)}."
            ),
            fix="Set broker_channel_error_retry=True in the application, or give these jobs a timeout of 30 minutes at most.",
        )


def _company(app: Celery) -> Iterator[Found]:
    """Judge what else lives in an application of the user's."""
    if app.conf.beat_schedule:
        names = _some(sorted(app.conf.beat_schedule))
        yield Found(
            level="note",
            text=f"the application's own beat_schedule goes on, in one beat at a time, without a record here: {names}",
        )
    if app.conf.result_backend:
        yield Found(level="note", text="a result backend is set; runs put nothing there, the store has them")


def _unknown_queues(app: Celery, used: dict[str, list[str]]) -> Iterator[Found]:
    """Celery makes a queue when it is first named, unless the application forbids that."""
    if app.conf.task_create_missing_queues:
        return
    for name in sorted(used.keys() - app.amqp.queues.keys()):
        yield Found(
            level="failing",
            text=f"The application knows no queue {name!r} and makes none (task_create_missing_queues): the runs of {_some(used[name])} cannot be sent.",
            fix=f"Add Queue({name!r}) to task_queues.",
        )


def _queues(app: Celery, used: dict[str, list[str]]) -> Iterator[Found]:
    """Judge the queues that runs go to, and whether a worker takes from each, as far as workers reply."""
    sentence = ", ".join(f"{name} ({len(ids)})" for name, ids in sorted(used.items()))
    try:
        answers = _within(2 * WITHIN, lambda: _active_queues(app))
    except Exception:  # noqa: BLE001 - remote control is a convenience of Celery, and may be off
        answers = {}
    if not answers:
        yield Found(
            level="note",
            text=f"jobs by queue: {sentence}; no worker answered, so nobody knows who takes from them",
        )
        return
    taken = {queue["name"] for queues in answers.values() for queue in queues or ()}
    yield Found(level="ok", text=f"jobs by queue: {sentence}; workers that answer: {len(answers)}")
    for name in sorted(used.keys() - taken):
        yield Found(
            level="warning",
            text=f"No worker that answers takes from queue {name!r}, where the runs of {_some(used[name])} go.",
            fix=f"Start `jobmanager worker`, which takes from every queue that jobs name, or one with --queues {name}.",
        )


def _active_queues(app: Celery) -> dict[str, list[dict[str, Any]]]:
    with app.connection_for_write() as connection:
        answers: dict[str, list[dict[str, Any]]] | None = app.control.inspect(
            timeout=WITHIN / 2, connection=connection
        ).active_queues()
    return answers or {}


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return or raise what the call does; TimeoutError if neither in time. Looking up a name, and some brokers, know no limit."""
    ended: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            ended.put((call(), None))
        except Exception as error:  # noqa: BLE001 - the caller gets it
            ended.put((None, error))

    threading.Thread(target=run, name="jobmanager-examination", daemon=True).start()
    try:
        value, error = ended.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # None is what it returned


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
