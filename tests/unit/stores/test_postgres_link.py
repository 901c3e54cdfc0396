"""What a PostgreSQL URL says: what is shown of it, whether a pooler stands before the server, and what errors mean."""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg

from jobmanager import Settings
from jobmanager.clock import SystemClock
from jobmanager.errors import SchemaError, StoreError, StoreUnavailableError
from jobmanager.stores import store_for
from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.postgres_link import Link


@pytest.mark.parametrize(
    ("url", "pooled"),
    [
        ("postgresql://u@db/n", False),
        ("postgresql://u@db:5432/n", False),
        ("postgresql://u@db:6543/n", True),
        ("postgresql://u@aws-0-eu.pooler.supabase.com/n", True),
        ("postgresql://u@pgbouncer/n", True),
        ("postgresql://u@db/n?pgbouncer=true", True),
        ("postgresql://u@db/n?jobmanager_pooler=true&sslmode=require", True),
        ("postgresql://u@db:6543/n?jobmanager_pooler=false", False),
    ],
)
def test_a_pooler_is_recognised_or_told(url, pooled):
    link = Link.of(url)

    assert link.pooled is pooled
    assert not {"jobmanager_pooler", "pgbouncer"} & set(link.url.query)


def test_through_a_pooler_the_limits_travel_with_the_transaction_and_nothing_is_prepared():
    direct, pooled = Link.of("postgresql://u@db/n"), Link.of("postgresql://u@db:6543/n")

    assert direct.begin == "BEGIN"
    assert "statement_timeout=5s" in direct._connect_args()["options"]
    assert "SET LOCAL statement_timeout = '5s'" in pooled.begin
    assert "SET LOCAL search_path = pg_catalog, pg_temp" in pooled.begin
    assert "options" not in pooled._connect_args()
    assert pooled._connect_args()["prepare_threshold"] is None


def test_what_the_url_asks_for_comes_after_what_we_ask_for():
    link = Link.of("postgresql://u@db/n?connect_timeout=1&options=-c%20statement_timeout%3D9s")

    assert link._connect_args()["options"].endswith(
        "-c statement_timeout=9s -c search_path=pg_catalog,pg_temp"
    )
    assert "connect_timeout" not in link._connect_args()


def test_a_password_is_shown_nowhere():
    settings = Settings(database_url="postgres://shop:s3cret%21@127.0.0.1:1/shop?sslpassword=hush")
    store = store_for(settings, SystemClock())

    assert store.url == "postgresql://shop:***@127.0.0.1:1/shop?sslpassword=***"
    with pytest.raises(StoreUnavailableError) as caught:
        store.exists()
    for secret in ("s3cret", "hush"):
        assert secret not in str(caught.value)
        assert secret not in repr(store.database.link)


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (psycopg.errors.DeadlockDetected, StoreUnavailableError, "tried again"),
        (psycopg.errors.SerializationFailure, StoreUnavailableError, "tried again"),
        (psycopg.errors.LockNotAvailable, StoreUnavailableError, "holds the lock"),
        (psycopg.errors.QueryCanceled, StoreUnavailableError, "longer than 5s"),
        (psycopg.errors.AdminShutdown, StoreUnavailableError, "restarting"),
        (psycopg.errors.ReadOnlySqlTransaction, StoreUnavailableError, "primary"),
        (psycopg.errors.DiskFull, StoreUnavailableError, "disk is full"),
        (psycopg.errors.TooManyConnections, StoreUnavailableError, "max_connections"),
        (psycopg.errors.InsufficientPrivilege, StoreError, "jobmanager db upgrade"),
        (psycopg.errors.UndefinedTable, SchemaError, "jobmanager db check"),
        (psycopg.errors.InvalidSqlStatementName, StoreError, "?jobmanager_pooler=true"),
        (psycopg.errors.CheckViolation, StoreError, ""),
    ],
)
def test_an_error_is_told_with_what_to_do_about_it(error, kind, advice):
    with (
        pytest.raises(StoreError, match=r"postgresql://u:\*\*\*@db/n") as caught,
        Link.of("postgresql://u:s3cret@db/n").told(),
    ):
        raise error("the server's words\nDETAIL: the row, with its payload")

    assert type(caught.value) is kind
    assert advice in str(caught.value)
    assert "payload" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("connection refused", StoreUnavailableError, "is it running"),
        ('password authentication failed for user "u"', StoreError, "correct user and password"),
        ('database "n" does not exist', StoreError, "createdb"),
        ("the database system is starting up", StoreUnavailableError, "is it running"),
        ("unsupported startup parameter: options", StoreError, "?jobmanager_pooler=true"),
    ],
)
def test_a_refused_connection_is_an_outage_or_a_setting(said, kind, advice):
    with pytest.raises(StoreError) as caught, Link.of("postgresql://u:s3cret@db/n").told():
        raise psycopg.OperationalError(f"connection failed: {said}")

    assert type(caught.value) is kind
    assert advice in str(caught.value)


def test_json_that_jsonb_cannot_keep_loses_only_what_it_cannot_keep():
    said = to_json({"nul\0": "a\0b", "half": ["\ud800x", "\U0001f600"], "told": "\\u0000"})

    assert said == to_json({"nul\ufffd": "a\ufffdb", "half": ["\ufffdx", "\U0001f600"], "told": "\\u0000"})
