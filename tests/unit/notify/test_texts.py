"""Texts: what a message says in which language, whatever stands in its facts."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from typing import Any

import pytest

from jobmanager.notify.texts import ENGLISH, LONGEST_SUBJECT, Texts, length
from jobmanager.stores.outbox import Letter, Notification, NotificationState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENTS = sorted({key.partition(".")[0] for key in ENGLISH if key.endswith(".subject")})


def a_letter(event: str = "failed", count: int = 1, listed: int = 1, **details: Any) -> Letter:
    notifications = [
        Notification(
            id=f"n-{number}",
            namespace="default",
            event=event,
            job_id="nightly",
            subject=f"run-{number}",
            channel="email",
            address="",
            fold="",
            state=NotificationState.WAITING,
            created_at=NOON,
            due_at=NOON,
            details={"run": f"run-{number}", "error": "OSError: no disk", "title": "Low stock", **details},
        )
        for number in range(listed)
    ]
    return Letter(
        id="message",
        event=event,
        job_id="nightly",
        channel="email",
        address="",
        count=count,
        notifications=notifications,
    )


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("count", [1, 3])
def test_every_event_has_a_subject_and_a_text(event: str, count: int) -> None:
    subject, text = Texts().written(a_letter(event, count=count, listed=count), "en")

    assert subject
    assert "{" not in subject + text
    assert "\n" not in subject


def test_an_instant_is_told_in_the_zone_of_the_job() -> None:
    _, text = Texts().written(a_letter(instant="2026-07-01T00:30:00+00:00", zone="Europe/Berlin"), "en")

    assert "2026-07-01 02:30:00 Europe/Berlin" in text


@pytest.mark.parametrize(
    "details", [{"instant": "soon"}, {"zone": "Nowhere/Else", "instant": NOON.isoformat()}, {"instant": 5}]
)
def test_an_instant_that_cannot_be_read_is_when_it_was_noted(details: dict[str, Any]) -> None:
    _, text = Texts().written(a_letter(**details), "en")

    assert "2026-03-01 12:00:00 UTC" in text


def test_a_subject_is_one_line_that_a_phone_shows() -> None:
    subject, _ = Texts().written(a_letter(error="x" * 5000 + "\r\nBcc: a@b.c"), "en")

    assert subject.startswith("nightly failed: xxx")
    assert len(subject) == LONGEST_SUBJECT


def test_a_count_names_the_others_and_how_many_more() -> None:
    subject, text = Texts().written(a_letter(count=1000, listed=20), "en")

    assert subject.startswith("nightly failed 1,000 times: ")
    assert text.count("- 2026") == 19
    assert "... and 980 more" in text


def test_a_locale_falls_back_key_by_key() -> None:
    texts = Texts({"de": {"failed.subject": "{job} scheiterte"}, "de_AT": {"failed.text": "Jo mei."}})

    subject, text = texts.written(a_letter(), "de-AT")

    assert (subject, text.splitlines()[0]) == ("nightly scheiterte", "Jo mei.")
    assert texts.written(a_letter(), "fr")[0].startswith("nightly failed")


@pytest.mark.parametrize("template", ["{", "{0}", "{error.__class__}", "{missing}", "{error!x}", "{job:%d}"])
def test_a_template_that_cannot_be_used_gives_way(template: str) -> None:
    subject, _ = Texts({"de": {"failed.subject": template}}).written(a_letter(), "de")

    assert subject == "nightly failed: OSError: no disk" or "class" in subject


def test_every_field_of_the_english_texts_is_a_plain_name() -> None:
    for text in ENGLISH.values():
        for _, name, spec, _ in string.Formatter().parse(text):
            assert name is None or (name.isidentifier() and not spec)


def test_durations_are_told_in_words() -> None:
    assert [length(seconds) for seconds in (0.25, 42, 61, 3725, "soon")] == [
        "0.2 s",
        "42 s",
        "0:01:01",
        "1:02:05",
        "soon",
    ]
