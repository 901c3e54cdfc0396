"""Settings: names, values, and what never shows."""

import os
import pickle
import re
from dataclasses import FrozenInstanceError
from datetime import timedelta
from pathlib import Path

import pytest

from jobmanager import Settings
from jobmanager.errors import ConfigurationError, SettingsError
from jobmanager.settings import KINDS, flag, percent_encoded, shown_url

SECRET = "k3JhWq0PzR7vXn5LsT1yBm9cDf4gHj2A"
KEY = "mU6kq3xgUSf2jW0cXo6mGv3lTt0mZ1kq0dYbN1yJ5hU="


USERS = "ana:admin:scrypt.14.8.5." + "s" * 22 + "." + "h" * 43


def test_the_defaults_are_the_documented_ones():
    settings = Settings()
    assert vars(settings) == {
        "disabled": False,
        "backend": None,
        "environment": "development",
        "database_url": f"sqlite:///{Path.cwd()}/jobmanager.db",
        "namespace": "default",
        "app": None,
        "workers": 10,
        "coroutines": 1000,
        "lease_seconds": 30,
        "grace_seconds": 60,
        "sweep_seconds": 30,
        "drain_seconds": 25,
        "watchdog": "log",
        "durability": "strict",
        "capture_logs": True,
        "audit_retention_days": 365,
        "dashboard_users": None,
        "recent_auth_minutes": 15,
        "trusted_origins": None,
        "retention_days": None,
        "retention_days_succeeded": None,
        "retention_days_failed": None,
        "max_runs": None,
        "retention_max_bytes": None,
        "celery_broker_url": None,
        "celery_group_max": 1,
        "public_url": None,
        "secret": None,
        "auth": "signature",
        "run_path": "/jobs/run",
        "wait": False,
        "wait_seconds": 25,
        "pg_cron_url": None,
        "pg_cron_transport": "auto",
        "pg_cron_layout": "dispatcher",
        "alerts_email": None,
        "alerts_urls": None,
        "alerts_on": "failures",
        "alerts_from": None,
        "alerts_quiet": 900,
        "alerts_backlog": None,
        "alerts_dead_letters": None,
        "heartbeat_url": None,
        "smtp_url": None,
        "locale": "en",
        "dashboard_url": None,
        "ticker_layout": "auto",
        "qstash_token": None,
        "qstash_url": "https://qstash.upstash.io",
        "qstash_current_signing_key": None,
        "qstash_next_signing_key": None,
        "trigger_dev_api_key": None,
        "trigger_dev_api_url": "https://api.trigger.dev",
        "trigger_dev_enabled": True,
        "trigger_dev_task": "jobmanager-tick",
        "inngest_app_id": None,
        "vercel": False,
        "vercel_token": None,
        "vercel_api_url": "https://vercel-schedules.com",
        "vercel_team_id": None,
        "vercel_project_id": None,
        "webhook_allow": None,
        "encryption_key": None,
        "mcp_key": None,
    }


