"""The declared jobs and their handlers: keys, lazy imports, arguments checked by annotations."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, Literal, get_type_hints

from jobmanager.context import RunContext
from jobmanager.errors import (
    ConfigurationError,
    DuplicateJobError,
    HandlerNotFoundError,
    JobNotFoundError,
    PayloadError,
)
from jobmanager.job import Job
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import shown

logger = get_logger(__name__)

_DEPENDS = re.compile(r"\bDepends\(")  # in an annotation that is text as yet
HandlerTarget = Callable[..., Any] | str
HandlerKind = Literal["code", "webhook"]


class Handler:
    """A callable under a key, or the "package.module:function" from which it is imported at first use."""

    __slots__ = ("creatable", "is_known_coroutine", "key", "kind", "stored", "target")

    def __init__(
        self,
        key: str,
        target: HandlerTarget,
        *,
        creatable: bool = True,
        kind: HandlerKind = "code",
        stored: bool = False,
    ) -> None:
        self.key: str = key
        self.kind: HandlerKind = kind
        self.stored: bool = stored
        """Whether an operator made it, so that a declaration in code takes its place."""
        self.creatable: bool = creatable
        """Whether operators may make jobs of it."""
        self.target: HandlerTarget = target
        self.is_known_coroutine: bool = not isinstance(target, str) and _is_async(target)
        """Whether the handler is a coroutine function that is imported already."""

    @property
    def function(self) -> Callable[..., Any]:
        """The callable itself, imported if need be; HandlerNotFoundError if it cannot be imported."""
        if not isinstance(self.target, str):
            return self.target
        self.target = _imported(self.key, self.target)
        self.is_known_coroutine = _is_async(self.target)
        return self.target

    def arguments(self, config: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
        """Validate config and payload (the payload wins) and return the keyword arguments; PayloadError if they do not fit."""
        return parameters_of(self.function).fill(self.key, config, payload)

    def info(self) -> HandlerInfo:
        """Return what an operator needs to know of it; HandlerNotFoundError if it cannot be imported."""
        return HandlerInfo(
            key=self.key,
            description=inspect.getdoc(self.function) or "",
            arguments=parameters_of(self.function).schema(),
            creatable=self.creatable,
            kind=self.kind,
        )

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Raise PayloadError if the config alone does not fit; missing arguments may still come with a payload."""
        parameters_of(self.function).check(self.key, config)

    def call_arguments(self, context: RunContext) -> dict[str, Any]:
        """Return `arguments`, with the context if the function has a parameter of that name."""
        parameters = parameters_of(self.function)
        arguments = parameters.fill(self.key, context.config, context.payload)
        if parameters.wants_context:
            arguments["context"] = context
        return arguments

    def bound_to(self, context: RunContext) -> Callable[[], Any]:
        """Return the function with its arguments for this run; raises what `function` and `arguments` raise."""
        arguments = self.call_arguments(context)
        return partial(self.function, **arguments) if arguments else self.function


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerInfo:
    """A handler as operators see it: its key, its docstring, and the JSON schema of its arguments beside the context.

    `kind` is code or webhook.
    """

    key: str
    description: str
    arguments: Mapping[str, Any]
    creatable: bool
    kind: HandlerKind = "code"


