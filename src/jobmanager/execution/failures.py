"""Any exception as a Failure, whatever its own code does: text, notes, cause, traceback and class may all raise."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from jobmanager.run import ErrorKind, Failure

MOST_TEXT = 1024 * 1024


def failure(kind: ErrorKind, raised: BaseException, *, brief: bool = False) -> Failure:
    """Return the exception as a record; `brief` leaves out a traceback that would only show lines of the library. Never raises."""
    return Failure(
        kind=kind,
        type=_class_name(raised),
        message=_made(lambda: str(raised), "text"),
        traceback="" if brief else _made(lambda: _traceback(raised), "traceback"),
    )


def _made(make: Callable[[], str], what: str) -> str:
    """Return the text as a plain `str`, bounded; or a note of what could not be made, and why."""
    try:
        return str.__getitem__(make(), slice(MOST_TEXT))
    except BaseException as error:  # noqa: BLE001 - the exception's own code raised, and that must not end a worker
        return f"<no {what}: {_class_name(error)}>"


def _class_name(raised: BaseException) -> str:
    """Return the name of the exception's class, past a metaclass that hides it."""
    name: str = type.__dict__["__name__"].__get__(type(raised))
    return name


def _traceback(raised: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(_without_our_frames(raised)))
    except BaseException:  # noqa: BLE001 - a note, a cause or a SyntaxError's arguments cannot be shown; the frames can
        return "".join(traceback.format_tb(raised.__traceback__))


def _without_our_frames(raised: BaseException) -> BaseException:
    frames = raised.__traceback__
    while (
        frames is not None
        and frames.tb_next is not None
        and frames.tb_frame.f_globals.get("__name__", "").startswith("jobmanager.")
    ):
        frames = frames.tb_next
    return BaseException.with_traceback(raised, frames)
