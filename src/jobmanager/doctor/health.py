"""What can be checked of the flow of ticks: that those which are due come, are begun, and are accounted for."""

from __future__ import annotations

from collections.abc import Iterator

from jobmanager.doctor.finding import Finding
from jobmanager.doctor.roles import roles
from jobmanager.explain import Told
from jobmanager.manager.manager import JobManager
from jobmanager.process.bounded import BoundedCall
from jobmanager.process.health import SymptomKind

REPLY_WITHIN = 5.0
OF_ROLES: frozenset[SymptomKind] = frozenset({"not_brought", "not_taken"})


def replies(jobs: JobManager) -> Iterator[Finding]:
    """Raise StoreUnavailableError for a store that does not reply: no other check would ever return."""
    BoundedCall(jobs.store.exists).ask(REPLY_WITHIN)
    yield from ()


def health(jobs: JobManager, told: Told) -> Iterator[Finding]:
    """Yield what stands still although it should move. That no process lives is a finding of its own elsewhere."""
    report = jobs.health(thorough=True, told=told)
    told_elsewhere = {"no_process"}
    if any(finding.level == "failing" for finding in roles(jobs, told)):
        told_elsewhere |= OF_ROLES
    found = [symptom for symptom in report.symptoms if symptom.kind not in told_elsewhere]
    for symptom in found:
        yield Finding(
            check="health",
            level="failing" if symptom.failing else "warning",
            text=symptom.text,
            fix=symptom.fix,
        )
    if not report.symptoms and report.facts is not None and report.facts.processes:
        yield Finding(check="health", level="ok", text="no tick is overdue, and nothing stands still")
