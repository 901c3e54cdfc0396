"""The resolver: which settings choose which backend, what is said of the others, and how a class is found."""

import importlib.metadata
import sys
from dataclasses import FrozenInstanceError

import pytest

from jobmanager import Settings
from jobmanager.backends import BUILT_IN, ENTRY_POINT_GROUP
from jobmanager.backends.base import Backend
from jobmanager.backends.resolver import Resolution, load_backend_class, resolve
from jobmanager.errors import (
    ConfigurationError,
    MissingExtraError,
    SettingsError,
    UnknownBackendError,
)

PRODUCTION = {"environment": "production"}
CELERY = {"celery_broker_url": "redis://h/0"}
POSTGRESQL = {"database_url": "postgresql://h/x"}
SECRET = {"secret": "k3JhWq0PzR7vXn5LsT1yBm9cDf4gHj2A"}
CALLED = {"public_url": "https://example.org", **SECRET}
PG_CRON = {**POSTGRESQL, **CALLED}
TRIGGER_DEV = {"trigger_dev_api_key": "tr_prod_0123456789", **CALLED}
QSTASH = {"qstash_token": "token-of-qstash", "qstash_current_signing_key": "sig_current", **CALLED}


@pytest.mark.parametrize(
    ("given", "backend", "reason"),
    [
        # 1 the switch beats everything
        ({"disabled": True}, "noop", "JOBMANAGER_DISABLED=true"),
        ({"disabled": True, "backend": "local"}, "noop", "JOBMANAGER_DISABLED=true"),
        ({"disabled": True, "backend": "celery"}, "noop", "JOBMANAGER_DISABLED=true"),
        ({"disabled": True, **PRODUCTION, **CELERY, **PG_CRON}, "noop", "JOBMANAGER_DISABLED=true"),
        # 2 the name beats what is configured
        ({"backend": "noop"}, "noop", "JOBMANAGER_BACKEND=noop"),
        ({"backend": "external"}, "external", "JOBMANAGER_BACKEND=external"),
        ({"backend": "external", **PRODUCTION, **CELERY}, "external", "JOBMANAGER_BACKEND=external"),
        ({"backend": "local", **PRODUCTION, **CELERY}, "local", "JOBMANAGER_BACKEND=local"),
        ({"backend": "celery", **CELERY}, "celery", "JOBMANAGER_BACKEND=celery"),
        ({"backend": "pg_cron", **PG_CRON}, "pg_cron", "JOBMANAGER_BACKEND=pg_cron"),
        (
            {"backend": "pg_cron", "pg_cron_transport": "notify", **POSTGRESQL},
            "pg_cron",
            "JOBMANAGER_BACKEND=pg_cron",
        ),
        ({"backend": "pg_cron", **PRODUCTION, **CELERY, **PG_CRON}, "pg_cron", "JOBMANAGER_BACKEND=pg_cron"),
        (
            {"backend": "acme.jobs:FileBackend"},
            "acme.jobs:FileBackend",
            "JOBMANAGER_BACKEND=acme.jobs:FileBackend",
        ),
        # 3 production with Celery
        (
            {**PRODUCTION, **CELERY},
            "celery",
            "JOBMANAGER_ENVIRONMENT=production and celery is fully configured",
        ),
        (
            {**PRODUCTION, **CELERY, **PG_CRON},
            "celery",
            "JOBMANAGER_ENVIRONMENT=production and celery is fully configured",
        ),
        # 4 production with pg_cron
        (
            {**PRODUCTION, **PG_CRON},
            "pg_cron",
            "JOBMANAGER_ENVIRONMENT=production and pg_cron is fully configured",
        ),
        (
            {**PRODUCTION, "pg_cron_transport": "notify", **POSTGRESQL},
            "pg_cron",
            "JOBMANAGER_ENVIRONMENT=production and pg_cron is fully configured",
        ),
        # 5 production with Trigger.dev, then with QStash
        (
            {**PRODUCTION, **TRIGGER_DEV, **QSTASH},
            "trigger_dev",
            "JOBMANAGER_ENVIRONMENT=production and trigger_dev is fully configured",
        ),
        ({**PRODUCTION, **TRIGGER_DEV, "trigger_dev_enabled": False}, "local", "JOBMANAGER_BACKEND unset"),
        (
            {**PRODUCTION, **TRIGGER_DEV, **QSTASH, "trigger_dev_enabled": False},
            "qstash",
            "JOBMANAGER_ENVIRONMENT=production and qstash is fully configured",
        ),
        ({**TRIGGER_DEV, **QSTASH}, "local", "JOBMANAGER_BACKEND unset"),
        (
            {**PRODUCTION, "inngest_app_id": "shop", "vercel": True, **SECRET},
            "inngest",
            "JOBMANAGER_ENVIRONMENT=production and inngest is fully configured",
        ),
        # 6 on Vercel
        ({"vercel": True, **SECRET}, "vercel", "VERCEL=1 and JOBMANAGER_BACKEND unset"),
        ({"vercel": True, **SECRET, "backend": "local"}, "local", "JOBMANAGER_BACKEND=local"),
        ({"vercel": True, **SECRET, "disabled": True}, "noop", "JOBMANAGER_DISABLED=true"),
        (
            {"vercel": True, **PRODUCTION, **QSTASH, **SECRET},
            "qstash",
            "JOBMANAGER_ENVIRONMENT=production and qstash is fully configured",
        ),
        ({"vercel": True}, "local", "JOBMANAGER_BACKEND unset"),
        # 7 else this process
        ({}, "local", "JOBMANAGER_BACKEND unset"),
        (PRODUCTION, "local", "JOBMANAGER_BACKEND unset"),
        (CELERY, "local", "JOBMANAGER_BACKEND unset"),
        (PG_CRON, "local", "JOBMANAGER_BACKEND unset"),
        ({"environment": "staging", **CELERY, **PG_CRON}, "local", "JOBMANAGER_BACKEND unset"),
        ({**PRODUCTION, **POSTGRESQL}, "local", "JOBMANAGER_BACKEND unset"),
        ({**PRODUCTION, **CALLED}, "local", "JOBMANAGER_BACKEND unset"),
        ({**PRODUCTION, **POSTGRESQL, **SECRET}, "local", "JOBMANAGER_BACKEND unset"),
        ({**PRODUCTION, **POSTGRESQL, "public_url": "https://h"}, "local", "JOBMANAGER_BACKEND unset"),
    ],
)
def test_the_first_rule_that_holds_decides(given, backend, reason):
    resolution = resolve(Settings(**given))
    assert (resolution.backend, resolution.reason) == (backend, reason)
    assert {rejected.backend for rejected in resolution.rejected} == set(BUILT_IN) - {backend}
    assert all(rejected.reason for rejected in resolution.rejected)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"backend": "celery"}, "JOBMANAGER_BACKEND=celery needs JOBMANAGER_CELERY_BROKER_URL."),
        (
            {"backend": "pg_cron"},
            (
                "JOBMANAGER_BACKEND=pg_cron needs a PostgreSQL JOBMANAGER_DATABASE_URL and JOBMANAGER_PUBLIC_URL and "
                "JOBMANAGER_SECRET. Without HTTP, JOBMANAGER_PG_CRON_TRANSPORT=notify needs neither URL nor secret."
            ),
        ),
        (
            {"backend": "pg_cron", **POSTGRESQL, **SECRET},
            "JOBMANAGER_BACKEND=pg_cron needs JOBMANAGER_PUBLIC_URL.",
        ),
        (
            {"backend": "pg_cron", **PRODUCTION, **CELERY, **CALLED},
            "JOBMANAGER_BACKEND=pg_cron needs a PostgreSQL JOBMANAGER_DATABASE_URL.",
        ),
    ],
)
def test_a_named_backend_that_lacks_a_setting_is_an_error_that_names_it(given, sentence):
    with pytest.raises(SettingsError) as caught:
        resolve(Settings(**given))
    assert str(caught.value).startswith(sentence)
    assert caught.value.name == "JOBMANAGER_BACKEND"