def test_every_field_is_read_from_its_variable():
    mapping = {
        "JOBMANAGER_DISABLED": "yes",
        "JOBMANAGER_BACKEND": "local",
        "JOBMANAGER_ENVIRONMENT": "Production",
        "JOBMANAGER_DATABASE_URL": "memory://",
        "JOBMANAGER_NAMESPACE": "shop",
        "JOBMANAGER_APP": "shop.jobs:jobs",
        "JOBMANAGER_WORKERS": "4",
        "JOBMANAGER_COROUTINES": "50",
        "JOBMANAGER_LEASE_SECONDS": "1.5",
        "JOBMANAGER_GRACE_SECONDS": "5",
        "JOBMANAGER_SWEEP_SECONDS": "6",
        "JOBMANAGER_DRAIN_SECONDS": "0",
        "JOBMANAGER_WATCHDOG": "exit",
        "JOBMANAGER_DURABILITY": "relaxed",
        "JOBMANAGER_CAPTURE_LOGS": "off",
        "JOBMANAGER_RETENTION_DAYS": "7",
        "JOBMANAGER_AUDIT_RETENTION_DAYS": "2w",
        "JOBMANAGER_DASHBOARD_USERS": USERS,
        "JOBMANAGER_RECENT_AUTH_MINUTES": "5",
        "JOBMANAGER_TRUSTED_ORIGINS": "https://ops.example.org, http://localhost:3000",
        "JOBMANAGER_RETENTION_DAYS_SUCCEEDED": "5",
        "JOBMANAGER_RETENTION_DAYS_FAILED": "12w",
        "JOBMANAGER_MAX_RUNS": "1000000",
        "JOBMANAGER_RETENTION_MAX_BYTES": "5000000000",
        "JOBMANAGER_CELERY_BROKER_URL": "redis://localhost:6379/0",
        "JOBMANAGER_CELERY_GROUP_MAX": "20",
        "JOBMANAGER_PUBLIC_URL": "https://example.org/app/",
        "JOBMANAGER_SECRET": SECRET,
        "JOBMANAGER_AUTH": "bearer",
        "JOBMANAGER_RUN_PATH": "/api/jobs/run",
        "JOBMANAGER_WAIT": "true",
        "JOBMANAGER_WAIT_SECONDS": "8",
        "JOBMANAGER_PG_CRON_URL": "postgresql://h/x",
        "JOBMANAGER_PG_CRON_TRANSPORT": "notify",
        "JOBMANAGER_PG_CRON_LAYOUT": "entries",
        "JOBMANAGER_ALERTS_EMAIL": "ops@example.org, ann@example.org",
        "JOBMANAGER_ALERTS_URLS": "slack://a/b/c json://example.org",
        "JOBMANAGER_ALERTS_ON": "ends",
        "JOBMANAGER_ALERTS_FROM": "jobs@example.org",
        "JOBMANAGER_ALERTS_QUIET": "5m",
        "JOBMANAGER_ALERTS_BACKLOG": "1000",
        "JOBMANAGER_ALERTS_DEAD_LETTERS": "10",
        "JOBMANAGER_HEARTBEAT_URL": "https://hc-ping.com/a-uuid",
        "JOBMANAGER_SMTP_URL": "smtps://user:p@ss@mail.example.org:465",
        "JOBMANAGER_LOCALE": "de-AT",
        "JOBMANAGER_DASHBOARD_URL": "https://example.org/dashboard",
        "JOBMANAGER_TICKER_LAYOUT": "entries",
        "JOBMANAGER_QSTASH_TOKEN": "token-of-qstash",
        "JOBMANAGER_QSTASH_URL": "https://qstash-eu-central-1.upstash.io/",
        "JOBMANAGER_QSTASH_CURRENT_SIGNING_KEY": "sig_current",
        "JOBMANAGER_QSTASH_NEXT_SIGNING_KEY": "sig_next1",
        "JOBMANAGER_TRIGGER_DEV_API_KEY": "tr_prod_1",
        "JOBMANAGER_TRIGGER_DEV_API_URL": "https://trigger.example.org",
        "JOBMANAGER_TRIGGER_DEV_ENABLED": "false",
        "JOBMANAGER_TRIGGER_DEV_TASK": "tick",
        "JOBMANAGER_INNGEST_APP_ID": "shop",
        "JOBMANAGER_VERCEL": "true",
        "JOBMANAGER_VERCEL_TOKEN": "token-of-vercel",
        "JOBMANAGER_VERCEL_API_URL": "https://vercel.example.org",
        "JOBMANAGER_VERCEL_TEAM_ID": "team_1",
        "JOBMANAGER_VERCEL_PROJECT_ID": "prj_1",
        "JOBMANAGER_WEBHOOK_ALLOW": "crm.internal:8443",
        "JOBMANAGER_ENCRYPTION_KEY": KEY,
        "JOBMANAGER_MCP_KEY": "jm_key-of-an-agent",
    }
    assert {name.removeprefix("JOBMANAGER_").lower() for name in mapping} == set(KINDS)
    assert Settings.from_env(mapping) == Settings(
        disabled=True,
        backend="local",
        environment="production",
        database_url="memory://",
        namespace="shop",
        app="shop.jobs:jobs",
        workers=4,
        coroutines=50,
        lease_seconds=1.5,
        grace_seconds=5,
        sweep_seconds=6,
        drain_seconds=0,
        watchdog="exit",
        durability="relaxed",
        capture_logs=False,
        retention_days=7,
        audit_retention_days=14,
        dashboard_users=USERS,
        recent_auth_minutes=5,
        trusted_origins="https://ops.example.org, http://localhost:3000",
        retention_days_succeeded=5,
        retention_days_failed=84,
        max_runs=1_000_000,
        retention_max_bytes=5_000_000_000,
        celery_broker_url="redis://localhost:6379/0",
        celery_group_max=20,
        public_url="https://example.org/app",
        secret=SECRET,
        auth="bearer",
        run_path="/api/jobs/run",
        wait=True,
        wait_seconds=8,
        pg_cron_url="postgresql://h/x",
        pg_cron_transport="notify",
        pg_cron_layout="entries",
        ticker_layout="entries",
        qstash_token="token-of-qstash",
        qstash_url="https://qstash-eu-central-1.upstash.io",
        qstash_current_signing_key="sig_current",
        qstash_next_signing_key="sig_next1",
        trigger_dev_api_key="tr_prod_1",
        trigger_dev_api_url="https://trigger.example.org",
        trigger_dev_enabled=False,
        trigger_dev_task="tick",
        inngest_app_id="shop",
        vercel=True,
        vercel_token="token-of-vercel",
        vercel_api_url="https://vercel.example.org",
        vercel_team_id="team_1",
        vercel_project_id="prj_1",
        alerts_email=["ops@example.org", "ann@example.org"],
        alerts_urls="slack://a/b/c json://example.org",
        alerts_on="ends",
        alerts_from="jobs@example.org",
        alerts_quiet=300,
        alerts_backlog=1000,
        alerts_dead_letters=10,
        heartbeat_url="https://hc-ping.com/a-uuid",
        smtp_url="smtps://user:p%40ss@mail.example.org:465",
        locale="de-AT",
        dashboard_url="https://example.org/dashboard",
        webhook_allow="crm.internal:8443",
        encryption_key=KEY,
        mcp_key="jm_key-of-an-agent",
    )


