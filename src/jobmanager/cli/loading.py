"""Finding the application's JobManager by `module:name`, without starting it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, TypeVar

from jobmanager.cli.output.failures import FailedError, UsageError
from jobmanager.errors import JobManagerError

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager

T = TypeVar("T")

NO_APPLICATION = UsageError(
    "No application is named.",
    hint='Say where its JobManager is: --app package.module:name, or JOBMANAGER_APP=package.module:name, or app = "package.module:name" under [tool.jobmanager] in pyproject.toml.',
)


class ApplicationError(FailedError):
    """The application's own module could not be imported."""


def load(target: str) -> JobManager:
    """Return the JobManager that `module:name` names, or the only one of `module`.

    The working directory comes first on the path while the module is imported, and last from then on: a file there that is called as
    a library is cannot take the library's place.

    The application is imported inert: a `start()` in it does nothing.
    """
    module, name = module_of(target)
    return _named(module, name) if name else _only(module)


def module_of(target: str, option: str = "--app ") -> tuple[ModuleType, str]:
    """Import the module of `module:name` inert and return it with the name; hints show `option` in front of it."""
    module_name, _, name = target.partition(":")
    _refuse_files(target, module_name, option)
    with _working_directory_first():
        return imported(module_name, lambda: import_module(module_name), option), name


@contextmanager
def _working_directory_first() -> Iterator[None]:
    """Let the application be found where the command is called, and leave the path as it was where that is on it already."""
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
        sys.path.append(here)


def _refuse_files(target: str, module_name: str, option: str) -> None:
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise UsageError(
            f"{target!r} names a file; a module is needed.", hint=f"From this folder it is {option}{dotted}"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageError(f"{target!r} is not module:name.", hint=f"For example: {option}shop.jobs:jobs")


def imported(name: str, load: Callable[[], T], option: str = "--app ") -> T:
    """Call `load`, which imports the application's code inert, and return its result; an error of that code becomes one line."""
    from jobmanager.manager.manager import inert

    try:
        with inert():
            return load()
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"There is no module {error.name!r} here ({Path.cwd()}) or among the installed packages.",
                hint=f"Run from the folder that contains it, install it, or correct {option.strip() or 'its name'}.",
            ) from error
        raise _failed(name, error) from error
    except JobManagerError:
        raise  # a setting or a declaration that cannot work; its own words are the best
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> ApplicationError:
    where = _innermost(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{_short(error.filename)}, line {error.lineno}"
    what = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]
    missing = isinstance(error, ModuleNotFoundError) and error.name
    hint = (
        f"Install {missing.partition('.')[0]} in this environment ({sys.prefix})."
        if missing
        else "Correct the module; --debug shows the whole traceback."
    )
    return ApplicationError(f"Importing {name} failed in {where}: {what}", hint=hint)


def _innermost(trace: TracebackType | None) -> str:
    """Find the last line of a traceback that lies in the application's own code, not in a library it called."""
    frames = traceback.extract_tb(trace)
    own = [
        f
        for f in frames
        if "site-packages" not in f.filename and not f.filename.startswith(("<", sys.base_prefix))
    ]
    own = [f for f in own if f.filename != __file__] or frames
    return f"{_short(own[-1].filename)}, line {own[-1].lineno}" if own else "its first line"


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _named(module: ModuleType, name: str) -> JobManager:
    from jobmanager.manager.manager import JobManager

    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, JobManager):
        return found
    known = ", ".join(_managers(module)) or "none"
    what = "nothing" if found is None else f"an object of type {type(found).__name__}, not a JobManager"
    raise UsageError(
        f"{module.__name__}:{name} is {what}.", hint=f"JobManagers in {module.__name__}: {known}."
    )


def _only(module: ModuleType) -> JobManager:
    found = _managers(module)
    if len(set(map(id, found.values()))) == 1:
        return next(iter(found.values()))
    if not found:
        raise UsageError(
            f"There is no JobManager in {module.__name__}.",
            hint=f"Name the module that makes it, and the variable: --app {module.__name__}:jobs",
        )
    raise UsageError(
        f"{module.__name__} has {len(found)} JobManagers: {', '.join(found)}.",
        hint=f"Say which one: --app {module.__name__}:{next(iter(found))}",
    )


def _managers(module: ModuleType) -> dict[str, JobManager]:
    from jobmanager.manager.manager import JobManager

    return {name: value for name, value in vars(module).items() if isinstance(value, JobManager)}
