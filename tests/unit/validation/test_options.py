"""Options of a job, read at the door: every option times wrong types and ranges, generated from their description."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from jobmanager import JobManager, Retry, Settings
from jobmanager.errors import ConfigurationError, CronError
from jobmanager.job import (
    KNOWN_OPTIONS,
    POLICY_OPTIONS,
    RETRY_OPTIONS,
    STORED_OPTIONS,
    Job,
    JobOptions,
    Policies,
    PolicyWords,
)
from jobmanager.ledger.overrides import OVERRIDABLE, in_force
from jobmanager.schedule import Every
from jobmanager.stores.values import JobRow
from jobmanager.validation.kinds import (
    Delays,
    Duration,
    Exceptions,
    Flag,
    Number,
    OneOf,
    Seconds,
    Several,
    Text,
    TextMapping,
    Whole,
)
from jobmanager.validation.options import Option

NAN, INF = float("nan"), float("inf")


class Hostile:
    """A value whose every question raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __len__(self) -> int:
        raise RuntimeError("no length")


ANYTHING: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**70, -(2**70), 0.0, 0.5, -0.5, NAN, INF, -INF, 1e300, 1j, "", "x", "high", "yes", "5m",
    "no\0text", "half \ud800", "x" * 100_000, b"5m", [], [1], ["x"], (), (1,), {}, {"a": 1}, {1: "a"}, {"a\0": 1},
    {"a": ["\udfff"]}, set(), object(), Hostile(), print, int, OSError, OSError(), [OSError], timedelta(0), timedelta.max,
    timedelta.min, timedelta(seconds=-1), datetime(2026, 1, 1, tzinfo=UTC), Retry(), Ellipsis,
)  # fmt: skip

BEYOND: dict[type, tuple[Any, ...]] = {
    Duration: (NAN, INF, -INF, -1, 1e300, -1e300, 2**70, True, "", "abc", "-5m", "5 parsecs", "9" * 400, timedelta.max,
               timedelta.min, timedelta(days=36_501), b"5", [5]),
    Seconds: (NAN, INF, -INF, -1, 1e300, 2**70, True, "", "abc", "-5m", timedelta.max, None, [5]),
    Number: (NAN, INF, -INF, -1, 2**70, True, "1", None),
    Delays: ((), [], [-1], [NAN], [INF], ["x"], [None], [True], [1, -1], 5, "5m", {}, [[1]]),
    Exceptions: ("OSError", ["OSError"], [OSError()], OSError(), int, [int], None, 5, {"a": OSError}),
    OneOf: ("", "nonsense", 3, True, ["skip"], b"skip"),
    Text: ("", "a\0", "\ud800", "x" * 2_000, 3, True, b"x", ["x"], object()),
    TextMapping: (None, [], "x", {1: 2}, {"a": {"b": "\0"}}, {"\ud800": 1}),
}  # fmt: skip


@pytest.fixture
def jobs() -> JobManager:
    return JobManager(Settings(backend="noop", database_url="memory://"))


def beyond(item: Option) -> tuple[Any, ...]:
    if isinstance(item.kind, Whole):
        return (
            item.kind.low - 1,
            item.kind.high + 1,
            2**70,
            -(2**70),
            True,
            False,
            1.0,
            NAN,
            INF,
            "3",
            b"3",
            [3],
            object(),
        )
    return BEYOND.get(type(item.kind), (object(),))


def type_says(hint: Any, value: Any) -> bool:
    """Whether the published type of an option admits the value; pydantic is asked, which knows nothing of our kinds."""
    adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def refusal(jobs: JobManager, job_id: str, word: str, value: Any) -> str | None:
    """The sentence with which the door refuses a value, complete with job and line; None if it takes it."""
    try:
        jobs.add_job(job_id, lambda: None, **{word: value})
    except (ConfigurationError, CronError) as error:
        text = str(error)
    else:
        return None
    assert text.startswith(f"Job {job_id!r}: "), text
    assert re.search(rf" \(at {re.escape(__file__)}:\d+\)$", text), text
    assert len(text) < 1_000
    return text.removeprefix(f"Job {job_id!r}: ")