def test_the_constructor_reads_no_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBMANAGER_WORKERS", "3")
    monkeypatch.setenv("WORKERS", "4")
    (tmp_path / ".env").write_text("JOBMANAGER_WORKERS=5\nWORKERS=6\n")
    assert Settings().workers == 10
    assert Settings.from_env({}).workers == 10
    assert Settings.from_env().workers == 3


def test_reading_the_environment_changes_neither_it_nor_the_mapping():
    mapping = {"JOBMANAGER_WORKERS": " 3 ", "PATH": "/bin"}
    before = dict(os.environ)
    assert Settings.from_env(mapping).workers == 3
    assert mapping == {"JOBMANAGER_WORKERS": " 3 ", "PATH": "/bin"}
    assert dict(os.environ) == before


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_value_is_an_unset_one(empty):
    assert Settings.from_env({"JOBMANAGER_BACKEND": empty, "JOBMANAGER_WORKERS": empty}) == Settings()


def test_an_empty_secret_is_refused_rather_than_ignored():
    with pytest.raises(SettingsError, match="JOBMANAGER_SECRET cannot be used"):
        Settings.from_env({"JOBMANAGER_SECRET": ""})


def test_settings_are_frozen_and_hashable():
    settings = Settings(secret=SECRET)
    with pytest.raises(FrozenInstanceError):
        settings.workers = 3
    assert hash(settings) == hash(Settings(**vars(settings)))
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("workers", "0", "JOBMANAGER_WORKERS='0' cannot be used: give a number greater than 0."),
        ("workers", "many", "JOBMANAGER_WORKERS='many' cannot be used: give a whole number."),
        ("workers", 1.5, "JOBMANAGER_WORKERS=1.5 cannot be used: give a whole number."),
        ("workers", 10**6, "JOBMANAGER_WORKERS=1000000 cannot be used: give a number not above 10000."),
        (
            "lease_seconds",
            "-1",
            "JOBMANAGER_LEASE_SECONDS='-1' cannot be used: give a number greater than 0.",
        ),
        ("grace_seconds", 0, "JOBMANAGER_GRACE_SECONDS=0 cannot be used: give a number greater than 0."),
        ("sweep_seconds", "nan", "JOBMANAGER_SWEEP_SECONDS='nan' cannot be used: give a number of seconds."),
        ("drain_seconds", "-1", "JOBMANAGER_DRAIN_SECONDS='-1' cannot be used: give a number not below 0."),
        (
            "drain_seconds",
            "1e99",
            "JOBMANAGER_DRAIN_SECONDS='1e99' cannot be used: give a number not above 31622400.",
        ),
        (
            "retention_days",
            "0",
            "JOBMANAGER_RETENTION_DAYS='0' cannot be used: give a number greater than 0.",
        ),
        ("durability", "end", "JOBMANAGER_DURABILITY='end' cannot be used: give 'strict' or 'relaxed'."),
        ("disabled", "perhaps", "JOBMANAGER_DISABLED='perhaps' cannot be used: give true or false."),
        ("capture_logs", "2", "JOBMANAGER_CAPTURE_LOGS='2' cannot be used: give true or false."),
        ("backend", 3, "JOBMANAGER_BACKEND=3 cannot be used: give text."),
        (
            "namespace",
            "My shop",
            "JOBMANAGER_NAMESPACE='My shop' cannot be used: give 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit.",
        ),
        (
            "environment",
            "prod",
            "JOBMANAGER_ENVIRONMENT='prod' cannot be used: give 'production' if that is meant, else a name that looks less like it.",
        ),
        (
            "secret",
            "hunter2",
            (
                "JOBMANAGER_SECRET cannot be used: give at least 32 random bytes, such as `openssl rand -base64 32` prints; "
                "two of them, with a blank between, while one is replaced."
            ),
        ),
        (
            "secret",
            "x" * 64,
            (
                "JOBMANAGER_SECRET cannot be used: give at least 32 random bytes, such as `openssl rand -base64 32` prints; "
                "two of them, with a blank between, while one is replaced."
            ),
        ),
        (
            "celery_broker_url",
            "localhost",
            "JOBMANAGER_CELERY_BROKER_URL cannot be used: give a broker's URL, such as redis://host:6379/0.",
        ),
        (
            "pg_cron_url",
            "mysql://root:hunter2@h/x",
            "JOBMANAGER_PG_CRON_URL=mysql://... cannot be used: give postgresql://user@host/name.",
        ),
    ],
)
def test_an_impossible_value_is_one_line_naming_variable_value_and_what_is_allowed(field, value, sentence):
    with pytest.raises(SettingsError) as caught:
        Settings(**{field: value})
    assert str(caught.value) == sentence
    assert caught.value.name == f"JOBMANAGER_{field.upper()}"
    assert isinstance(caught.value, (ConfigurationError, ValueError))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("environment", ["staging", "test", "development", "product-tests", "preview"])
