"""From settings to a backend and the reason for it. Deciding is pure; loading the chosen class is the one lazy import."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from jobmanager.backends import BUILT_IN, CALLED, ENTRY_POINT_GROUP, EXTRAS
from jobmanager.backends.base import Backend
from jobmanager.errors import (
    ConfigurationError,
    MissingExtraError,
    SettingsError,
    UnknownBackendError,
)

if TYPE_CHECKING:
    from jobmanager.settings import Settings

# What only works where others can reach it, in the order in which production takes it.
_REMOTE = ("celery", "pg_cron", "trigger_dev", "qstash", "inngest")


# Taken only where a variable says so: no other setting shows that they are meant.
_NOT_ASKED_FOR = {
    "noop": "JOBMANAGER_DISABLED is not true",
    "external": "JOBMANAGER_BACKEND does not say external",
    "vercel": "VERCEL=1 is not set",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A built-in backend that was not chosen, and why. `configured`: something was set for it, so the reason is worth a warning."""

    backend: str
    reason: str
    configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The chosen backend, the reason, and the reasons against the others. `backend` is a name or a dotted path."""

    backend: str
    reason: str
    rejected: tuple[Rejected, ...] = ()

    def __str__(self) -> str:
        return f'backend={self.backend} reason="{self.reason}"'


def resolve(settings: Settings) -> Resolution:
    """Choose the backend for these settings; nothing is imported, connected or guessed.

    JOBMANAGER_DISABLED gives noop; else JOBMANAGER_BACKEND gives that one; else, in production, the first that is fully configured of
    celery, pg_cron, trigger_dev, qstash and inngest; else, on Vercel with a secret, vercel: a process that is frozen after each answer keeps no
    time; else local. Raises SettingsError if the backend that JOBMANAGER_BACKEND
    names lacks a setting. Whether that backend exists is known to `load_backend_class`.
    """
    backend, reason = _choose(settings)
    rejected = tuple(_reject(name, backend, settings) for name in BUILT_IN if name != backend)
    return Resolution(backend=backend, reason=reason, rejected=rejected)


def _choose(settings: Settings) -> tuple[str, str]:
    if settings.disabled:
        return "noop", "JOBMANAGER_DISABLED=true"
    if settings.backend:
        if missing := _missing(settings.backend, settings):
            needs = f"JOBMANAGER_BACKEND={settings.backend} needs {' and '.join(missing)}."
            if settings.backend == "pg_cron" and "JOBMANAGER_PUBLIC_URL" in missing:
                needs += " Without HTTP, JOBMANAGER_PG_CRON_TRANSPORT=notify needs neither URL nor secret."
            raise SettingsError(needs, name="JOBMANAGER_BACKEND")
        return settings.backend, f"JOBMANAGER_BACKEND={settings.backend}"
    if settings.is_production:
        for name in _REMOTE:
            if not _missing(name, settings):
                return name, f"JOBMANAGER_ENVIRONMENT=production and {name} is fully configured"
    if settings.vercel and settings.secret:
        return "vercel", "VERCEL=1 and JOBMANAGER_BACKEND unset"
    return "local", "JOBMANAGER_BACKEND unset"


def _reject(name: str, chosen: str, settings: Settings) -> Rejected:
    if name in _REMOTE and (missing := _missing(name, settings)):
        partly = _is_begun(name, chosen, settings)
        how = "configured in part only" if partly else "not configured"
        return Rejected(backend=name, reason=f"{how}: {' and '.join(missing)} unset", configured=partly)
    if name == "vercel" and settings.vercel and not settings.secret:
        reason = "configured in part only: JOBMANAGER_SECRET unset"
        return Rejected(backend=name, reason=reason, configured=True)
    overruled = _overruled(name, chosen, settings)
    if name in _REMOTE:
        return Rejected(backend=name, reason=f"configured but not active: {overruled}", configured=True)
    if settings.disabled or (name == "vercel" and settings.vercel):
        return Rejected(backend=name, reason=overruled)
    return Rejected(backend=name, reason=_NOT_ASKED_FOR.get(name, overruled))


def _is_begun(name: str, chosen: str, settings: Settings) -> bool:
    """Return whether something is set that says that this backend is meant."""
    match name:
        case "pg_cron":
            return chosen not in CALLED and bool(settings.public_url or settings.secret)
        case "qstash":
            return bool(settings.qstash_token or settings.qstash_current_signing_key)
        case "trigger_dev":
            return bool(settings.trigger_dev_api_key)
    return False


def _overruled(name: str, chosen: str, settings: Settings) -> str:
    """Return why a backend that was possible is not chosen: what comes before it."""
    if settings.disabled and settings.backend == name:
        return f"JOBMANAGER_DISABLED=true overrules JOBMANAGER_BACKEND={name}"
    if settings.disabled:
        return "JOBMANAGER_DISABLED=true"
    if settings.backend:
        return f"JOBMANAGER_BACKEND={settings.backend}"
    if not settings.is_production:
        return f"JOBMANAGER_ENVIRONMENT={settings.environment} is not production"
    return f"{chosen} comes first in production"


def _missing(name: str, settings: Settings) -> list[str]:
    """Return the settings that a built-in backend needs and does not have."""
    needed: dict[str, object] = {}
    match name:
        case "celery":
            needed = {"JOBMANAGER_CELERY_BROKER_URL": settings.celery_broker_url}
        case "pg_cron":
            needed = {"a PostgreSQL JOBMANAGER_DATABASE_URL": settings.database_url.startswith("postgresql")}
            if settings.pg_cron_transport != "notify":
                needed["JOBMANAGER_PUBLIC_URL"] = settings.public_url
                needed["JOBMANAGER_SECRET"] = settings.secret
        case "inngest":
            needed = {"JOBMANAGER_INNGEST_APP_ID": settings.inngest_app_id}
        case "vercel":
            needed = {"JOBMANAGER_SECRET": settings.secret}
        case "trigger_dev":
            needed = {
                "JOBMANAGER_TRIGGER_DEV_API_KEY": settings.trigger_dev_api_key,
                "JOBMANAGER_TRIGGER_DEV_ENABLED=true": settings.trigger_dev_enabled,
                "JOBMANAGER_PUBLIC_URL": settings.public_url,
                "JOBMANAGER_SECRET": settings.secret,
            }
        case "qstash":
            needed = {
                "JOBMANAGER_QSTASH_TOKEN": settings.qstash_token,
                "JOBMANAGER_QSTASH_CURRENT_SIGNING_KEY": settings.qstash_current_signing_key,
                "JOBMANAGER_PUBLIC_URL": settings.public_url,
            }
    return [variable for variable, value in needed.items() if not value]


def load_backend_class(name: str) -> type[Backend]:
    """Return the class of a built-in name, an entry point or a path "package.module:Class", looked up in this order.

    Raises UnknownBackendError if nothing has the name, MissingExtraError if the backend needs a package of an extra,
    ConfigurationError if what has the name cannot be loaded or is no Backend.
    """
    entry_points = {} if name in BUILT_IN else _entry_points()
    if name in BUILT_IN:
        found = _built_in(name)
    elif name in entry_points:
        found = _loaded(name, entry_points[name])
    elif ":" in name or "." in name:
        found = _loaded(name, name)
    else:
        raise UnknownBackendError(_unknown(name, [*BUILT_IN, *entry_points]), backend=name)
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise ConfigurationError(
            f"Backend {name!r} is {found!r}; it must be a subclass of {Backend.__module__}.Backend."
        )
    return found


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points  # a scan of all that is installed; built-in names do without

    return {point.name: f"{point.module}:{point.attr}" for point in entry_points(group=ENTRY_POINT_GROUP)}


def _built_in(name: str) -> object:
    path = BUILT_IN[name]
    try:
        return _attribute(path)
    except ModuleNotFoundError as error:
        if name not in EXTRAS or _is_itself(error, path):
            raise
        package = (error.name or str(error)).partition(".")[0]
        advice = f"Install jobmanager-backends[{EXTRAS[name]}]."
        raise MissingExtraError(
            f"Backend {name!r} needs the package {package}. {advice}", extra=EXTRAS[name]
        ) from error


def _loaded(name: str, path: str) -> object:
    """Load a backend that is not built in; raise what keeps it from loading, together with its name."""
    if not all(part.isidentifier() for part in path.replace(":", ".").split(".")):
        raise UnknownBackendError(_unknown(name, list(BUILT_IN)), backend=name)
    try:
        return _attribute(path)
    except ModuleNotFoundError as error:
        if name == path and _is_itself(error, path):
            raise UnknownBackendError(_unknown(name, list(BUILT_IN)), backend=name) from error
        raise ConfigurationError(f"Backend {name!r} cannot be loaded: {error}.") from error
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"Backend {name!r} cannot be loaded: {error}.") from error


def _attribute(path: str) -> object:
    """Return the object that "package.module:Name" or "package.module.Name" names."""
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    found: object = getattr(import_module(module), attribute)
    return found


def _is_itself(error: ModuleNotFoundError, path: str) -> bool:
    """Return whether the module of `path` itself is missing, rather than something that it imports."""
    return error.name is not None and path.replace(":", ".").startswith(f"{error.name}.")


def _unknown(name: str, known: list[str]) -> str:
    meant = get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {meant[0]!r}?" if meant else ""
    return f"No backend {name!r}.{suggestion} Known are {', '.join(sorted(known))}, and paths like package.module:Class."
