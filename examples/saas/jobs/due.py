"""The moment that a run's work is for."""

from datetime import datetime

from examples.saas import data

from jobmanager import RunContext


def due(context: RunContext) -> datetime:
    """Return the instant of the run: a late or repeated one does what the run on time would have done. By hand it is now."""
    return context.scheduled_for or data.now()


def locale_for(context: RunContext, owner: str | None) -> str:
    """Return the language of a mail: that of the payload, else the owner's, else the job's, else English."""
    asked = context.payload.get("locale")
    return asked if isinstance(asked, str) else owner or context.locale
