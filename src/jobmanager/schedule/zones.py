"""Which time zones exist, decided by name alone: independent of paths, letter case and host."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from zoneinfo import TZPATH, available_timezones

from jobmanager.errors import CronError

# Names of this machine's own setting, or of none: another host would read something else.
_NOT_A_PLACE = {"localtime", "posixrules", "Factory"}


@lru_cache(maxsize=1)
def _listed() -> frozenset[str]:
    """Return the names of the tzdata package: one file, where listing the system's zones opens six hundred."""
    return frozenset((pkgutil.get_data("tzdata", "zones") or b"").decode().split()) - _NOT_A_PLACE


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """Return the listed names and those that only a newer system database has."""
    return _listed() | available_timezones() - _NOT_A_PLACE


@lru_cache(maxsize=1024)
def check(name: str) -> None:
    """Raise CronError(kind="bad_timezone") unless this is the name of an IANA zone, spelled exactly."""
    if name == "UTC" or name in _listed() or name in _known():
        return
    near = _nearest(name)
    raise CronError(
        f"{name!r} is not a time zone.",
        kind="bad_timezone",
        field="timezone",
        value=name,
        hint=f"Did you mean {' or '.join(near)}?"
        if near
        else "Use an IANA name such as Europe/Berlin or UTC.",
    )


@lru_cache(maxsize=1)
def version() -> str:
    """Return the release of the zone data in use: the system's own (2026f), else the tzdata package's (2026.6)."""
    for path in TZPATH:
        for name, words in ("tzdata.zi", 3), ("+VERSION", 1):
            try:
                with Path(path, name).open(encoding="utf-8") as file:
                    line = file.readline().split()
            except OSError:
                continue
            if len(line) == words:  # "# version 2026f"
                return line[-1]
    from importlib import metadata  # noqa: PLC0415 - 10 ms that nobody else asks for

    return metadata.version("tzdata")


def _nearest(name: str) -> list[str]:
    """Up to three known names: the same in another spelling, else that city, else similar words."""
    known = {zone.lower(): zone for zone in sorted(_known())}
    wanted = name.strip().lower().replace(" ", "_")
    if wanted in known:
        return [known[wanted]]
    cities = [zone for lower, zone in known.items() if wanted and lower.rsplit("/", 1)[-1] == wanted]
    return cities[:3] or [known[match] for match in get_close_matches(wanted, known, n=3, cutoff=0.7)]