class Registry:
    """The jobs by id and the handlers by key. Filled while the application is imported; read by any thread."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        """The jobs in force: the declarations with the operators' overrides."""
        self.declared: dict[str, Job] = {}
        self.declared_at: dict[str, str] = {}
        """`file:line` of each declaration that has one."""
        self.seeds: dict[str, Job] = {}
        """The jobs that `seed` was called with, with their gates; operators may have deleted some."""
        self.handlers: dict[str, Handler] = {}
        self._shipped: dict[str, Handler] = {}

    def add_handler(
        self, key: str, target: HandlerTarget, *, creatable: bool = True, kind: HandlerKind = "code"
    ) -> None:
        """Register a handler; twice is safe. It takes the place of a stored one, and of one of the package.

        Raises DuplicateJobError for another target under the same key, ConfigurationError for what cannot be called.
        """
        if not callable(target) and not isinstance(target, str):
            raise ConfigurationError(
                f"Handler {key!r} is {shown(target)}, which cannot be called. Give a function, or 'package.module:function'."
            )
        _refuse_dependencies(key, target)
        known = self.handlers.get(key)
        if known is None or known.stored or known is self._shipped.get(key):
            self.handlers[key] = Handler(key, target, creatable=creatable, kind=kind)
        elif known.target is not target and known.target != target:
            raise DuplicateJobError(
                f"Handler {key!r} is registered twice, for {_name(known.target)} and for {_name(target)}. "
                "Give one of them another key."
            )

    def ship(self, key: str, target: HandlerTarget) -> None:
        """Register a handler of the package; one of the application under the same key replaces it."""
        self._shipped[key] = self.handlers[key] = Handler(key, target)

    def add_job(self, job: Job, *, declared_at: str | None = None) -> None:
        """Register a job; twice is safe. Raises DuplicateJobError for another declaration under the same id."""
        known = self.declared.setdefault(job.id, job)
        if known is not job and known != job:
            raise DuplicateJobError(
                f"Job {job.id!r} is declared twice, and differently{self.place(job.id, ', first at {}')}. "
                "Give one of them another id."
            )
        self.jobs.setdefault(job.id, job)
        if declared_at is not None:
            self.declared_at.setdefault(job.id, declared_at)

    def take_stored(self, jobs: Mapping[str, Job | None]) -> None:
        """Take over jobs that operators made, or changed; None takes one away. Who reads the jobs meanwhile keeps what it read."""
        self.jobs = {job_id: job for job_id, job in {**self.jobs, **jobs}.items() if job is not None}

    def take_stored_handlers(self, handlers: Mapping[str, Handler | None]) -> None:
        """Take over handlers that operators made, or changed; None takes one away. Those of the code stay."""
        of_code = {key for key, handler in self.handlers.items() if not handler.stored}
        for key in sorted(of_code.intersection(key for key, handler in handlers.items() if handler)):
            logger.warning("handler=%s is stored, and declared by code: the code decides", key)
        taken = {key: handler for key, handler in handlers.items() if key not in of_code}
        self.handlers = {key: handler for key, handler in {**self.handlers, **taken}.items() if handler}

    def place(self, job_id: str, phrase: str = " (declared at {})") -> str:
        """Return a phrase with the line that declares the job; nothing where it is not known."""
        place = self.declared_at.get(job_id)
        return phrase.format(place) if place else ""

    def job(self, job_id: str) -> Job:
        """Return the job with this id; JobNotFoundError, with the closest id, if none is declared."""
        try:
            return self.jobs[job_id]
        except (KeyError, TypeError):
            raise JobNotFoundError(
                f"No job {shown(job_id)} is declared.{closest(job_id, self.jobs)}", job_id=job_id
            ) from None

    def handler(self, key: str) -> Handler:
        """Return the handler under this key; HandlerNotFoundError, with the closest key, if none is registered."""
        try:
            return self.handlers[key]
        except KeyError:
            raise HandlerNotFoundError(
                f"No handler {key!r} is registered.{closest(key, self.handlers)}"
            ) from None


