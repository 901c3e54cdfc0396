"""The figures for Prometheus, counted by PostgreSQL."""

import pytest
from tests.unit.observe.test_prometheus import tallies_as_by_reading


@pytest.mark.servers
def test_postgresql_tallies_as_by_reading(postgres_url):
    from jobmanager.stores.sql.postgres import PostgresStore

    store = PostgresStore(postgres_url)
    store.install()
    tallies_as_by_reading(store)
    store.close()
