"""The methods of JobManager that say what runs came to over a period, and what changes."""

from __future__ import annotations

from collections.abc import Collection

from jobmanager.errors import PayloadError
from jobmanager.ledger.statistics import PERIODS, JobTotals, Period, Statistics, statistics_of, totals_of
from jobmanager.manager.guarding import reads
from jobmanager.manager.listening import Events
from jobmanager.manager.parts import Parts
from jobmanager.process.heartbeat import living
from jobmanager.validation.call_arguments import ids_of
from jobmanager.validation.texts import naming_its_caller, shown


class Measuring:
    """The methods that measure. Any thread may call them; the first use installs an empty store."""

    _parts: Parts

    @naming_its_caller
    @reads
    def stats(self, job: str | None = None, period: Period = "24h") -> Statistics:
        """Return what the runs of a job, or of all jobs of this namespace, came to: counts by status and time, percentiles, backlog.

        `period` is one of 1h, 24h, 7d and 30d, up to now. The last hour is read from the newest 5,000 runs, longer periods from
        counts by the hour, which running processes keep up to date within seconds and which outlive purged runs. A principal that is
        limited to scopes gets none of project jobs. Raises JobNotFoundError for an id that no job has, and PayloadError for another period.
        """
        if period not in tuple(PERIODS):  # what has no hash is none either
            raise PayloadError(f"period={shown(period)} is not one of {', '.join(PERIODS)}.")
        store = self._parts.ready().store
        if job is not None:
            self._parts.row(job, deleted=True)
        self._count_hours()
        return statistics_of(store, self._parts.settings.namespace, job, period, seen=self._parts.view())

    @naming_its_caller
    @reads
    def totals(self, job_ids: Collection[str], period: Period = "7d") -> dict[str, JobTotals]:
        """Return per job what its closed runs of a period that ends now came to: counts by status, and durations.

        One statement for all of them, over the counts by the hour; see `stats`. Ids that are unknown, or hidden, are left out, and so
        are jobs without a run in the period. Raises PayloadError for a period that is none.
        """
        if period not in tuple(PERIODS):  # what has no hash is none either
            raise PayloadError(f"period={shown(period)} is not one of {', '.join(PERIODS)}.")
        wanted = ids_of("job_ids", job_ids)
        if not wanted or not self._parts.store.exists():
            return {}
        self._count_hours()
        namespace = self._parts.settings.namespace
        return totals_of(self._parts.store, namespace, wanted, period, seen=self._parts.view())

    def _count_hours(self) -> None:
        """Count the hours that are due where no process lives whose background thread does: an hour may have 60,000 runs."""
        parts = self._parts
        if not parts.started and not parts.settings.disabled and not living(parts.store, parts.settings):
            parts.ready().rollup.round()

    @naming_its_caller
    @reads
    def events(self, after: str | None = None, run: str | None = None, job: str | None = None) -> Events:
        """Return the changes of runs and jobs of this namespace from now on, as an iterator for threads and for coroutines.

        Of one run, whose present state comes first, or of one job, if they are named. With `after`, the cursor of an earlier
        change, nothing since is left out, and the changes of some seconds may come twice. A change is a state: of a run that
        changes quickly some states are passed over, its last one never. The iterator ends when the manager stops, and in
        SlowListenerError when 1,000 changes wait. A principal gets the changes of what it sees. On a clock moved by hand it ends when nothing more has changed.

        Raises RunNotFoundError for an id of no run, and PayloadError for what is no cursor.
        """
        found = None if run is None else self._parts.history.run(run).id
        return self._parts.ready().feed.listen(after=after, run=found, job=job, seen=self._parts.view())
