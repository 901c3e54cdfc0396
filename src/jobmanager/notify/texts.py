"""The texts of messages: English ones, and those of an application for other locales, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from jobmanager.stores.outbox import Letter, Notification
from jobmanager.validation.printable import printable, printable_lines

Catalogue = Mapping[str, str]

ENGLISH: Catalogue = {
    "failed.subject": "{job} failed: {error}",
    "failed.many": "{job} failed {count} times: {error}",
    "failed.text": "{name} failed for good. No further attempt follows.",
    "recovered.subject": "{job} works again",
    "recovered.many": "{job} works again",
    "recovered.text": "{name} has succeeded, the first time after a failure.",
    "ended.subject": "{job} {status}",
    "ended.many": "{job} ended {count} times",
    "ended.text": "{name} has ended: {status}.",
    "missed.subject": "{job} missed {instant}",
    "missed.many": "{job} missed {count} instants",
    "missed.text": "{name} was due and did not run: missed ({reason}).",
    "late.subject": "{job} is late",
    "late.many": "{job} was late {count} times",
    "late.text": "{name} was due at {instant} and had not started {seconds} later.",
    "running_long.subject": "{job} runs longer than {seconds}",
    "running_long.many": "{job} ran longer than {seconds} {count} times",
    "running_long.text": "{name} has run longer than {seconds}.",
    "paused.subject": "{job} is paused: {failures} failures in a row",
    "paused.many": "{job} was paused {count} times by failures",
    "paused.text": "{name} was paused because its last {failures} runs failed. Nothing starts it until it is resumed.",
    "dead_letters.subject": "{number} dead letters",
    "dead_letters.many": "{number} dead letters",
    "dead_letters.text": "{number} failed runs wait to be redriven or discarded, more than {limit}.",
    "backlog.subject": "{number} runs wait",
    "backlog.many": "{number} runs wait",
    "backlog.text": "{number} runs are due and wait to be executed, more than {limit}.",
    "no_time_kept.subject": "No time is kept: {error}",
    "no_time_kept.many": "No time is kept: {error}",
    "no_time_kept.text": "{error}\n{fix}",
    "store_away.subject": "The store cannot be reached",
    "store_away.many": "The store cannot be reached",
    "store_away.text": "Process {pid} on {host} cannot reach {store} since {instant}: {error}\nNothing is recorded or started meanwhile.",
    "store_back.subject": "The store was away for {seconds}",
    "store_back.many": "The store was away {count} times",
    "store_back.text": "{store} could not be reached from {instant}, for {seconds}. It can be reached again.",
    "outbox_full.subject": "{count} notifications were not kept",
    "outbox_full.many": "{count} notifications were not kept",
    "outbox_full.text": "The outbox was full: {count} more events were counted and are not told one by one.",
    "message.subject": "{title}",
    "message.many": "{title} ({count} times)",
    "message.text": "{heading}\n\n{body}\n\n{listed}",
    "test.subject": "jobmanager can send to you",
    "test.many": "jobmanager can send to you",
    "test.text": "This message was sent by `jobmanager notifications test`. Notifications of namespace {namespace} arrive here.",
    "line.instant": "Instant:   {instant}",
    "line.started_by": "Started:   by {by}",
    "line.error": "Error:     {error}",
    "line.attempt": "Attempt:   {attempt} of {max_attempts}",
    "line.duration": "Duration:  {duration}",
    "line.run": "Run:       {run}",
    "line.link": "Page:      {link}",
    "line.command": "Look:      {command}",
    "more": "{count} events are told by this message, the first of them above. The others:",
    "beyond": "... and {count} more",
    "by_hand": "by hand",
}
LONGEST_SUBJECT = 200
LONGEST_ERROR = 2000
_LINES = ("instant", "started_by", "error", "attempt", "duration", "run", "link", "command")
_SAID_BY_ITS_TEXT = frozenset({"message", "no_time_kept", "store_away"})
"""The events whose own text shows the error."""


class Texts:
    """Writes subject and text of a message in a locale; a key that its catalogue lacks, or that fails, is taken from the next one.

    For `de-AT` these are de-AT, de and en. `dashboard_url` is where run pages are, if there are any.
    """

    def __init__(
        self, catalogues: Mapping[str, Catalogue] | None = None, *, dashboard_url: str | None = None
    ) -> None:
        self._catalogues = {
            "en": ENGLISH,
            **{_plain(name): texts for name, texts in (catalogues or {}).items()},
        }
        self._dashboard_url = dashboard_url

    def written(self, letter: Letter, locale: str) -> tuple[str, str]:
        """Return subject and text of one message: no control character in either, one line the subject."""
        facts = self._facts(letter)
        kind = "subject" if letter.count == 1 else "many"
        subject = self._of(locale, f"{letter.event}.{kind}", facts)
        paragraphs = [self._of(locale, f"{letter.event}.text", facts), self._lines(locale, letter, facts)]
        if letter.count > 1:
            paragraphs.append(self._others(locale, letter, facts))
        text = "\n\n".join(part.strip() for part in paragraphs if part.strip())
        return one_line(subject, LONGEST_SUBJECT), printable_lines(text) + "\n"

    def _facts(self, letter: Letter) -> dict[str, str]:
        first = letter.notifications[0] if letter.notifications else None
        details = {} if first is None else dict(first.details)
        facts = {key: str(value) for key, value in details.items() if value is not None}
        facts |= {"job": letter.job_id, "count": f"{letter.count:,}"}
        facts.setdefault("name", letter.job_id)
        if first is not None:
            facts.setdefault("namespace", first.namespace)
            facts["instant"] = instant_of(first)
        facts["error"] = facts.get("error", "")[:LONGEST_ERROR]
        for key in ("duration", "seconds"):
            if key in details:
                facts[key] = length(details[key])
        if "run" in facts:
            facts["command"] = f"jobmanager runs show {facts['run']}"
            if self._dashboard_url:
                facts["link"] = f"{self._dashboard_url}/runs/{facts['run']}"
        return facts

    def _lines(self, locale: str, letter: Letter, facts: Mapping[str, str]) -> str:
        hidden = {"error"} if letter.event in _SAID_BY_ITS_TEXT else set()
        known = {
            "instant": facts.get("instant"),
            "started_by": facts.get("by"),
            "attempt": facts.get("attempt") if facts.get("attempt") not in (None, "0") else None,
            **{name: facts.get(name) for name in ("error", "duration", "run", "link", "command")},
        }
        shown = [name for name in _LINES if known[name] and name not in hidden]
        return "\n".join(self._of(locale, f"line.{name}", facts) for name in shown)

    def _others(self, locale: str, letter: Letter, facts: Mapping[str, str]) -> str:
        told = [
            f"- {instant_of(other)} {other.details.get('run') or other.subject}"
            for other in letter.notifications[1:]
        ]
        left = letter.count - len(letter.notifications)
        if left > 0:
            told.append(self._of(locale, "beyond", {"count": f"{left:,}"}))
        return "\n".join([self._of(locale, "more", facts), *told]) if told else ""

    def _of(self, locale: str, key: str, facts: Mapping[str, str]) -> str:
        for name in _fallbacks(locale):
            text = self._catalogues.get(name, {}).get(key)
            if text is not None:
                try:
                    return text.format_map(facts if name != "en" else _Blank(facts))
                except (KeyError, ValueError, IndexError, AttributeError):
                    continue  # a text of the application that asks for more than there is
        return key


class _Blank(dict[str, str]):
    """Facts of which those that are missing are left out."""

    def __missing__(self, key: str) -> str:
        return ""


def one_line(text: str, longest: int) -> str:
    """Return the text as one line without control characters, cut at so many characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def instant_of(notification: Notification) -> str:
    """Return the instant that a notification is about in the job's zone, with the zone; without one when it was noted."""
    details = notification.details
    moment = notification.created_at
    try:
        moment = datetime.fromisoformat(details["instant"])
        zone = details.get("zone") or "UTC"
        return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S} {zone}"
    except (KeyError, ValueError, TypeError, OSError):
        return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def length(seconds: Any) -> str:
    """Return a duration in words: `0.3 s`, `42 s`, or as hours, minutes and seconds."""
    if not isinstance(seconds, (int, float)):
        return str(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    return str(timedelta(seconds=round(seconds)))


def _fallbacks(locale: str) -> list[str]:
    plain = _plain(locale)
    return [plain, plain.partition("-")[0], "en"]


def _plain(locale: str) -> str:
    return locale.replace("_", "-").lower()
