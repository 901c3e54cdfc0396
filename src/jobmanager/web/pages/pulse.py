"""Whether time is kept, and by whom: one line that stands on every page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobmanager.web.site import Site

FRESH = 2.0  # seconds
PATIENCE = 1.0  # seconds that the store has
_SAID = {
    "store_silent": "The database is silent",
    "not_taken": "No process executes",
    "not_begun": "Runs are not begun",
    "workers_abandoned": "Workers are lost",
    "background_stuck": "A process is stuck",
    "loop_blocked": "A process is stuck",
}


@dataclass(frozen=True)
class Pulse:
    """The state of time-keeping: a status class, words, the backend, and when the last tick came."""

    word: str
    told: str
    backend: str
    last_tick_at: datetime | None = None
    processes: int = 0


def pulse_of(site: Site) -> Pulse:
    """Return the pulse, read anew after two seconds. It names no job, so that every visitor may see it."""
    return site.cached.get("pulse", FRESH, lambda: _taken(site))


def _taken(site: Site) -> Pulse:
    jobs = site.jobs
    report = jobs.health(within=PATIENCE)
    facts = report.facts
    living = () if facts is None else facts.processes
    backend = next((item.backend for item in living if item.backend), None) or jobs.resolution.backend
    ticks = [item.last_tick_at for item in living if item.last_tick_at is not None]
    if facts is not None and (jobs.settings.disabled or not jobs.backend.capabilities.keeps_time):
        return Pulse("paused", "No time is kept", backend, processes=len(living))
    failing = next((symptom for symptom in report.symptoms if symptom.failing), None)
    if failing is not None:
        word, told = "failed", _SAID.get(failing.kind, "Time is not kept")
    elif report.symptoms:
        word, told = "late", "Time is kept, with trouble"
    else:
        word, told = "succeeded", "Time is kept"
    return Pulse(word, told, backend, max(ticks, default=None), len(living))
