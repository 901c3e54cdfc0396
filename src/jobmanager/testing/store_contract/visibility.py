"""Promises about views: what a principal may not see is as if the store did not hold it, in every question."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jobmanager.access.view import View
from jobmanager.run import FAILED, SUCCEEDED, LogLine, Run, RunStatus, new_id
from jobmanager.stores.audit import AuditQuery
from jobmanager.testing.store_contract.ground import StoreGround, seconds

ALL = View("default", system=True)
TEAM = View("default")
ACME = View("default", scopes=frozenset({"acme", "none"}))
ELSEWHERE = View("elsewhere", system=True)


class VisibilityPromises(StoreGround):
    """A team, a project and a system job, each with runs."""

    def _fill(self) -> dict[str, Run]:
        runs = {}
        for kind in ("team", "project", "system"):
            self.job(kind, visibility=kind)
            self.store.audit.write(self.entry(kind, "pause"))
            for scope in (None, "acme", "beta"):
                name = f"{kind}/{scope}" if scope else kind
                runs[name] = self._ended(self.run_of(kind, concurrency_key=name, scheduled_for=None))
            runs[f"{kind} tick"] = self._ended(self.tick(20, kind, concurrency_key=kind))
        return runs

    def _ended(self, run: Run, status: RunStatus = FAILED) -> Run:
        failed = replace(self.closed(run, status, finished_at=self.now + seconds(2)), started_at=self.now)
        self.inserted(failed)
        self.store.runs.add_lines(failed.id, 1, [LogLine(self.now, "INFO", failed.job_id)])
        return failed

    def test_each_question_about_runs_has_the_same_answer_for_a_view(self) -> None:
        """Fails if a list, a count or a look-up shows a principal, or counts, what its view hides."""
        runs = self._fill()
        team = {name for name in runs if name.startswith("team")}
        project = {name for name in runs if name.startswith("project")}
        for view, wanted in (
            (None, set(runs)),
            (ALL, set(runs)),
            (TEAM, team | project),
            (ACME, team | {"project/acme"}),
            (
                View("default", system=True, scopes=frozenset({"beta"})),
                set(runs) - project | {"project/beta"},
            ),
            (View("default", scopes=frozenset()), team),
            (ELSEWHERE, set()),
        ):
            self._check(runs, wanted, view)

    def _check(self, runs: dict[str, Run], wanted: set[str], view: View | None) -> None:
        history = self.store.history
        ids = {runs[name].id for name in wanted}
        assert {run.id for run in history.runs(seen=view)} == ids
        assert {run.id for run in history.runs(dead=True, seen=view)} == ids
        assert {run.id for run in history.runs(statuses=[RunStatus.FAILED], seen=view)} == ids
        assert history.runs_by_id([run.id for run in runs.values()], seen=view).keys() == ids
        of_jobs = {run.id for job_id in _KINDS for run in history.runs(job_id=job_id, seen=view)}
        assert of_jobs == ids
        for name, run in runs.items():
            seen = name in wanted
            assert (history.run(run.id, seen=view) is not None) == seen
            assert (history.run(run.id[-12:], seen=view) is not None) == seen
            assert bool(history.lines(run.id, seen=view)) == seen
            if not seen:
                assert not history.runs(job_id=run.job_id, before=run.id, seen=view)
            if run.scheduled_for is not None:
                found = history.run_for(run.job_id, run.scheduled_for, seen=view)
                assert (found is not None) == seen
        last = history.last_runs(_KINDS, seen=view)
        assert {run.id for found in last.values() for run in found} <= ids
        stand = history.standings("default", seen=view)
        instants = {found.instant.run_id for found in stand.values() if found.instant}
        assert instants <= ids
        assert {found.job_id for found in stand.values() if found.ran} <= last.keys()
        due = history.due_instants(_KINDS, seen=view)
        assert {cell.run_id for found in due.values() for cell in found} == {
            run_id for run_id in ids if any(run.id == run_id and run.scheduled_for for run in runs.values())
        }
        assert last.keys() == {name.split("/")[0].split()[0] for name in wanted}

    def test_pages_of_a_view_are_those_of_all_without_what_it_hides(self) -> None:
        """Fails if a page has a hole, repeats a run, or is in another order than without a view. `a/b` is a job and a key of `a`."""
        kinds = {"team": "team", "a": "project", "a/b": "project", "system": "system"}
        for job_id, kind in kinds.items():
            self.job(job_id, visibility=kind)
        for number in range(40):
            job_id = [*kinds][number * 7 % 4]
            scope = ["", "b", "acme", "acme", "b/acme"][number % 5]
            opened_at = self.now - seconds(50 - number)
            run = self.run_of(job_id, id=new_id(opened_at), opened_at=opened_at)
            if scope:
                run = replace(run, concurrency_key=f"{job_id}/{scope}")
            elif number % 10:
                run = replace(run, scheduled_for=self.now - seconds(200 - number), trigger="schedule")
            self._ended(run, [FAILED, SUCCEEDED][number % 3 // 2])
        for view in (None, ALL, TEAM, ACME, View("default", system=True, scopes=frozenset({"b", "b/acme"}))):
            for of_job in (None, *kinds):
                for statuses in ((), (FAILED,)):
                    asked: dict[str, Any] = {"job_id": of_job, "statuses": statuses}
                    every = self.store.history.runs(limit=100, **asked)
                    wanted = [run.id for run in every if _shows(view, kinds[run.job_id], run)]
                    assert self._paged(view, **asked) == wanted

    def _paged(self, view: View | None, **asked: Any) -> list[str]:
        found: list[str] = []
        page = self.store.history.runs(limit=3, seen=view, **asked)
        while page and len(found) < 100:
            found += [run.id for run in page]
            page = self.store.history.runs(limit=3, seen=view, before=found[-1], **asked)
        return found

    def test_the_attempts_of_a_hidden_run_are_hidden(self) -> None:
        self.job("hidden", visibility="system")
        run = self.opened(self.run_of("hidden", owner=self.process(), max_attempts=3))
        self.retried(run)
        assert len(self.store.history.attempts(run.id, seen=ALL)) == 1
        assert not self.store.history.attempts(run.id, seen=TEAM)

    def test_counts_under_a_limited_view_leave_out_what_they_would_tell(self) -> None:
        """Fails if a principal with scopes could learn from a sum what other scopes did."""
        self._fill()
        history = self.store.history
        jobs = {
            view: {found.job_id for found in history.tally(self.now - seconds(60), seen=view)}
            for view in (None, ALL, TEAM, ACME, ELSEWHERE)
        }
        assert jobs == {
            None: {*_KINDS},
            ALL: {*_KINDS},
            TEAM: {"team", "project"},
            ACME: {"team"},
            ELSEWHERE: set(),
        }
        counts = [history.metrics(seen=view).failed_jobs for view in (None, ALL, TEAM, ACME, ELSEWHERE)]
        assert counts == [12, 12, 8, 4, 0]

    def test_jobs_are_seen_by_their_visibility_and_namespace(self) -> None:
        self._fill()
        jobs = self.store.jobs
        wanted: dict[View, set[str]] = {
            ALL: {*_KINDS},
            TEAM: {"team", "project"},
            ACME: {"team", "project"},
            ELSEWHERE: set(),
        }
        for view, names in wanted.items():
            assert {row.id for row in jobs.rows(seen=view)} == names
            assert {row.id for row in jobs.rows(ids=_KINDS, seen=view)} == names
            assert {row.id for row in jobs.summaries(seen=view)} == names
            assert {job_id for job_id, _, _ in jobs.places(seen=view)} == names
            assert {row.id for row in jobs.summaries(ids=_KINDS, limit=None, seen=view)} == names
            assert {job_id for job_id in _KINDS if jobs.get(job_id, seen=view)} == names
        self.change("team", visibility="system")
        assert jobs.get("team", seen=TEAM) is None

    def test_the_audit_of_hidden_jobs_and_of_what_is_no_job_is_for_those_who_see_all(self) -> None:
        self._fill()
        key: dict[str, Any] = {"target": "key", "target_id": "k", "job_id": None}
        entry = self.entry("k", "create")
        self.store.audit.write(type(entry)(**{**_fields(entry), **key}))

        def targets(view: View) -> set[str]:
            found = self.store.audit.entries(AuditQuery(namespace=view.namespace), seen=view)
            return {each.target_id for each in found}

        assert targets(ALL) == {*_KINDS, "k"}
        assert targets(TEAM) == {"team", "project"}
        assert targets(ACME) == {"team"}
        assert targets(ELSEWHERE) == set()


def _shows(view: View | None, kind: str, run: Run) -> bool:
    if view is None or kind == "team":
        return True
    if kind == "system":
        return view.system
    return view.scopes is None or run.scope in view.scopes


_KINDS = ("team", "project", "system")


def _fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in type(entry).__slots__}
