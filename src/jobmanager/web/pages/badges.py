"""The counts beside the links of the frame: what waits for a person, bounded and a few seconds old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobmanager.access.principal import ADMIN, Principal
from jobmanager.web.site import Site

FRESH = 10.0  # seconds
MOST = 100


@dataclass(frozen=True)
class Badge:
    """A count beside a link: as it is written, and what it means."""

    text: str
    told: str


def badges_of(site: Site, principal: Principal) -> Mapping[str, Badge]:
    """Return the counts by the path of their page, of what this principal sees; a zero is left out."""
    scopes = None if principal.scopes is None else frozenset(principal.scopes)
    key = ("badges", principal.may(ADMIN), scopes)
    return site.cached.get(key, FRESH, lambda: _counted(site))


def _counted(site: Site) -> Mapping[str, Badge]:
    groups = site.jobs.dead_letters_by_error(limit=MOST + 1)
    failed = sum(len(group.run_ids) for group in groups)
    if not failed:
        return {}
    text = f"{MOST}+" if failed > MOST else str(failed)
    return {"/runs": Badge(text, f"{text} failed, not seen to")}