@pytest.mark.parametrize(
    ("given", "backend", "reason", "configured"),
    [
        ({}, "noop", "JOBMANAGER_DISABLED is not true", False),
        ({}, "external", "JOBMANAGER_BACKEND does not say external", False),
        ({**PRODUCTION, **SECRET}, "external", "JOBMANAGER_BACKEND does not say external", False),
        (
            {"disabled": True, "backend": "external"},
            "external",
            "JOBMANAGER_DISABLED=true overrules JOBMANAGER_BACKEND=external",
            False,
        ),
        ({}, "celery", "not configured: JOBMANAGER_CELERY_BROKER_URL unset", False),
        (
            CELERY,
            "celery",
            "configured but not active: JOBMANAGER_ENVIRONMENT=development is not production",
            True,
        ),
        (
            {**CELERY, "backend": "local"},
            "celery",
            "configured but not active: JOBMANAGER_BACKEND=local",
            True,
        ),
        ({**CELERY, "disabled": True}, "celery", "configured but not active: JOBMANAGER_DISABLED=true", True),
        (
            {**CELERY, "disabled": True, "backend": "celery"},
            "celery",
            "configured but not active: JOBMANAGER_DISABLED=true overrules JOBMANAGER_BACKEND=celery",
            True,
        ),
        (
            {"disabled": True, "backend": "local"},
            "local",
            "JOBMANAGER_DISABLED=true overrules JOBMANAGER_BACKEND=local",
            False,
        ),
        ({"backend": "noop"}, "local", "JOBMANAGER_BACKEND=noop", False),
        (
            {**PRODUCTION, "trigger_dev_api_key": "tr_prod_0123456789", **SECRET},
            "trigger_dev",
            "configured in part only: JOBMANAGER_PUBLIC_URL unset",
            True,
        ),
        (
            {**PRODUCTION, **TRIGGER_DEV, **QSTASH},
            "qstash",
            "configured but not active: trigger_dev comes first in production",
            True,
        ),
        (
            {"qstash_token": "token-of-qstash", **CALLED},
            "qstash",
            "configured in part only: JOBMANAGER_QSTASH_CURRENT_SIGNING_KEY unset",
            True,
        ),
        (
            {**PRODUCTION, **QSTASH},
            "pg_cron",
            "not configured: a PostgreSQL JOBMANAGER_DATABASE_URL unset",
            False,
        ),
        ({}, "vercel", "VERCEL=1 is not set", False),
        ({"vercel": True}, "vercel", "configured in part only: JOBMANAGER_SECRET unset", True),
        ({"vercel": True, **SECRET, "backend": "local"}, "vercel", "JOBMANAGER_BACKEND=local", False),
        ({**PRODUCTION, **CELERY}, "local", "celery comes first in production", False),
        (
            {**PRODUCTION, **CELERY, **PG_CRON},
            "pg_cron",
            "configured but not active: celery comes first in production",
            True,
        ),
        (
            {**PRODUCTION, **POSTGRESQL, **SECRET},
            "pg_cron",
            "configured in part only: JOBMANAGER_PUBLIC_URL unset",
            True,
        ),
        (
            {**PRODUCTION, **POSTGRESQL},  # a store like any other, no sign of pg_cron
            "pg_cron",
            "not configured: JOBMANAGER_PUBLIC_URL and JOBMANAGER_SECRET unset",
            False,
        ),
    ],
)
def test_every_backend_that_was_not_chosen_says_why(given, backend, reason, configured):
    (rejected,) = (one for one in resolve(Settings(**given)).rejected if one.backend == backend)
    assert (rejected.reason, rejected.configured) == (reason, configured)