@pytest.mark.parametrize("word", sorted(KNOWN_OPTIONS))
def test_an_option_takes_what_its_type_admits_or_refuses_it_in_a_sentence(
    jobs: JobManager, word: str
) -> None:
    hint = get_type_hints(JobOptions)[word]
    for number, value in enumerate(ANYTHING):
        job_id = f"door-{number}"
        sentence = refusal(jobs, job_id, word, value)
        if sentence is None:
            left_out = value is None and word in ("cron", "every", "at")
            assert left_out or type_says(hint, value), f"{word} takes number {number} of ANYTHING"
            job = jobs.registry.jobs[job_id]
            again = Job(**{item.name: getattr(job, item.name) for item in fields(Job)})
            assert json.loads(job.declared()) == json.loads(again.declared())
        elif word in POLICY_OPTIONS:
            assert sentence.startswith(f"{word}=") or "memory_limit needs isolation" in sentence


@pytest.mark.parametrize("word", sorted(POLICY_OPTIONS))
def test_a_value_out_of_the_range_of_its_option_is_refused(jobs: JobManager, word: str) -> None:
    for number, value in enumerate(beyond(POLICY_OPTIONS[word])):
        sentence = refusal(jobs, f"door-{number}", word, value)
        assert sentence, f"{word} takes number {number}"
        assert sentence.startswith(f"{word}=")


@pytest.mark.parametrize("word", sorted(RETRY_OPTIONS))
def test_a_retry_refuses_what_it_cannot_do(word: str) -> None:
    item = RETRY_OPTIONS[word]
    for value in beyond(item):
        if not (value is None and item.optional):
            with pytest.raises(ConfigurationError, match=rf"^Retry: {word}=") as refused:
                Retry(**{word: value})
            assert f"(at {__file__}:" in str(refused.value)


@pytest.mark.parametrize(("word", "item"), [*POLICY_OPTIONS.items(), *RETRY_OPTIONS.items()])
def test_the_ends_of_a_range_belong_to_it(word: str, item: Option) -> None:
    if isinstance(item.kind, Whole):
        assert [item.read(end) for end in (item.kind.low, item.kind.high)] == [item.kind.low, item.kind.high]
    if isinstance(item.kind, Duration):
        assert item.read("100w") == timedelta(weeks=100)
        assert item.read(timedelta(days=36_500)) == timedelta(days=36_500)
    assert item.read(item.default) is item.default, word


