"""Traps in schema public, as any role with CREATE there could plant them, for every call and operator that our SQL makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import psycopg

TYPES = (
    "boolean", "integer", "bigint", "numeric", "double precision", "text", "bytea", "uuid", "jsonb", "date", "timestamp", "timestamptz",
    "interval", "text[]",
)  # fmt: skip
"""What most of our columns, parameters and constants are of, and what these are turned into without a word."""

OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|]{1,4}")
CALL = re.compile(r"\b([a-z_][a-z0-9_]*)\s*\(")
UNNAMED = ("~~", "!~~", "~~*", "=", "<>", "<", ">", "<=", ">=")
"""LIKE, IN, BETWEEN, CASE, DISTINCT and ORDER BY look these up without naming them."""

# It counts outside of the transaction, which the exception ends: whatever catches the exception, the call is seen.
TRAP = """
CREATE SEQUENCE public.sprung;
GRANT ALL ON SEQUENCE public.sprung TO PUBLIC;
CREATE FUNCTION public.spring(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.nextval('public.sprung');
  RAISE EXCEPTION 'the planted % was called as %', what, current_user;
END $$;
"""

# Functions as the catalogue has them, and of one type throughout; operators as the catalogue has them, and of each two types.
PLANT = r"""
SET check_function_bodies = off;
DO $do$
DECLARE
  made record;
BEGIN
  FOR made IN
    SELECT p.proname AS name, oidvectortypes(p.proargtypes) AS kinds, format_type(p.prorettype, NULL) AS returned
      FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ($calls) AND p.prokind IN ('f', 'a')
        AND p.provariadic = 0
    UNION
    SELECT p.proname, array_to_string(array_fill(kind, ARRAY[p.pronargs::int]), ', '), 'text'
      FROM (SELECT DISTINCT proname, pronargs FROM pg_proc
             WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ($calls) AND pronargs BETWEEN 1 AND 4) p,
           unnest($types) AS kind
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', made.name, made.kinds, made.returned,
        format('BEGIN PERFORM public.spring(%L); RETURN NULL; END', made.name || '(' || made.kinds || ')'));
    EXCEPTION WHEN duplicate_function OR invalid_function_definition OR undefined_object OR datatype_mismatch OR feature_not_supported THEN
    END;
  END LOOP;
  FOR made IN
    SELECT oprname AS name, format_type(oprleft, NULL) AS l, format_type(oprright, NULL) AS r, format_type(oprresult, NULL) AS returned
      FROM pg_operator WHERE oprname = ANY ($operators) AND oprleft <> 0
    UNION
    SELECT o.name, l.kind, r.kind, CASE WHEN o.yields = 'boolean'::regtype THEN 'boolean' ELSE l.kind END
      FROM (SELECT oprname AS name, min(oprresult) AS yields FROM pg_operator WHERE oprname = ANY ($operators) GROUP BY oprname) o,
        unnest($types) AS l(kind), unnest($types) AS r(kind)
     WHERE NOT EXISTS (SELECT FROM pg_operator p WHERE p.oprname = o.name AND p.oprleft = l.kind::regtype AND p.oprright = r.kind::regtype)
  LOOP
    BEGIN
      IF to_regprocedure(format('public.%I(%s, %s)', 'planted_' || made.returned, made.l, made.r)) IS NULL THEN
        EXECUTE format('CREATE FUNCTION public.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', 'planted_' || made.returned, made.l, made.r,
          made.returned, format('BEGIN PERFORM public.spring(%L); RETURN NULL; END', 'operator of ' || made.l || ' and ' || made.r));
      END IF;
      EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.%I, LEFTARG = %s, RIGHTARG = %s)', made.name,
        'planted_' || made.returned, made.l, made.r);
    EXCEPTION WHEN duplicate_function OR invalid_function_definition OR syntax_error THEN
    END;
  END LOOP;
END $do$
"""


def plant(url: str) -> int:
    """Plant them in this database; return their number."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=pg_catalog") as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS public")
        connection.execute(TRAP)
        calls, operators = _used()
        text = (
            PLANT.replace("$calls", _array(calls))
            .replace("$operators", _array(operators))
            .replace("$types", _array(TYPES))
        )
        connection.execute(text.encode())
        (count,) = connection.execute(
            "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace)"
            " + (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'public'::regnamespace)"
        ).fetchone() or (0,)
    return int(count)


def prefer_public(url: str) -> None:
    """Let `public` come first in new sessions of this database, the worst case: else what is planted must fit better to be taken."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=pg_catalog") as connection:
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        connection.execute(f"ALTER DATABASE {row[0]} SET search_path = public, pg_catalog".encode())


def sprung(url: str) -> bool:
    """Return whether anything planted was ever called."""
    with psycopg.connect(url, options="-c search_path=pg_catalog") as connection:
        row = connection.execute("SELECT is_called FROM public.sprung").fetchone()
    return row is None or bool(row[0])


@cache
def _used() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names followed by a bracket, and the operators, of all texts that may hold SQL; too many do no harm."""
    calls: set[str] = set()
    operators: set[str] = set(UNNAMED)
    for text in _texts():
        calls.update(CALL.findall(text))
        operators.update(OPERATOR.findall(text))
    return tuple(sorted(calls)), tuple(sorted(operators))


def _texts() -> Iterator[str]:
    package = files("jobmanager")
    for folder, ending in (
        ("stores/sql", ".py"),
        ("stores/sql/migrations", ".sql"),
        ("backends/pg_cron", ".py"),
        ("backends/pg_cron/diagnostics", ".py"),
        ("backends/pg_cron/plans", ".py"),
        ("backends/pg_cron/sql", ".sql"),
    ):
        for item in package.joinpath(folder).iterdir():
            if item.name.endswith(ending):
                yield item.read_text(encoding="utf-8")


def _array(names: tuple[str, ...]) -> str:
    return "ARRAY[" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + "]::text[]"