def test_any_environment_that_does_not_resemble_production_is_taken(environment):
    assert not Settings(environment=environment).is_production


# Names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("JOBMANAGER_BAKEND", "JOBMANAGER_BACKEND"),
        ("JOBMANAGER_DISABLE", "JOBMANAGER_DISABLED"),
        ("JOBMANAGER_WORKER", "JOBMANAGER_WORKERS"),
        ("JOBMANAGER_ENVIROMENT", "JOBMANAGER_ENVIRONMENT"),
        ("JOBMANAGER_DATABSE_URL", "JOBMANAGER_DATABASE_URL"),
        ("JOBMANAGER_DATABASE", "JOBMANAGER_DATABASE_URL"),
        ("JOBMANAGER_BROKER_URL", "JOBMANAGER_CELERY_BROKER_URL"),
        ("JOBMANAGER_SECRET_KEY", "JOBMANAGER_SECRET"),
        ("JOBMANAGER_RETENTION", "JOBMANAGER_RETENTION_DAYS"),
        ("JOBMANAGER_Backend", "JOBMANAGER_BACKEND"),
    ],
)
def test_a_mistyped_name_is_an_error_with_the_suggestion(name, meant):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: "x"})
    assert str(caught.value) == f"{name} is not a setting. Did you mean {meant}?"
    assert caught.value.name == name


