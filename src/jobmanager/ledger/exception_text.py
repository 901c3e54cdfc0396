"""Show an exception as Python shows it, whatever it is: in bounded time, never raising, and without the code of its own where that can be avoided."""

from __future__ import annotations

import linecache
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from traceback import FrameSummary, StackSummary
from types import CodeType, FrameType, TracebackType
from typing import Any

from jobmanager.ledger.bounding import name_of, text_of

MOST_IN_CHAIN = 10
MOST_IN_GROUP = 10
DEEPEST_GROUP = 3
FIRST_FRAMES = 20
LAST_FRAMES = 40
MOST_NOTES = 20
LONGEST_LINE = 300
LARGEST_SOURCE = 4 * 1024 * 1024  # bytes

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def traceback_of(raised: BaseException, *, without: str = "") -> str:
    """Return the traceback as text, with causes, groups and notes; the first frames of modules that begin with `without` are left out."""
    return "".join(_chain(raised, without, 0, set()))


def _chain(raised: BaseException, without: str, depth: int, seen: set[int]) -> Iterator[str]:
    """Yield the exceptions that led to this one, oldest first."""
    steps: list[tuple[BaseException, str]] = []
    one: BaseException | None = raised
    joint = ""
    while one is not None and id(one) not in seen and len(steps) < MOST_IN_CHAIN:
        seen.add(id(one))
        steps.append((one, joint))
        cause = _CAUSE_OF(one)
        joint = _CONTEXT if cause is None else _CAUSE
        one = _CONTEXT_OF(one) if cause is None and not _SUPPRESSED(one) else cause
    for step, follows in reversed(steps):
        yield from _single(step, without if step is raised else "", depth, seen)
        yield follows


def _single(raised: BaseException, without: str, depth: int, seen: set[int]) -> Iterator[str]:
    frames = _frames(_TRACEBACK_OF(raised), without)
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from frames
    kind = type(raised)
    module = _MODULE_OF(kind)
    name = name_of(kind)
    if isinstance(module, str) and module[:200] not in ("builtins", "__main__", ""):
        name = f"{module[:200]}.{name}"
    text = text_of(raised)
    yield f"{name}: {text}\n" if text else f"{name}\n"
    yield from _notes(raised)
    if issubclass(kind, BaseExceptionGroup) and depth < DEEPEST_GROUP:
        yield from _members(raised, depth, seen)


def _notes(raised: BaseException) -> Iterator[str]:
    notes = _attribute(raised, "__notes__")
    if isinstance(notes, (list, tuple)):
        for note in list(notes[:MOST_NOTES]):
            yield (
                f"{note[:2000]}\n"
                if type(note) is str
                else f"<note that is no text: {name_of(type(note))}>\n"
            )
    elif notes is not None:
        yield f"<__notes__ is no list: {name_of(type(notes))}>\n"


def _members(group: BaseException, depth: int, seen: set[int]) -> Iterator[str]:
    members: Any = _MEMBERS_OF(group)
    for number, member in enumerate(members[:MOST_IN_GROUP], 1):
        yield f"  +---------------- {number} ----------------\n"
        text = "".join(_chain(member, "", depth + 1, seen))
        yield "".join(f"  | {line}\n" for line in text.splitlines()) or "  | (shown above)\n"
    if len(members) > MOST_IN_GROUP:
        yield f"  +---------------- and {len(members) - MOST_IN_GROUP:,} more exceptions\n"


def _frames(trace: TracebackType | None, without: str) -> list[str]:
    first: list[TracebackType] = []
    last: deque[TracebackType] = deque(maxlen=LAST_FRAMES)
    left_out = 0
    while trace is not None:
        ours = bool(without) and not first and trace.tb_next is not None
        if not (ours and _is_of(trace.tb_frame, without)):
            if len(first) < FIRST_FRAMES:
                first.append(trace)
            else:
                left_out += len(last) == LAST_FRAMES
                last.append(trace)
        trace = trace.tb_next
    cut = [f"  [... {left_out:,} frames left out]\n"] if left_out else []
    return [*_formatted(first), *cut, *_formatted(last)]


def _is_of(frame: FrameType, package: str) -> bool:
    name = dict.get(frame.f_globals, "__name__")
    return type(name) is str and name.startswith(package)


def _formatted(traces: Iterable[TracebackType]) -> list[str]:
    return StackSummary.from_list([_summary(trace) for trace in traces]).format()


def _summary(trace: TracebackType) -> FrameSummary:
    code, line = trace.tb_frame.f_code, trace.tb_lineno
    start, end = _columns(code, trace.tb_lasti)
    source = _source_line(code.co_filename, line)
    marks: Any = {}
    if start is not None and end is not None and len(source) < LONGEST_LINE:
        marks = {"end_lineno": line, "colno": start, "end_colno": end}
    return FrameSummary(
        code.co_filename[:500],
        line,
        code.co_name[:200],
        lookup_line=False,
        line=source[:LONGEST_LINE],
        **marks,
    )


def _columns(code: CodeType, instruction: int) -> tuple[int | None, int | None]:
    """Return where in its line the instruction begins and ends; None where it covers several lines."""
    for line, end_line, start, end in islice(code.co_positions(), instruction // 2, instruction // 2 + 1):
        if line == end_line:
            return start, end
    return None, None


def _source_line(filename: str, line: int) -> str:
    """Return the line of a file that is a file: a handler may be compiled under the name of a device that never ends."""
    try:
        if filename not in linecache.cache:
            state = Path(filename).stat()
            if not S_ISREG(state.st_mode) or state.st_size > LARGEST_SOURCE:
                return ""
        return linecache.getline(filename, line)
    except Exception:  # noqa: BLE001 - a traceback without its lines is still one
        return ""


def _attribute(raised: BaseException, name: str) -> Any:
    try:
        return getattr(raised, name, None)
    except BaseException:  # noqa: BLE001 - a property of the exception's own class
        return None


# Read past whatever the exception's class makes of these names.
_CAUSE_OF: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__cause__"].__get__
_CONTEXT_OF: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__context__"].__get__
_SUPPRESSED: Callable[[BaseException], bool] = BaseException.__dict__["__suppress_context__"].__get__
_TRACEBACK_OF: Callable[[BaseException], TracebackType | None] = BaseException.__dict__[
    "__traceback__"
].__get__
_MODULE_OF: Callable[[type], Any] = type.__dict__["__module__"].__get__
_MEMBERS_OF: Callable[[BaseException], Any] = BaseExceptionGroup.__dict__["exceptions"].__get__
