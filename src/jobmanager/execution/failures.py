"""Any exception as a Failure, whatever its own code does: text, notes, cause, traceback and class may all raise."""

from __future__ import annotations

from jobmanager.ledger.bounding import name_of, text_of
from jobmanager.ledger.exception_text import traceback_of
from jobmanager.run import ErrorKind, Failure


def failure(kind: ErrorKind, raised: BaseException, *, brief: bool = False) -> Failure:
    """Return the exception as a record; `brief` leaves out a traceback that would only show lines of the library. Never raises."""
    return Failure(
        kind=kind,
        type=name_of(type(raised)),
        message=text_of(raised),
        traceback="" if brief else traceback_of(raised, without="jobmanager."),
    )