def test_a_mistyped_name_is_an_error_even_beside_the_right_one():
    with pytest.raises(SettingsError, match="JOBMANAGER_BAKEND"):
        Settings.from_env({"JOBMANAGER_BACKEND": "local", "JOBMANAGER_BAKEND": ""})


def test_a_mistyped_argument_is_an_error_with_the_suggestion():
    with pytest.raises(SettingsError, match=r"^bakend is not a setting\. Did you mean backend\?$"):
        Settings(bakend="local")
    with pytest.raises(SettingsError, match=r"^colour is not a setting\.$"):
        Settings(colour="red")


def test_a_name_that_resembles_nothing_is_reported_and_does_no_harm():
    mapping = {"JOBMANAGER_ZEBRA": "1", "JOBMANAGER_COLOUR": "red", "JOBMANAGER_WORKERS": "2", "OTHER": "x"}
    assert Settings.from_env(mapping).workers == 2
    assert Settings.unknown_names(mapping) == ("JOBMANAGER_COLOUR", "JOBMANAGER_ZEBRA")


@pytest.mark.parametrize(
    "name",
    [
        "JOBMANAGER_TEST_PG_DSN",
        "JOBMANAGER_REQUIRE_SERVERS",
        "JOBMANAGER_SERVICE_HOST",
        "JOBMANAGER_SERVICE_PORT_HTTP",
        "JOBMANAGER_PORT",
        "JOBMANAGER_PORT_80_TCP_ADDR",
        "JOBMANAGER_WEB_PORT_8000_TCP",
        "jobmanager_backend",
        "JOBMANAGERS_BACKEND",
    ],
)
def test_names_that_others_set_are_ignored(name):
    mapping = {name: "tcp://10.0.0.1:80"}
    assert Settings.from_env(mapping) == Settings()
    assert Settings.unknown_names(mapping) == ()


# URLs


@pytest.mark.parametrize(
    "url", ["sqlite:///jobmanager.db", "sqlite:///./jobmanager.db", "sqlite:///x/../jobmanager.db"]
)
def test_a_relative_sqlite_file_becomes_absolute_at_construction(url, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = Settings(database_url=url)
    monkeypatch.chdir("/")
    assert settings.database_url == f"sqlite:///{tmp_path}/jobmanager.db"
    assert settings.database_path == tmp_path / "jobmanager.db"


@pytest.mark.parametrize("name", ["ä b.db", "50%41.db", "who?.db", "a#b.db"])
def test_any_file_name_survives_the_url(name, monkeypatch, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    settings = Settings()
    assert settings.database_path == folder / "jobmanager.db"
    assert Settings(database_url=settings.database_url) == settings


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("postgres://u@h/x", "postgresql://u@h/x"),
        ("postgresql://u:p@h:5432/x?sslmode=require", "postgresql://u:p@h:5432/x?sslmode=require"),
        ("postgresql+psycopg://h/x", "postgresql+psycopg://h/x"),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=/run/postgresql"),
        ("postgresql://h1:1,h2:2/x", "postgresql://h1:1,h2:2/x"),
        ("memory://", "memory://"),
        (" memory:// ", "memory://"),
    ],
)
def test_a_database_url_is_normalised(url, normal):
    settings = Settings(database_url=url)
    assert settings.database_url == normal
    assert settings.database_path is None


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:hunter2@h/x",
        "postgresql+asyncpg://h/x",
        "sqlite://",
        "sqlite:///",
        "sqlite://file.db",
        "sqlite:///:memory:",
        "sqlite:///x.db?mode=ro",
        "memory://x",
        "postgresql://",
        "hunter2",
        "u:hunter2@h/x",
    ],
)
def test_an_unknown_database_is_refused_with_the_list_and_without_the_password(url):
    with pytest.raises(SettingsError) as caught:
        Settings(database_url=url)
    assert str(caught.value).endswith("give sqlite:///file.db, postgresql://user@host/name or memory://.")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "ftp://example.org",
        "https://",
        "https://u:hunter2@h",
        "https://h?token=x",
        "https://h:port",
        "https://[::1",
    ],
)
def test_a_public_url_that_no_database_could_call_is_refused(url):
    with pytest.raises(SettingsError, match="JOBMANAGER_PUBLIC_URL") as caught:
        Settings(public_url=url)
    assert "hunter2" not in str(caught.value)