def test_resolving_imports_no_backend_and_reads_no_environment(monkeypatch):
    monkeypatch.setenv("JOBMANAGER_DISABLED", "true")
    assert resolve(Settings(backend="no.such.module:Backend")).backend == "no.such.module:Backend"
    assert resolve(Settings()).backend == "local"


def test_a_resolution_is_a_frozen_value_and_one_log_line():
    resolution = resolve(Settings())
    assert resolution == resolve(Settings())
    assert str(resolution) == 'backend=local reason="JOBMANAGER_BACKEND unset"'
    with pytest.raises(FrozenInstanceError):
        resolution.backend = "noop"
    assert Resolution(backend="x", reason="y").rejected == ()


# Finding the class


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported during the test; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(text: str) -> str:
        name = f"module_of_{tmp_path.name}_{len(names)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


BACKEND = "from jobmanager.backends.base import Backend\nclass FileBackend(Backend):\n    name = 'file'\nNOT_A_CLASS = 3\n"


@pytest.mark.parametrize("separator", [":", "."])
def test_a_dotted_path_is_a_backend(module, separator):
    found = load_backend_class(f"{module(BACKEND)}{separator}FileBackend")
    assert issubclass(found, Backend)
    assert found.name == "file"


def test_an_entry_point_is_a_backend(module, monkeypatch):
    point = importlib.metadata.EntryPoint("file", f"{module(BACKEND)}:FileBackend", ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda *, group: [point] if group == ENTRY_POINT_GROUP else []
    )
    assert load_backend_class("file").name == "file"
    with pytest.raises(
        UnknownBackendError,
        match=r"No backend 'fil'\. Did you mean 'file'\? Known are celery, external, file, inngest, local",
    ):
        load_backend_class("fil")


