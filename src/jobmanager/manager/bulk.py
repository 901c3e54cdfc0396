"""The method of JobManager that does the same to many runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from jobmanager.access.acting import in_batch
from jobmanager.access.principal import WRITE
from jobmanager.errors import JobDisabledError, PayloadError, RunNotFoundError, TransitionError
from jobmanager.manager.guarding import changes
from jobmanager.manager.operating import Operating
from jobmanager.run import FAILED, SUCCEEDED, Run, new_id
from jobmanager.validation.call_arguments import check_arguments, may_be_id
from jobmanager.validation.texts import naming_its_caller, shown

BulkAction = Literal["cancel", "redrive", "discard"]
ACTIONS = get_args(BulkAction)
MOST_IN_BULK = 1_000
UNKNOWN = "there is no such run"


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """The runs that a request about many changed, or would change, and a sentence for each other one.

    All entries of the audit have the `batch_id`; a dry run has none.
    """

    action: BulkAction
    run_ids: tuple[str, ...]
    refused: Mapping[str, str]
    batch_id: str | None = None


class Bulk(Operating):
    """Change many runs at once. Any thread may call it."""

    @naming_its_caller
    @changes(WRITE, "bulk")
    def bulk(
        self, action: BulkAction, run_ids: Collection[str], *, dry_run: bool = False, by: str | None = None
    ) -> BulkResult:
        """Cancel, redrive or discard up to 1,000 runs, given by their whole ids, and return which, and why the others were not.

        With `dry_run` nothing is changed. Runs change one after another, each in a transaction of its own; one that changes
        meanwhile is refused and stops no other. With `by` each is audited, all under one batch. Twice is safe. Raises PayloadError for another
        action or for more ids, and JobDisabledError while JOBMANAGER_DISABLED is set.
        """
        check_arguments(dry_run=dry_run, by=by)
        wanted = _checked(action, run_ids)
        if not dry_run:
            self._parts.check_not_disabled(f"Nothing is done to many runs: {action}")
        refused, eligible = self._sorted_out(action, wanted)
        if dry_run:
            return BulkResult(action=action, run_ids=tuple(eligible), refused=refused)
        do: Mapping[str, Callable[..., Run]] = {
            "cancel": self.cancel,
            "redrive": self.redrive,
            "discard": self.discard,
        }
        batch_id, done = new_id(self._parts.clock.now()), []
        with in_batch(batch_id):
            for run_id in eligible:
                try:
                    do[action](run_id, by=by)
                except (JobDisabledError, TransitionError, RunNotFoundError) as error:
                    refused[run_id] = str(error)
                else:
                    done.append(run_id)
        return BulkResult(action=action, run_ids=tuple(done), refused=refused, batch_id=batch_id)

    def _sorted_out(self, action: BulkAction, wanted: list[str]) -> tuple[dict[str, str], list[str]]:
        """Return why some of the runs cannot change so, by id, and the ids of the others."""
        found: dict[str, Run] = {}
        store, closed = self._parts.store, dict[str, str]()
        if wanted and store.exists():
            seen = [state.id for state in store.changes.states_of(wanted, seen=self._parts.view())]
            found = {run.id: run for run in store.runs.by_id(seen)}
            of = {run.job_id for run in found.values()}
            rows = store.jobs.rows(ids=list(of)) if action == "redrive" and of else []
            closed = {row.id: row.state for row in rows if not row.open}
        refused: dict[str, str] = {}
        for run_id in wanted:
            run = found.get(run_id)
            why = UNKNOWN if run is None else _WHY[action](run) or _closed(closed.get(run.job_id), action)
            if why:
                refused[run_id] = why
        return refused, [run_id for run_id in wanted if run_id not in refused]


def _checked(action: object, run_ids: object) -> list[str]:
    """Return the ids, each once; those that no store could hold are left to be unknown."""
    if action not in ACTIONS:
        raise PayloadError(f"action={shown(action)} is not one of {', '.join(ACTIONS)}.")
    if isinstance(run_ids, (str, bytes)) or not isinstance(run_ids, Collection):
        raise PayloadError(f"run_ids={shown(run_ids)} is no list of ids of runs.")
    if not all(map(may_be_id, run_ids)):
        raise PayloadError("run_ids holds what is no id of a run.")
    if len(run_ids) > MOST_IN_BULK:
        raise PayloadError(
            f"run_ids holds {len(run_ids):,} ids; at most {MOST_IN_BULK:,} are changed at once."
        )
    return list(dict.fromkeys(run_ids))


def _not_cancelled(run: Run) -> str:
    if run.status.closed:
        return f"it has ended: {run.status}"
    return "its end is requested already" if run.cancel_requested_at is not None else ""


def _not_redriven(run: Run) -> str:
    if not run.status.closed:
        return f"it is {run.status}"
    if run.status is SUCCEEDED:
        return "it succeeded"
    return "" if run.ticks == 1 else f"it stands for {run.ticks:,} instants; start the job by hand instead"


def _not_discarded(run: Run) -> str:
    if run.status is not FAILED:
        return f"it is {run.status}; only failed runs are discarded"
    return "" if run.discarded_at is None else "it is discarded already"


def _closed(state: str | None, action: str) -> str:
    return "" if state is None else f"its job is {state}; enable it before you {action} its runs"


_WHY: Mapping[str, Callable[[Run], str]] = {
    "cancel": _not_cancelled,
    "redrive": _not_redriven,
    "discard": _not_discarded,
}