def test_neither_secret_nor_password_shows():
    settings = Settings(
        secret=SECRET,
        database_url="postgres://u:p%40ss@h/x?sslpassword=opensesame",
        celery_broker_url="redis://:br0ker@h:6379/0",
        pg_cron_url="postgres://u:a/b@c@h/x",
    )
    for text in (repr(settings), str(settings), repr(settings.shown()), f"{settings}", f"{[settings]}"):
        assert not re.search(r"k3JhWq|p%40ss|p@ss|opensesame|br0ker|a/b", text)
        assert "postgresql://u:***@h/x?sslpassword=***" in text
    assert settings.secret_values() == {SECRET, "p%40ss", "p@ss", "opensesame", "br0ker", "a/b@c"}
    assert Settings().secret_values() == frozenset()


def test_durations_are_timedeltas():
    settings = Settings(lease_seconds=1.5)
    assert settings.lease == timedelta(seconds=1.5)
    assert settings.grace == settings.sweep * 2 == timedelta(minutes=1)
    assert settings.drain == timedelta(seconds=25)


@pytest.mark.parametrize(
    "secret",
    [
        "your-secret-key-here-test-2014-test",
        "CHANGE_ME_before_you_deploy_this_0123456789",
        f"{SECRET} short",
        f"{SECRET} {SECRET} {SECRET}",
    ],
)
def test_a_placeholder_or_a_short_secret_is_refused_at_once(secret):
    with pytest.raises(SettingsError, match="32 random bytes") as refused:
        Settings(secret=secret)
    assert secret not in str(refused.value)


def test_two_secrets_are_valid_while_one_is_replaced():
    other = SECRET[::-1]
    settings = Settings(secret=f" {SECRET}\n{other} ")

    assert settings.secrets == (SECRET, other)
    assert {SECRET, other} <= settings.secret_values()
    assert settings.shown()["secret"] == "***"


