"""The public names of jobmanager, each loaded from its module at first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobmanager.access.acting import acting
    from jobmanager.access.principal import Principal
    from jobmanager.context import AsyncRunContext, RunContext
    from jobmanager.errors import (
        CancelRun,
        CronError,
        JobManagerError,
        NonRetryable,
        RetryLater,
        RunConflictError,
        StepFailedError,
    )
    from jobmanager.job import Job, Retry
    from jobmanager.manager.manager import JobManager, get_job_manager, reset_job_manager
    from jobmanager.run import JobStatus, Run, RunStatus
    from jobmanager.schedule import At, Cron, Dst, Every, On
    from jobmanager.search import RunFilter
    from jobmanager.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AsyncRunContext",
    "At",
    "CancelRun",
    "Cron",
    "CronError",
    "Dst",
    "Every",
    "Job",
    "JobManager",
    "JobManagerError",
    "JobStatus",
    "NonRetryable",
    "On",
    "Principal",
    "Retry",
    "RetryLater",
    "Run",
    "RunConflictError",
    "RunContext",
    "RunFilter",
    "RunStatus",
    "Settings",
    "StepFailedError",
    "__version__",
    "acting",
    "get_job_manager",
    "reset_job_manager",
]

_HOMES = {
    "access.acting": ("acting",),
    "access.principal": ("Principal",),
    "context": ("AsyncRunContext", "RunContext"),
    "errors": (
        "CancelRun",
        "CronError",
        "JobManagerError",
        "NonRetryable",
        "RetryLater",
        "RunConflictError",
        "StepFailedError",
    ),
    "job": ("Job", "Retry"),
    "manager.manager": ("JobManager", "get_job_manager", "reset_job_manager"),
    "run": ("JobStatus", "Run", "RunStatus"),
    "schedule": ("At", "Cron", "Dst", "Every", "On"),
    "settings": ("Settings",),
    "search": ("RunFilter",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # loaded once; from now on a plain attribute
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
