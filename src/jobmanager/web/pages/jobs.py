"""The page of all jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.web.pages.board import FILTERS, Board, Entry, board_of, totals_of
from jobmanager.web.pages.job_rows import Row, Written
from jobmanager.web.pages.rendering import page, templates
from jobmanager.web.pages.strip import CELLS
from jobmanager.web.site import site_of

ON_A_PAGE = 50
CHIPS = (
    ("failing", "Failing", "failed"),
    ("missed", "Missed", "missed"),
    ("late", "Late", "late"),
    ("handler-missing", "Handler missing", "missing"),
    ("running", "Running", "running"),
    ("paused", "Paused", "paused"),
    ("disabled", "Disabled", "disabled"),
    ("never-ran", "Never ran", "never"),
    ("due-within-1-h", "Due within 1 h", "pending"),
)


def jobs(request: Request) -> Response:
    """Show the jobs that the filters of the address want, those in trouble first."""
    site, query = site_of(request), request.query_params
    board = board_of(site)
    health, text, by_next = query.get("health", ""), query.get("q", "").strip(), query.get("sort") == "next"
    found = [entry for entry in board.which(health) if not text or entry.is_found_by(text.lower())]
    if by_next:
        found.sort(key=_by_next)
    pages = max(1, -(-len(found) // ON_A_PAGE))
    number = min(_number(query.get("page")), pages)
    rows = _rows(request, found[(number - 1) * ON_A_PAGE : number * ON_A_PAGE])
    groups = [("", rows)] if by_next else _groups(rows, found)
    return page(
        request,
        "jobs.html",
        board=board,
        groups=groups,
        found=len(found),
        chips=_chips(board),
        health=health if health in FILTERS else "",
        text=text,
        by_next=by_next,
        number=number,
        last_page=pages,
        address=lambda **changed: _address(query, changed),
        here=f"/jobs{'?' if query else ''}{urlencode(list(query.multi_items()))}",
    )


def _rows(request: Request, entries: Sequence[Entry]) -> list[Row]:
    site, ids = site_of(request), [entry.id for entry in entries]
    views = {view.id: view for view in site.jobs.list_jobs(ids=ids)}
    due = site.jobs.due_instants(ids, limit=CELLS) if ids else {}
    totals = totals_of(site, ids)
    return [
        Row(entry, views[entry.id], due.get(entry.id, ()), totals.get(entry.id))
        for entry in entries
        if entry.id in views
    ]


def _groups(rows: Sequence[Row], found: Sequence[Entry]) -> list[tuple[str, list[Row]]]:
    counts = {
        "Needs attention": sum(entry.condition.needs_attention for entry in found),
        "Not in use": sum(entry.condition.word in ("disabled", "never") for entry in found),
    }
    counts["Fine"] = len(found) - sum(counts.values())
    return [
        (f"{name}, {counts[name]:,}", list(some))
        for name, some in groupby(rows, key=lambda row: _group(row.entry))
    ]


def _group(entry: Entry) -> str:
    if entry.condition.needs_attention:
        return "Needs attention"
    return "Not in use" if entry.condition.word in ("disabled", "never") else "Fine"


def _chips(board: Board) -> list[tuple[str, str, str, int]]:
    return [(word, told, symbol, board.counts[word]) for word, told, symbol in CHIPS]


def _by_next(entry: Entry) -> tuple[bool, datetime | None, str]:
    due = entry.standing.next_due
    return (True, None, entry.id) if due is None else (False, due, entry.id)


def _number(given: str | None) -> int:
    return (
        int(given)
        if given and given.isascii() and given.isdecimal() and 0 < len(given) < 8 and int(given)
        else 1
    )


def _address(query: Mapping[str, str], changed: Mapping[str, str]) -> str:
    """Return the query of this page with these words changed; the number of the page stays only if it is one of them."""
    kept = {name: query[name] for name in ("health", "q", "sort") if query.get(name)}
    words = {name: value for name, value in {**kept, **changed}.items() if value}
    return f"?{urlencode(words)}" if words else "?"


templates().globals["written"] = Written
ROUTES = [Route("/jobs", jobs)]