def test_what_can_be_meant_is_read_into_one_form(jobs: JobManager) -> None:
    job = jobs.add_job(
        "door",
        lambda: None,
        every="1m30s",
        retry=3,
        timeout="1h30m",
        jitter=0.5,
        catch_up_window=timedelta(minutes=1),
        start_deadline="90",
    )
    retry = Retry(
        max_attempts=2,
        retry_on=[OSError, KeyError],
        give_up_on=ValueError,
        delays=["1m", 2, timedelta(hours=1)],  # type: ignore[arg-type]
    )

    assert (job.retry, job.timeout, job.jitter) == (
        Retry(max_attempts=3),
        timedelta(minutes=90),
        timedelta(seconds=0.5),
    )
    assert (job.catch_up_window, job.start_deadline) == (timedelta(minutes=1), timedelta(seconds=90))
    assert job.schedule is not None
    assert job.schedule.text == "every 90s"
    assert (retry.retry_on, retry.give_up_on, retry.delays) == (
        (OSError, KeyError),
        (ValueError,),
        (60.0, 2, 3600.0),
    )
    assert hash(retry) == hash(
        Retry(max_attempts=2, retry_on=(OSError, KeyError), give_up_on=(ValueError,), delays=(60, 2, 3600))
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every": 5, "dst": "skip"}, "dst='skip' belongs to cron="),
        ({"cron": "0 2 * * *", "dst": "skp"}, "dst='skp': 'skp' is no policy for changes of the clocks"),
        ({"every": 5, "timezone": "Europe/Berlin"}, r"timezone='Europe/Berlin' belongs to cron="),
        ({"timezone": "Europe/Berlin"}, "belongs to cron="),
        ({"every": "soon"}, "An interval is at least 1 s"),
        ({"every": True}, "An interval is at least 1 s"),
        ({"every": 5, "cron": "* * * * *"}, "exclude each other"),
        ({"cron": 5}, "A cron expression is a text"),
        ({"cron": "61 * * * *"}, "61"),
        ({"cron": "* * * * *", "timezone": "x" * 100_000}, "A time zone is given by its IANA name"),
        ({"at": "tomorrow"}, "'tomorrow' is not a moment"),
        ({"at": datetime.max}, "does not say in which zone"),
        ({"name": 3}, "name=3 cannot be used"),
        ({"name": "a\0"}, "NUL"),
        ({"tiemout": 5}, "Did you mean 'timeout'"),
        ({"memory_limit": 5}, "memory_limit needs isolation='process'"),
        ({"retry": {"max_attempts": 3}}, "retry="),
        ({"retry": 0}, "retry=0"),
        (
            {"visibility": "nonsense"},
            "visibility='nonsense' cannot be used; use one of team, project, system",
        ),
    ],
)
def test_a_declaration_that_cannot_work_names_its_job_and_its_line(
    jobs: JobManager, options: dict[str, Any], says: str
) -> None:
    with pytest.raises((ConfigurationError, CronError), match=says) as refused:
        jobs.add_job("door", lambda: None, **options)

    assert str(refused.value).startswith("Job 'door'")
    assert f"{__file__}:" in str(refused.value)
    assert not jobs.registry.jobs


@pytest.mark.parametrize("job_id", [None, 3, "", "Not A Slug", "a\0", b"x", ["x"], "x" * 129, print])
def test_an_id_that_is_no_slug_is_refused_where_the_decorator_stands(jobs: JobManager, job_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a slug"):
        jobs.job(job_id)


@pytest.mark.parametrize("word", sorted(OVERRIDABLE.keys() - {"config"}))
def test_an_override_takes_no_more_than_a_declaration(jobs: JobManager, word: str) -> None:
    jobs.add_job("door", lambda: None, every=60)
    for value in beyond(OVERRIDABLE[word]):
        with pytest.raises(ConfigurationError, match=f"{word}="):
            jobs.override_job("door", **{word: value})
    assert jobs.registry.jobs["door"] == jobs.registry.declared["door"]


@pytest.mark.parametrize("word", sorted(OVERRIDABLE.keys() - {"config"}))
def test_an_override_of_any_option_that_has_one_is_in_force(word: str) -> None:
    item = OVERRIDABLE[word]
    job = Job(id="door", name="door", handler="door", schedule=Every(60))
    words = {"catch_up": "all", "visibility": "system", "on_change": "now"}
    value: Any = {Whole: 7, Duration: timedelta(seconds=7), Flag: True, Several: ("failed",)}.get(
        type(item.kind), words.get(word, "allow")
    )

    changed = in_force(job, {word: item.plain(value)})

    assert getattr(changed.retry if word in RETRY_OPTIONS and word != "jitter" else changed, word) == value
    assert changed.declared() != job.declared()


def test_the_words_that_type_checkers_know_are_the_options() -> None:
    assert set(get_type_hints(PolicyWords)) == set(POLICY_OPTIONS)
    assert set(get_type_hints(JobOptions)) == KNOWN_OPTIONS
    assert {item.name for item in fields(Retry)} == set(RETRY_OPTIONS)


def test_a_stored_option_is_a_field_of_the_row_with_the_same_default() -> None:
    row = {item.name: item.default for item in fields(JobRow)}
    assert {name: row[name] for name in STORED_OPTIONS} == {
        name: item.default for name, item in STORED_OPTIONS.items()
    }
    assert {item.name for item in fields(Policies)} <= STORED_OPTIONS.keys()
