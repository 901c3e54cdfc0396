"""Policies as fields: every option that may be changed has one, and what a field shows is what it reads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobmanager.job import POLICY_OPTIONS, RETRY_OPTIONS, Retry, make_job
from jobmanager.ledger.definition import WORDS
from jobmanager.ledger.job_view import JobView
from jobmanager.ledger.overrides import OVERRIDABLE
from jobmanager.present.policy_fields import (
    OF_DECLARED,
    OF_STORED,
    policy_groups,
    policy_values,
    read_policies,
)

SAID: dict[str, Any] = {
    "overlap": "queue_all",
    "queue_cap": 7,
    "catch_up": "all",
    "catch_up_cap": 3,
    "catch_up_window": "2d",
    "start_deadline": 90,
    "jitter": "5m",
    "pause_after_failures": 4,
    "visibility": "project",
    "on": "user/created",
    "retry": Retry(
        max_attempts=5,
        delays=(1, 60, 5400),
        base=0.5,
        factor=3,
        max_delay=7,
        jitter=0.25,
        on_crash=False,
        on_shutdown=False,
    ),
    "timeout": 0.25,
    "max_runs": 12,
    "first": "now",
    "on_change": "now",
    "run_timeout": "3d",
    "isolation": "process",
    "memory_limit": 512,
    "priority": -3,
    "queue": "slow",
    "locale": "de",
    "notify_on_failure": True,
    "alert_on": ["missed", "recovered"],
    "alert_to": ["ops@example.com", "hook"],
    "alert_late": "10m",
    "alert_running": "1h",
    "ping_url": "https://hc.example/x",
    "retention": "30d",
    "keep_runs": 100,
}


def view_of(**words: Any) -> JobView:
    job = make_job("job", "handler", words)  # type: ignore[arg-type]
    return JobView(
        id="job", job=job, row=None, schedule=None, next_run=None, last=None, state="active", why=""
    )


def test_every_option_that_may_be_changed_has_a_field_in_a_group() -> None:
    assert {key for key in OF_STORED if not key.startswith("retry.")} == WORDS & POLICY_OPTIONS.keys() - {
        "config",
        "retry",
    }
    assert {key.removeprefix("retry.") for key in OF_DECLARED} == OVERRIDABLE.keys() - {"config"}
    assert set(SAID) == {key.partition(".")[0] for key in OF_STORED}
    shown = [field.key for group in policy_groups(OF_STORED, {}, {}) for field in group.fields]
    assert sorted(shown) == sorted(OF_STORED)
    assert all(field.hint for group in policy_groups(OF_STORED, {}, {}) for field in group.fields)


def test_what_the_fields_show_means_the_same_job_again() -> None:
    said = make_job("job", "handler", {**SAID, "cron": "* * * * *"})  # type: ignore[arg-type]
    shown = {key: value for key, value in _shown(said).items() if value}
    words, errors = read_policies(OF_STORED, shown, shown.keys(), stored=True)
    assert errors == {}
    words["retry"] = Retry(**words["retry"])
    assert make_job("job", "handler", {**words, "cron": "* * * * *"}) == said  # type: ignore[arg-type]


def _shown(job: Any) -> dict[str, str]:
    from jobmanager.present.policy_fields import _text

    return {
        key: _text(item.kind, getattr(job.retry if key.startswith("retry.") else job, item.name))
        for key, item in OF_STORED.items()
    }


def test_fields_show_what_can_be_typed() -> None:
    shown = _shown(make_job("job", "handler", {**SAID, "cron": "* * * * *"}))  # type: ignore[arg-type]
    assert shown["catch_up_window"] == "2d"
    assert shown["start_deadline"] == "90s"
    assert shown["retry.delays"] == "1s, 1m, 90m"
    assert shown["alert_to"] == "ops@example.com\nhook"
    assert shown["alert_on"] == "missed, recovered"
    assert shown["notify_on_failure"] == "true"
    assert policy_values(None)["retention"] == ""


@pytest.mark.parametrize(
    ("key", "typed", "takes"),
    [
        ("queue_cap", "many", "a whole number, 1 to 10,000"),
        ("queue_cap", "0", "a whole number"),
        ("timeout", "soon", "seconds, or 5m"),
        ("retry.factor", "nan", "a number, 1 to 1000"),
        ("retry.delays", "1, soon", "delays with commas between"),
        ("alert_on", "missed, nothing", "failed, recovered"),
        ("alert_to", "x" * 400, "one on each line"),
        ("overlap", "maybe", "one of skip"),
        ("notify_on_failure", "maybe", "True or False"),
        ("ping_url", "ftp://x", "an http or https URL"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_field(key: str, typed: str, takes: str) -> None:
    words, errors = read_policies(OF_STORED, {key: typed}, {key}, stored=True)
    assert words == {}
    assert takes in errors[key]


def test_an_empty_field_gives_a_stored_job_its_default_and_asks_for_a_value_of_a_declared_one() -> None:
    empty = {"timeout": "", "queue_cap": "", "retry.max_attempts": ""}
    assert read_policies(OF_STORED, empty, empty.keys(), stored=True) == (
        {"timeout": None, "queue_cap": None, "retry": None},
        {},
    )
    words, errors = read_policies(OF_DECLARED, empty, empty.keys(), stored=False)
    assert words == {"timeout": None}
    assert set(errors) == {"queue_cap", "retry.max_attempts"}


def test_the_attempts_of_a_declared_job_are_a_word_of_their_own() -> None:
    typed = {"retry.max_attempts": "3", "timeout": "2m", "retention": "2d"}
    assert read_policies(OF_DECLARED, typed, typed.keys(), stored=False) == (
        {"max_attempts": 3, "timeout": "2m"},
        {},
    )


def test_of_a_stored_job_all_options_of_retry_are_kept_when_one_is_changed() -> None:
    typed = {"retry.max_attempts": "3", "retry.base": "10", "retry.jitter": "0.1"}
    words, _ = read_policies(OF_STORED, typed, {"retry.base"}, stored=True)
    assert words == {"retry": {"max_attempts": 3, "base": 10}}


def test_groups_say_how_many_differ_and_whether_one_is_wrong() -> None:
    view = view_of(timeout=timedelta(minutes=5), retry=3)
    groups = {
        group.title: group
        for group in policy_groups(OF_DECLARED, policy_values(view), {"priority": "Cannot be read."})
    }
    assert groups["Execution"].changed == 1
    assert groups["Execution"].is_wrong
    assert groups["Failures and retries"].changed == 1
    assert groups["Starts"].changed == 0
    assert not groups["Starts"].is_wrong


def test_links_of_the_documentation_are_no_part_of_a_hint() -> None:
    hints = {field.key: field.hint for group in policy_groups(OF_STORED, {}, {}) for field in group.fields}
    assert not any("](" in hint for hint in hints.values())
    assert hints["overlap"] == "what becomes of a start while a run of the job is active"
    assert hints["queue_cap"].endswith("default 100")


def test_all_options_of_retry_but_classes_have_a_field() -> None:
    assert {key for key in OF_STORED if key.startswith("retry.")} == {
        f"retry.{name}" for name in RETRY_OPTIONS if name not in ("retry_on", "give_up_on")
    }
