"""The jobs of the application: the manager, the handlers, and the jobs that `seed` makes of them.

jobmanager --app examples.saas.jobs:jobs jobs list
jobmanager --app examples.saas.jobs:jobs run
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from jobmanager import JobManager

from . import affairs, billing, cleanup, content, figures, fixtures, mailing, projects

MODULES = (cleanup, billing, affairs, mailing, figures, projects, content)


def defaults() -> dict[str, dict[str, Any]]:
    """Return the jobs of the application by id: each with its `function` and the options of its schedule and policies."""
    return {job_id: dict(options) for module in MODULES for job_id, options in module.JOBS.items()}


def register(manager: JobManager) -> None:
    """Make the handlers known to a manager. This makes no job, and connects to nothing."""
    for job_id, options in {**defaults(), **fixtures.JOBS}.items():
        manager.registry.add_handler(job_id, options["function"])


def plant(manager: JobManager, changes: Mapping[str, Mapping[str, Any]] | None = None) -> list[str]:
    """Make the jobs that are missing, and return their ids. What an operator tuned or deleted stays as it is.

    `changes` are other defaults, by id. The fixtures are left out; `jobmanager jobs create test-job --handler test-job` makes one.
    """
    smallest = manager.backend.capabilities.smallest_interval
    wanted = {}
    for job_id, options in defaults().items():
        words = {**options, **(changes or {}).get(job_id, {})}
        words.pop("function")
        if "every" in words:
            words["every"] = max(timedelta(seconds=words["every"]), smallest)
        wanted[job_id] = words
    return manager.seed(wanted)


jobs = JobManager()
register(jobs)
