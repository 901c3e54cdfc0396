"""A traceback in parts: the frames of the application, and those of libraries, which pages fold."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FRAME = re.compile(r'\s*File "(?P<path>.*)", line (?P<line>\d+)(?:, in (?P<name>.*))?$')
_LIBRARY = re.compile(
    r"[\\/](?:site|dist)-packages[\\/]|[\\/]lib[\\/]python\d[.\d]*[\\/]|^<frozen |^<string>$"
)
_PACKAGE = re.compile(r"[\\/](?:site|dist)-packages[\\/](?P<name>[\w.-]+)")
MOST_PACKAGES = 3


@dataclass(frozen=True)
class Part:
    """Frames in a row of the same kind, as text; `packages` names those of libraries, `count` says how many frames they are."""

    text: str
    is_library: bool = False
    count: int = 0
    packages: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The line that stands for a folded part: `9 frames of stripe, requests and urllib3`."""
        names = [*self.packages[:MOST_PACKAGES], *(["others"] if len(self.packages) > MOST_PACKAGES else [])]
        of = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
        return f"{self.count} {'frame' if self.count == 1 else 'frames'} of {of}"


def parts_of(traceback: str) -> list[Part]:
    """Return the parts of a traceback as Python prints it, oldest call first, without the error at its end; of another text one part."""
    parts: list[Part] = []
    frames = _frames(traceback)
    last_frame = max(
        (place for place, (_, path) in enumerate(frames) if path is not None), default=len(frames)
    )
    for text, path in frames[: last_frame + 1]:
        is_library = path is not None and _LIBRARY.search(path) is not None
        names: tuple[str, ...] = (_package(path),) if is_library and path is not None else ()
        if parts and parts[-1].is_library == is_library:
            last = parts.pop()
            names = (*last.packages, *(name for name in names if name not in last.packages))
            parts.append(Part(f"{last.text}\n{text}", is_library, last.count + 1, names))
        else:
            parts.append(Part(text, is_library, 1, names))
    return parts


def _frames(traceback: str) -> list[tuple[str, str | None]]:
    """Return the text of each frame with its path, and lines between frames with None."""
    found: list[tuple[list[str], str | None]] = []
    for line in traceback.splitlines():
        frame = _FRAME.match(line)
        if frame:
            name = f", in {frame['name']}" if frame["name"] else ""
            found.append(([f"{frame['path']}, line {frame['line']}{name}"], frame["path"]))
        elif line.startswith("    ") and found and found[-1][1] is not None:
            found[-1][0].append(line)
        elif line.strip() and not line.startswith("Traceback (most recent call last)"):
            found.append(([line], None))
    return [("\n".join(lines), path) for lines, path in found]


def _package(path: str) -> str:
    found = _PACKAGE.search(path)
    return found["name"].removesuffix(".py") if found else "Python"