@pytest.mark.parametrize("path", ["jobs/run", "/jobs/run/", "/", "/jobs/../run", "/jobs run", "https://x/y"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(SettingsError, match="JOBMANAGER_RUN_PATH"):
        Settings(run_path=path)


def test_the_database_calls_the_path_below_the_public_url():
    assert (
        Settings(public_url="https://example.org/app/", run_path="/cron").run_url
        == "https://example.org/app/cron"
    )
    assert Settings().run_url is None


@pytest.mark.parametrize(
    ("url", "encoded", "password"),
    [
        ("postgresql://u:p@ss@h/x", "postgresql://u:p%40ss@h/x", "p@ss"),
        ("postgresql://u:a/b@c@h/x?sslmode=require", "postgresql://u:a%2Fb%40c@h/x?sslmode=require", "a/b@c"),
        ("postgresql://u:who?#me@h/x", "postgresql://u:who%3F%23me@h/x", "who?#me"),
        ("postgresql://u:100%@h/x", "postgresql://u:100%25@h/x", "100%"),
        ("postgresql://me@server:p:w@h/x", "postgresql://me%40server:p%3Aw@h/x", "p:w"),
        ("postgresql://u:p%40ss@h/x", "postgresql://u:p%40ss@h/x", "p@ss"),
        ("postgresql://u:p@[::1]:5432/x", "postgresql://u:p@[::1]:5432/x", "p"),
    ],
)
def test_a_password_may_be_written_as_it_is(url, encoded, password):
    settings = Settings(database_url=url)
    assert percent_encoded(settings.database_url) == percent_encoded(encoded) == encoded
    assert password in settings.secret_values()
    assert f":{password}@" not in repr(settings)
    assert ":***@" in repr(settings)


@pytest.mark.parametrize(
    "url",
    ["postgresql://h/x?user=a@b", "postgresql://h1:1,h2:2/x?user=a@b", "redis://h:6379/0", "postgresql:///x"],
)
def test_a_url_without_password_stays_as_it_is(url):
    assert percent_encoded(url) == url
    assert shown_url(url) == url


@pytest.mark.parametrize("url", ["u:hunter@2/w@h/x", "u:12/hunter@h/x", "u:hunter2", "h:99:9/x", "[hunter/x"])
def test_a_url_whose_password_has_no_certain_end_is_refused_without_it(url):
    with pytest.raises(SettingsError, match="JOBMANAGER_DATABASE_URL") as refused:
        Settings(database_url=f"postgresql://{url}")
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("name", ["database_url", "pg_cron_url", "celery_broker_url"])
def test_the_sentence_says_how_a_password_is_written(name):
    with pytest.raises(SettingsError, match=r"percent-encoded: @ as %40") as refused:
        Settings(**{name: "postgresql://u:hunter@2/w@h/x"})
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sentinel://:hunter2@h:26379", "Sentinel"),
        ("redis://:hunter2@a/0;amqp://b", "of one kind"),
        ("redis://:hunter2@a/0;b", "a broker's URL"),
    ],
)
def test_a_broker_that_cannot_be_used_is_refused_with_what_to_write(url, says):
    with pytest.raises(SettingsError, match=f"JOBMANAGER_CELERY_BROKER_URL.*{says}") as refused:
        Settings(celery_broker_url=url)
    assert "hunter2" not in str(refused.value)


def test_no_password_of_several_brokers_shows():
    settings = Settings(celery_broker_url="redis://:hunter2@a/0;redis://:br0ker@b/0")
    assert settings.shown()["celery_broker_url"] == "redis://:***@a/0;redis://:***@b/0"
    assert settings.secret_values() == {"hunter2", "br0ker"}


@pytest.mark.parametrize("secret", [f'"{SECRET}"', f"'{SECRET}'", f'{SECRET[::-1]} "{SECRET}"', f'"{SECRET}'])
def test_a_secret_with_quotation_marks_is_refused(secret):
    with pytest.raises(SettingsError, match=r"JOBMANAGER_SECRET .* without quotation marks") as refused:
        Settings(secret=secret)
    assert SECRET not in str(refused.value)


def test_quotation_marks_around_a_value_are_refused():
    with pytest.raises(SettingsError, match=r"JOBMANAGER_BACKEND=.* without quotation marks"):
        Settings.from_env({"JOBMANAGER_BACKEND": "'local'"})


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("lease_seconds", "90s", 90.0),
        ("grace_seconds", "1m30s", 90.0),
        ("sweep_seconds", " 5m ", 300.0),
        ("drain_seconds", "1h", 3600.0),
        ("drain_seconds", "0s", 0.0),
        ("lease_seconds", "1e1", 10.0),
        ("retention_days", "12w", 84),
        ("retention_days", "7", 7),
    ],
)
def test_a_duration_may_be_a_text(name, text, read):
    assert getattr(Settings.from_env({f"JOBMANAGER_{name.upper()}": text}), name) == read


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_setting_refuses_what_it_cannot_be_in_a_sentence(name):
    wrong = [
        b"x",
        1j,
        [],
        {},
        object(),
        Hostile(),
        float("nan"),
        2**70,
        -1,
        "a\0b",
        "a\nb",
        "half \ud800",
        timedelta(1),
    ]
    wrong += [True] if KINDS[name] is not flag else []
    for value in wrong:
        with pytest.raises(SettingsError) as refused:
            Settings(**{name: value})
        assert refused.value.name == f"JOBMANAGER_{name.upper()}"
        assert str(refused.value).startswith(f"JOBMANAGER_{name.upper()}")
        assert len(str(refused.value)) < 400


