"""The pages that the frame links, and who may use each."""

from __future__ import annotations

from dataclasses import dataclass

from jobmanager.access.principal import ADMIN, READ, Principal


@dataclass(frozen=True)
class Entry:
    """A link of the frame: where it leads, its name and symbol, the key after `g`, and the permission that the page needs."""

    path: str
    name: str
    symbol: str
    key: str
    permission: str = READ

    def is_at(self, path: str) -> bool:
        """Return whether the page at this path is this one, or below it."""
        return path == self.path or (self.path != "/" and path.startswith(f"{self.path}/"))


ENTRIES = (
    Entry("/", "Overview", "home", "o"),
    Entry("/jobs", "Jobs", "jobs", "j"),
    Entry("/runs", "Runs", "runs", "r"),
    Entry("/events", "Events", "event", "v"),
    Entry("/engine", "Engine", "engine", "e"),
    Entry("/handlers", "Handlers", "plug", "h"),
    Entry("/notifications", "Notifications", "bell", "n"),
    Entry("/system", "System", "gear", "s", ADMIN),
    Entry("/keys", "API keys", "key", "k", ADMIN),
    Entry("/audit", "Audit", "book", "a"),
)


def entries_for(principal: Principal) -> tuple[Entry, ...]:
    """Return the links of those pages that the principal may use."""
    return tuple(entry for entry in ENTRIES if principal.may(entry.permission))
