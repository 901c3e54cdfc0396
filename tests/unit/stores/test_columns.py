"""The columns of a run have one list: the fields of Run, the tables and the hot path agree."""

from contextlib import closing
from dataclasses import fields, replace

import pytest
import sqlalchemy as sa

from jobmanager.run import PENDING, RUNNING, SKIPPED, Run, new_id
from jobmanager.stores.sql.columns import ACCEPTED, ENDED, OPENED, TO_PENDING, opened_row, to_pending
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.sql.rows import RUN_COLUMNS, run_values
from jobmanager.stores.sql.tables import make_tables, micros
from jobmanager.testing import FakeClock

NOW = FakeClock().now()
RUN = Run(
    id=new_id(NOW), job_id="job", status=RUNNING, opened_at=NOW, due_at=NOW, concurrency_key="job", owner="me"
)


def test_the_fields_of_a_run_are_the_columns_of_its_table() -> None:
    assert set(make_tables().runs.c.keys()) == set(RUN_COLUMNS) == {field.name for field in fields(Run)}


def test_the_hot_path_writes_columns_that_there_are() -> None:
    assert set(OPENED) < set(RUN_COLUMNS)
    assert set(ACCEPTED) < set(OPENED)
    assert set(ENDED) - {"lines"} < set(RUN_COLUMNS)


def test_the_values_of_a_run_come_in_the_order_of_its_columns() -> None:
    values = dict(zip(OPENED, opened_row(RUN, micros), strict=True))

    assert (values["status"], values["opened_at"], values["started_at"]) == ("running", micros(NOW), None)


def test_what_goes_back_to_pending_loses_the_same_in_sql_and_in_values() -> None:
    said = dict(part.split(" = ") for part in TO_PENDING.split(", "))

    assert {
        name: None if value == "NULL" else value.strip("'") for name, value in said.items()
    } == to_pending()
    back = replace(RUN, **to_pending(due_at=NOW))
    assert (back.status, back.owner) == (PENDING, None)


def test_no_row_is_skipped_for_an_overlap_without_the_run_that_was_in_its_way() -> None:
    skipped = replace(RUN, status=SKIPPED, reason="overlap", owner=None, finished_at=NOW)
    with closing(MemoryStore(clock=FakeClock(NOW))) as store:
        store.install()
        runs = store.database.tables.runs
        with store.database.writing() as connection:
            connection.execute(sa.insert(runs), run_values(replace(skipped, blocked_by="another")))
            with pytest.raises(sa.exc.IntegrityError, match="overlap_has_blocker"):
                connection.execute(sa.insert(runs), run_values(replace(skipped, id=new_id(NOW))))
