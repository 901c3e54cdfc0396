"""The entries of a clock for operators: what is there beside what should be, and each change of it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Never

from jobmanager.backends.base import PurgedEntries, RawEntry
from jobmanager.backends.tickers.remote import PAUSED, Planned
from jobmanager.errors import EntryNotFoundError, TickerError, UnsupportedError
from jobmanager.validation.texts import shown

if TYPE_CHECKING:
    from jobmanager.backends.tickers.base import TickerBackend


class TickerAdmin:
    """The entries of a backend at its service. Each method asks the service; TickerError. The caller writes the audit."""

    writes_audit = False

    def __init__(self, backend: TickerBackend) -> None:
        self._backend = backend

    def entries(self) -> list[RawEntry]:
        """Return our entries, sorted by name: those that are there, and those that should be."""
        backend = self._backend
        jobs, elsewhere = backend.planned()
        found = backend.found()
        wanted = {entry.key: entry for entry in backend.wanted(jobs)}
        names = {backend.keys.of_job(job_id): job_id for job_id in elsewhere}
        told = [self._entry(entry, found.get(key)) for key, entry in wanted.items()]
        told += [
            _row(entry, names[key]) for key, entry in found.items() if key in names and key not in wanted
        ]
        told += [
            _row(entry, None, drift="of no job", orphan=True)
            for key, entry in found.items()
            if key not in wanted and key not in names
        ]
        return sorted(told, key=lambda entry: entry.name)

    def _entry(self, wanted: Planned, found: Planned | None) -> RawEntry:
        drift = self._backend.drift(wanted, found)
        return _row(found or wanted, wanted.job_id, drift="paused" if drift == PAUSED else drift)

    def entry_of(self, word: str) -> str:
        """Return the name of the entry that is meant by its name, or by a job; EntryNotFoundError if it is neither."""
        names = {entry.name: entry.job_id for entry in self.entries()}
        for name in (word, self._backend.keys.of_job(word)):
            if name in names:
                return name
        raise EntryNotFoundError(
            f"{self._backend.title} has no entry {shown(word)} of ours, nor one of such a job.", name=word
        )

    def set_active(self, entry: str, *, active: bool) -> bool:
        """Pause an entry, or let it go on; False if that changes nothing. A sync leaves it as it is."""
        found = self._found(entry)
        if found.paused is not active:
            return False
        self._backend.switch(found, active=active)
        return True

    def unschedule(self, entry: str) -> None:
        """Remove an entry until the next sync."""
        self._backend.remove(self._found(entry))

    def purge(self) -> PurgedEntries:
        """Remove every orphan."""
        removed, failed = [], []
        for entry in (each for each in self.entries() if each.orphan):
            try:
                self.unschedule(entry.name)
            except TickerError:
                failed.append(entry.name)
            else:
                removed.append(entry.name)
        return PurgedEntries(removed=tuple(removed), failed=tuple(failed))

    def keys(self) -> int:
        """Raise UnsupportedError: nothing of ours that is secret is kept there."""
        self._refuse()

    def new_secret(self, *, bearer: bool) -> str:
        """Raise UnsupportedError, as `keys` does."""
        self._refuse()

    def retire(self) -> int:
        """Raise UnsupportedError, as `keys` does."""
        self._refuse()

    def _refuse(self) -> Never:
        raise UnsupportedError(
            f"{self._backend.title} keeps no secret of ours. Replace JOBMANAGER_SECRET in the application, and the keys of "
            f"{self._backend.title} in its console: two are taken while one is replaced."
        )

    def _found(self, entry: str) -> Planned:
        found = self._backend.found().get(entry)
        if found is None:
            raise EntryNotFoundError(
                f"{self._backend.title} has no entry {shown(entry)} of ours.", name=entry
            )
        return found


def _row(entry: Planned, job_id: str | None, *, drift: str = "", orphan: bool = False) -> RawEntry:
    return RawEntry(
        name=entry.key,
        job_id=job_id,
        schedule=f"{entry.text} ({entry.zone})",
        command=entry.target,
        active=not entry.paused,
        orphan=orphan,
        drift=drift,
        next_due_at=entry.next_due_at,
    )