class Parameters:
    """The parameters of a function beside the context; built once per function, with validators at first use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        taken = inspect.signature(function).parameters.values()
        self.wants_context = any(p.name == "context" for p in taken)
        named = [
            p for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "context"
        ]
        self.names = [p.name for p in named]
        self.required = [p.name for p in named if p.default is p.empty]
        # A handler with no parameter but the context, or with **kwargs, accepts every argument.
        self.open = any(p.kind is p.VAR_KEYWORD for p in taken)
        self.free = self.open or (self.wants_context and not named)
        self._schemas: dict[str, dict[str, Any]] = {}

    @cached_property
    def _validators(self) -> Mapping[str, Any]:
        from pydantic import ConfigDict, TypeAdapter  # noqa: PLC0415 - 100 ms that importing jobmanager must not cost

        try:
            hints = get_type_hints(self._function, include_extras=True)
        except NameError as error:
            raise PayloadError(
                f"{_name(self._function)}: {error}; its annotations must be importable names."
            ) from error
        loose = ConfigDict(arbitrary_types_allowed=True)
        return {
            name: TypeAdapter(
                hints[name], config=None if hasattr(hints[name], "__pydantic_core_schema__") else loose
            )
            for name in self.names
            if name in hints and hints[name] is not Any
        }

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the arguments; an argument that JSON cannot describe takes anything."""
        return {
            "type": "object",
            "properties": {name: deepcopy(self._described(name)) for name in self.names},
            "required": self.required,
            "additionalProperties": self.free,
        }

    def _described(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of an argument, made once: pages ask for those of all handlers."""
        if name not in self._schemas:
            try:
                validator = self._validators.get(name)
                self._schemas[name] = {} if validator is None else validator.json_schema()
            except Exception:  # noqa: BLE001 - a type of the application's own, which pydantic cannot describe
                return {}
        return self._schemas[name]

    def fill(self, key: str, config: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the validated keyword arguments; PayloadError if one is unknown, missing or of the wrong type."""
        if not (config or payload or self.required):
            return {}
        values = {**config, **self._without_locale(key, payload)}
        arguments = self.check(key, values)
        missing = [name for name in self.required if name not in values]
        if missing:
            raise PayloadError(f"Handler {key!r} needs {', '.join(missing)}: give it in config or payload.")
        return arguments

    def _without_locale(self, key: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the payload without its `locale` where the handler has no such parameter: `context.locale` says it."""
        if "locale" not in payload or "locale" in self.names or self.free:
            return payload
        if not isinstance(payload["locale"], str):
            raise PayloadError(
                f"Handler {key!r}: locale={shown(payload['locale'])} is no text; use one such as 'de' or 'pt-BR'."
            )
        return {name: value for name, value in payload.items() if name != "locale"}

    def check(self, key: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values validated; PayloadError if one is unknown or of the wrong type."""
        unknown = [name for name in values if name not in self.names]
        if unknown and not self.free:
            takes = ", ".join(self.names) or "no arguments"
            raise PayloadError(
                f"Handler {key!r} takes {takes}; {unknown[0]!r} is unknown.{closest(unknown[0], self.names)}"
            )
        wrong, arguments = [], {}
        for name, value in values.items():
            if name not in self.names and not self.open:
                continue
            try:
                validator = self._validators.get(name)
                arguments[name] = value if validator is None else validator.validate_python(value)
            except ValueError as error:
                wrong.append(f"{name}={value!r}: {_first_line(error)}")
        if wrong:
            raise PayloadError(f"Handler {key!r} refuses " + "; ".join(wrong))
        return arguments


@lru_cache(maxsize=4096)
def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Inspect the parameters of a function, once."""
    return Parameters(function)


def _refuse_dependencies(key: str, target: HandlerTarget) -> None:
    """Raise ConfigurationError for a function with a parameter that only FastAPI would fill, in a request."""
    defaults = (
        *(getattr(target, "__defaults__", None) or ()),
        *(getattr(target, "__kwdefaults__", None) or {}).values(),
    )
    notes = getattr(target, "__annotations__", None) or {}
    of_types = [note for hint in notes.values() for note in getattr(hint, "__metadata__", ())]
    kinds = [type(item) for item in (*defaults, *of_types) if type(item).__module__ == "fastapi.params"]
    if kinds or any(_DEPENDS.search(hint) for hint in notes.values() if isinstance(hint, str)):
        named = kinds[0].__name__ if kinds else "Depends"
        raise ConfigurationError(
            f"Handler {key!r} has a parameter with FastAPI's {named}(...), which FastAPI fills in requests alone. Open what it needs inside "
            "of the handler, or around each attempt by JobManager(around=[...])."
        )


def _is_async(function: Callable[..., Any]) -> bool:
    called = type(function).__call__ if not inspect.isroutine(function) else function
    return inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(called)


def closest(name: object, known: Iterable[str]) -> str:
    """Write a sentence that suggests the closest known name; '' if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1) if isinstance(name, str) else ()
    return f" Did you mean {found[0]!r}?" if found else ""


def _imported(key: str, path: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise HandlerNotFoundError(f"Handler {key!r}: {path!r} cannot be imported: {error}") from error
    if not callable(target):
        raise HandlerNotFoundError(f"Handler {key!r}: {path!r} is not callable.")
    return target  # type: ignore[no-any-return]


def _name(target: object) -> str:
    return (
        target
        if isinstance(target, str)
        else f"{getattr(target, '__module__', '?')}:{getattr(target, '__qualname__', target)}"
    )


def _first_line(error: ValueError) -> str:
    details: Callable[[], Any] | None = getattr(error, "errors", None)
    return str(details()[0]["msg"]) if callable(details) else str(error).partition("\n")[0]
