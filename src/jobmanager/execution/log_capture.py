"""What a handler logs becomes part of its run: every log record made inside a handler is kept, wherever it goes."""

from __future__ import annotations

import logging
import threading
from typing import Any

from jobmanager.context import capture_line, current_run

_lock = threading.Lock()
_users = 0
_original: Any = None


def _capturing(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record: logging.LogRecord = _original(*args, **kwargs)
    if current_run.get() is not None:
        capture_line(record.levelno, _text(record))
    return record


def _text(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - logging forgives a wrong format string, and so do we
        text = f"{record.msg} {record.args}"
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    return text


def start() -> None:
    """Wrap the log-record factory; counted, so several managers may share it."""
    global _users, _original  # noqa: PLW0603 - the factory is the process's own
    with _lock:
        _users += 1
        if _users == 1:
            _original = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_capturing)


def stop() -> None:
    """Put the factory back when the last user stops, unless another library has wrapped it meanwhile."""
    global _users  # noqa: PLW0603
    with _lock:
        _users = max(0, _users - 1)
        if _users == 0 and logging.getLogRecordFactory() is _capturing:
            logging.setLogRecordFactory(_original)