def test_users_and_origins_are_checked_and_hashes_are_hidden():
    settings = Settings(dashboard_users=USERS, trusted_origins="https://Ops.example.org")
    assert "h" * 43 not in repr(settings)
    assert "h" * 43 in settings.secret_values()
    assert settings.origins == ("https://ops.example.org",)
    assert (settings.audit_retention.days, settings.recent_auth.seconds) == (365, 900)
    for wrong in (
        {"dashboard_users": "ana:admin:secret"},
        {"trusted_origins": "https://ops.example.org/path"},
    ):
        with pytest.raises(SettingsError) as refused:
            Settings(**wrong)
        assert "ana:admin" not in str(refused.value)


@pytest.mark.parametrize("keys", [KEY, f"{KEY},{KEY[::-1].strip('=')}=", f" {KEY} , {KEY} "])
def test_encryption_keys_are_read_and_never_shown(keys):
    settings = Settings(encryption_key=keys)

    assert settings.encryption_keys[0] == KEY
    assert KEY not in repr(settings)
    assert settings.shown()["encryption_key"] == "***"
    assert KEY in settings.secret_values()


@pytest.mark.parametrize(
    "key", ["short", KEY[:-2], f"{KEY},", f"{KEY} {KEY}", f'"{KEY}"', KEY.replace("U", "!"), 7]
)
def test_an_encryption_key_that_is_none_is_refused_without_being_shown(key):
    with pytest.raises(SettingsError, match=r"JOBMANAGER_ENCRYPTION_KEY cannot be used: give ") as refused:
        Settings(encryption_key=key)
    assert str(key)[:12] not in str(refused.value) or key in ("short", 7)


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("crm.internal", [("crm.internal", None, None)]),
        ("CRM.internal:8443", [("crm.internal", None, 8443)]),
        ("10.1.2.3", [(None, "10.1.2.3/32", None)]),
        ("10.1.0.0/16:8443, [fd00::/8]:443", [(None, "10.1.0.0/16", 8443), (None, "fd00::/8", 443)]),
        ("fd00::1", [(None, "fd00::1/128", None)]),
        ("[fd00::1]/64:80", None), ("10.1.0.0/33", None), ("10.1.2.3/16", None), ("crm/8", None), ("a:0", None), ("a:65536", None), ("a,,b", None), ("a b", None),
        ("http://a", None), ("1.2.3", None), ("*", None), ("a:b", None), ("[crm]", None),
    ],
)  # fmt: skip
def test_allowed_targets_are_hosts_and_networks(text, targets):
    if targets is None:
        with pytest.raises(SettingsError, match="JOBMANAGER_WEBHOOK_ALLOW"):
            Settings(webhook_allow=text)
        return
    read = Settings(webhook_allow=text).allowed_targets
    assert [(one.host, one.network and str(one.network), one.port) for one in read] == targets


@pytest.mark.parametrize(
    ("given", "succeeded", "failed"),
    [
        ({}, 30, 90),
        ({"retention_days": 7}, 7, 7),
        ({"retention_days_failed": 400}, 30, 400),
        ({"retention_days": 7, "retention_days_succeeded": 2}, 2, 7),
    ],
)
def test_the_retention_of_all_runs_holds_where_none_is_set_for_how_they_ended(given, succeeded, failed):
    settings = Settings(**given)

    assert settings.retention_succeeded == timedelta(days=succeeded)
    assert settings.retention_failed == timedelta(days=failed)
