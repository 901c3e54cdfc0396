"""The prerequisites of the backend in a database: extensions and rights, made where allowed, else printed as SQL for an administrator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from jobmanager.backends.pg_cron.database import LONG, Connection, PgCronDatabase
from jobmanager.errors import ConfigurationError

LOOK = """SELECT current_user, current_database(), u.rolsuper, u.rolcanlogin,
 current_setting('server_version'), current_setting('server_version_num')::int,
 (SELECT jsonb_object_agg(extname, extversion) FROM pg_extension),
 ARRAY(SELECT name::text FROM pg_available_extensions),
 to_regprocedure('net.http_post(text,jsonb,jsonb,jsonb,integer)') IS NOT NULL,
 coalesce(has_schema_privilege(to_regnamespace('cron'), 'USAGE'), false),
 coalesce(has_schema_privilege(to_regnamespace('net'), 'USAGE'), false),
 (SELECT bool_and(has_table_privilege(t.oid, 'SELECT')) FROM pg_class t
   WHERE t.relnamespace = to_regnamespace('net') AND t.relname IN ('_http_response', 'http_request_queue')),
 coalesce(has_schema_privilege(to_regnamespace('jobmanager'), 'CREATE'), has_database_privilege(current_database(), 'CREATE')),
 (SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'jobmanager')
 FROM pg_roles u WHERE u.rolname = current_user"""

FOR_ELSEWHERE = """SELECT coalesce(bool_and(has_function_privilege(p.oid, 'EXECUTE')), true) FROM pg_proc p
 WHERE p.pronamespace = to_regnamespace('cron') AND p.proname = 'schedule_in_database'"""

NOT_LOADED = "shared_preload_libraries"
IN_DATABASE = "can only create extension in database "


class LackingRightError(ConfigurationError):
    """A role with more rights has to run `statements` in `database`; nothing was changed."""

    def __init__(self, message: str, *, database: str, statements: Sequence[str]) -> None:
        super().__init__(message)
        self.database = database
        self.statements = tuple(statements)


@dataclass(frozen=True, slots=True)
class Prerequisites:
    """The extensions of a database, and the rights of our role there."""

    role: str
    database: str
    is_superuser: bool
    may_log_in: bool
    version: str
    version_number: int
    extensions: dict[str, str]
    available: Sequence[str]
    has_http_post: bool
    may_use_cron: bool
    may_use_net: bool
    may_read_responses: bool | None
    """Of pg_net, which lets every role do so since 0.12; None where it is not."""
    may_create: bool
    owner: str | None
    """Of the schema jobmanager, if there is one."""

    @property
    def may_be_called_from(self) -> bool:
        """Whether this database can call an application over HTTP, or could once an extension is created."""
        return self.has_http_post or "pg_net" in self.available or "http" in self.extensions


def look(connection: Connection) -> Prerequisites:
    """Return what the database has."""
    row = connection.execute(LOOK).fetchone()
    assert row is not None  # noqa: S101 - our role is one
    return Prerequisites(*row)


def prepare(
    database: PgCronDatabase,
    *,
    cron: bool,
    transport: str,
    tables: bool = True,
    keep: bool = True,
) -> tuple[Prerequisites, list[str]]:
    """Make what is missing in one transaction; return what there was, and the names of the extensions that were created.

    `cron`: this database is to have pg_cron. `transport`: how it is to reach the application; only `pg_net` and `auto` ask for
    pg_net, and `auto` goes on without it where the extension http is there or pg_net is not loaded. `tables`: our tables live here.
    Without `keep` it is only tried. LackingRightError if our role may not, and then nothing is changed.
    """
    with database.transaction(limit=LONG) as connection:
        ground = look(connection)
        _refuse(ground, database, cron=cron)
        extensions = _missing_extensions(ground, cron=cron, transport=transport)
        grants = _missing_grants(connection, ground, cron=cron, transport=transport, tables=tables)
        if grants and not ground.is_superuser:
            raise _lacking(ground, database, extensions, grants)
        try:
            extensions = [
                name
                for name in extensions
                if _created(connection, database, name, optional=name == "pg_net" and transport == "auto")
            ]
        except psycopg.errors.InsufficientPrivilege:
            raise _lacking(ground, database, extensions, grants) from None
        except psycopg.Error as error:
            said = error.diag.message_primary or ""
            if IN_DATABASE not in said:
                raise
            home = said.partition(IN_DATABASE)[2]
            raise ConfigurationError(
                f"{database.shown}: on this server pg_cron lives in database {home!r}. Name that one in JOBMANAGER_PG_CRON_URL; "
                "jobs and runs stay where they are."
            ) from None
        if not keep:
            raise psycopg.Rollback
    return ground, extensions


def _refuse(ground: Prerequisites, database: PgCronDatabase, *, cron: bool) -> None:
    if cron and "pg_cron" not in ground.extensions and "pg_cron" not in ground.available:
        raise ConfigurationError(
            f"{database.shown}: this server has no pg_cron. Install its package (postgresql-{ground.version_number // 10_000}-cron "
            "on Debian), put pg_cron into shared_preload_libraries and restart; a managed service has a switch for it. "
            "If another database of yours has it, name that one in JOBMANAGER_PG_CRON_URL."
        )
    if not ground.may_log_in and cron:
        raise ConfigurationError(
            f"{database.shown}: role {ground.role!r} may not log in, and pg_cron logs in as the owner of an entry. "
            f"ALTER ROLE {_quoted(ground.role)} LOGIN."
        )

    if ground.owner is not None and not ground.may_create:
        raise ConfigurationError(
            f"{database.shown}: schema jobmanager belongs to role {ground.owner!r}. Run `jobmanager init` as that role; "
            f"`jobmanager pg-cron install --role {ground.role}` lets {ground.role!r} run the application."
        )


def _created(connection: Connection, database: PgCronDatabase, name: str, *, optional: bool) -> bool:
    """Create an extension; where its library is not loaded by the server, return False if it is optional."""
    try:
        with connection.transaction():
            connection.execute(_create(name))
    except psycopg.Error as error:
        if NOT_LOADED not in (error.diag.message_primary or ""):
            raise
        if not optional:
            raise ConfigurationError(
                f"{database.shown}: {name} is installed on this server, but not loaded. Add it to shared_preload_libraries and "
                "restart the server, or choose another JOBMANAGER_PG_CRON_TRANSPORT."
            ) from None
        return False
    return True


def _missing_extensions(ground: Prerequisites, *, cron: bool, transport: str) -> list[str]:
    missing = ["pg_cron"] if cron and "pg_cron" not in ground.extensions else []
    wanted = transport == "pg_net" or (transport == "auto" and "http" not in ground.extensions)
    if wanted and not ground.has_http_post and "pg_net" in ground.available:
        missing.append("pg_net")
    return missing


def _missing_grants(
    connection: Connection, ground: Prerequisites, *, cron: bool, transport: str, tables: bool
) -> list[str]:
    role, missing = _quoted(ground.role), []
    if cron and "pg_cron" in ground.extensions and not ground.may_use_cron:
        missing.append(f"GRANT USAGE ON SCHEMA cron TO {role};")
    if transport in ("auto", "pg_net") and ground.has_http_post and not ground.may_use_net:
        missing.append(f"GRANT USAGE ON SCHEMA net TO {role};")
    if transport in ("auto", "pg_net") and ground.has_http_post and ground.may_read_responses is False:
        missing.append(f"GRANT SELECT ON net._http_response, net.http_request_queue TO {role};")
    if tables and not ground.may_create:
        missing.append(f"GRANT CREATE ON DATABASE {_quoted(ground.database)} TO {role};")
    if cron and not tables:
        row = connection.execute(FOR_ELSEWHERE).fetchone()
        if row is not None and not row[0]:
            missing.append(f"GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO {role};")
    return missing


def _lacking(
    ground: Prerequisites, database: PgCronDatabase, extensions: Sequence[str], grants: Sequence[str]
) -> LackingRightError:
    statements = [f"{_create(name)};" for name in extensions]
    if "pg_cron" in extensions:  # made by another role, it belongs to that role
        statements.append(f"GRANT USAGE ON SCHEMA cron TO {_quoted(ground.role)};")
    missing = [*extensions, *(["rights"] if grants else [])]
    return LackingRightError(
        f"{database.shown}: role {ground.role!r} may not make what is missing ({', '.join(missing)}). Nothing was changed.",
        database=ground.database,
        statements=[*statements, *grants],
    )


def _create(extension: str) -> str:
    return f"CREATE EXTENSION IF NOT EXISTS {extension}"


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
