"""The counts beside the links of the frame: bounded, and some seconds old at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobmanager.web.pages.board import seen_by
from jobmanager.web.site import Site

FRESH = 10.0  # seconds
MOST = 100


@dataclass(frozen=True)
class Badge:
    """A count beside a link: as it is written, what it means, and the class of its status."""

    text: str
    told: str
    status: str = ""


def badges_of(site: Site) -> Mapping[str, Badge]:
    """Return the counts by the path of their page, of what the visitor sees for whom this is called; no failed runs have none."""
    return site.cached.get(("badges", seen_by()), FRESH, lambda: _counted(site))


def _counted(site: Site) -> Mapping[str, Badge]:
    failed = sum(len(group.run_ids) for group in site.jobs.dead_letters_by_error(limit=MOST + 1))
    found = {
        "/jobs": Badge(f"{len(site.jobs.standings(runs=False)):,}", "jobs"),
        "/handlers": Badge(f"{len(site.jobs.handlers()):,}", "handlers"),
    }
    if failed:
        text = f"{MOST}+" if failed > MOST else str(failed)
        found["/runs"] = Badge(text, "failed runs that nobody saw to", "failed")
    return found