def test_an_entry_point_cannot_take_a_built_in_name(module, monkeypatch):
    point = importlib.metadata.EntryPoint("celery", f"{module(BACKEND)}:FileBackend", ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
    monkeypatch.setitem(BUILT_IN, "celery", f"{module(BACKEND)}:FileBackend")
    assert load_backend_class("celery").__module__ == BUILT_IN["celery"].partition(":")[0]


def test_an_unknown_name_is_an_error_with_the_known_ones():
    with pytest.raises(UnknownBackendError) as caught:
        load_backend_class("locl")
    assert str(caught.value) == (
        "No backend 'locl'. Did you mean 'local'? Known are celery, external, inngest, local, noop, pg_cron, qstash, trigger_dev, vercel, and paths like package.module:Class."
    )
    assert caught.value.backend == "locl"


@pytest.mark.parametrize(
    "path", ["no_such_package.jobs:FileBackend", "jobmanager.no_such:FileBackend", "no_such.FileBackend"]
)
def test_a_path_to_nowhere_is_an_unknown_backend(path):
    with pytest.raises(UnknownBackendError, match="No backend"):
        load_backend_class(path)


def test_a_path_to_a_missing_class_says_so(module):
    name = module(BACKEND)
    with pytest.raises(
        ConfigurationError, match=f"Backend '{name}:Nothing' cannot be loaded: .*no attribute 'Nothing'"
    ):
        load_backend_class(f"{name}:Nothing")


def test_a_module_that_misses_a_package_says_which(module):
    with pytest.raises(
        ConfigurationError, match=r"cannot be loaded: No module named 'no_such_package'\."
    ) as caught:
        load_backend_class(f"{module('import no_such_package')}:FileBackend")
    assert not isinstance(caught.value, UnknownBackendError)


@pytest.mark.parametrize("attribute", ["NOT_A_CLASS", "__name__"])
def test_what_is_no_backend_is_refused(module, attribute):
    with pytest.raises(
        ConfigurationError, match=r"must be a subclass of jobmanager\.backends\.base\.Backend"
    ):
        load_backend_class(f"{module(BACKEND)}:{attribute}")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("celery", "celery", "celery"), ("celery", "kombu", "celery"), ("pg_cron", "psycopg", "postgres")],
)
def test_a_missing_package_names_its_extra(module, monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(BUILT_IN, name, f"{module(f'import {package}.something')}:Anything")
    with pytest.raises(MissingExtraError) as caught:
        load_backend_class(name)
    assert str(caught.value) == (
        f"Backend '{name}' needs the package {package}. Install jobmanager-backends[{extra}]."
    )
    assert caught.value.extra == extra


@pytest.mark.parametrize(
    "name", ["local", "noop", "celery", "pg_cron", "external", "qstash", "trigger_dev", "inngest", "vercel"]
)
def test_the_backends_of_this_version_are_found_by_name(name):
    assert load_backend_class(name).name == name
