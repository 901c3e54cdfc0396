"""Servers for tests: a throwaway PostgreSQL on loopback, one per session, or the one of JOBMANAGER_TEST_PG_URL, one with pg_cron, and a pooler."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

import pytest

if TYPE_CHECKING:
    from tests.pg_net.stand_in import StandIn

GIVEN = "JOBMANAGER_TEST_PG_URL"

# fsync off: what a power cut would lose is not what tests on this server are about.
POSTGRES_CONF = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
port = {port}
max_connections = 100
shared_buffers = 64MB
fsync = {fsync}
full_page_writes = {fsync}
max_wal_size = 128MB
log_min_messages = warning
deadlock_timeout = 200ms
timezone = 'Asia/Kolkata'
"""


# Few connections, so that transactions of one client meet many sessions.
POOLER_CONF = """
[databases]
* = host={host} port={server_port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
server_idle_timeout = 5
logfile = {folder}/pooler.log
pidfile =
"""


def as_postgres() -> list[str]:
    """What stands before a command that refuses root; also, a server goes when the tests are killed."""
    if os.geteuid() == 0:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT"]
    return ["setpriv", "--pdeathsig=INT"] if shutil.which("setpriv") else []


@cache
def _cluster(programs: Path) -> Path:
    """Return the data folder of a new cluster, made once per process: copying it takes a tenth of initdb's time."""
    folder = Path(tempfile.mkdtemp(prefix="jobmanager-initdb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    options = ("--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")
    command = [*as_postgres(), programs / "initdb", "-D", folder / "data", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return folder / "data"


def memory() -> str | None:
    """The folder that lives in memory, where it has room: hundreds of databases are made, and removed, in a tenth of the time."""
    folder = Path("/dev/shm")
    has_room = folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 8 << 30
    return str(folder) if has_room else None


class Postgres:
    """A server of our own in a temporary folder, in memory unless its writes are to reach a disk. initdb refuses root, so root becomes the user postgres for it."""

    def __init__(
        self, *, fsync: bool = False, conf: Mapping[str, str] | None = None, programs: Path | None = None
    ) -> None:
        self._programs = programs or _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="jobmanager-pg-", dir=None if fsync else memory()))
        self._as_user = as_postgres()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._data = self.folder / "data"
        # Not with shutil: the copy belongs to the user that the server runs as.
        subprocess.run([*self._as_user, "cp", "-R", _cluster(self._programs), self._data], check=True)
        with (self._data / "postgresql.conf").open("a") as conf_file:
            conf_file.write(
                POSTGRES_CONF.format(folder=self.folder, port=self.port, fsync="on" if fsync else "off")
            )
            conf_file.writelines(f"{name} = '{value}'\n" for name, value in (conf or {}).items())

    @property
    def url(self) -> str:
        """Of the database postgres, which tests leave alone but for making others."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> Self:
        """Start it, or start it again after `stop`, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._as_user, self._programs / "postgres", "-D", self._data],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while subprocess.run(
            [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not come up"
            time.sleep(0.05)
        return self

    def program(self, name: str) -> str:
        """The path of a client program of this server's version, such as pg_dump."""
        return str(self._programs / name)

    def stop(self, *, immediately: bool = False) -> None:
        """Stop it, ending its connections; `immediately` is as a crash. Twice is safe."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop(immediately=True)
        shutil.rmtree(self.folder, ignore_errors=True)


# Max_worker_processes bounds the jobs of background workers; the default host may mean ::1, where nobody listens.
PG_CRON_CONF = {
    "shared_preload_libraries": "pg_cron",
    "cron.database_name": "postgres",
    "cron.use_background_workers": "on",
    "cron.max_running_jobs": "32",
    "cron.host": "127.0.0.1",
    "max_worker_processes": "64",
}

# All that a test may leave behind: other databases go before the roles that own things there.
LEFT_BEHIND = """
SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', extname) FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database
    WHERE NOT datistemplate AND datname <> current_database()
UNION ALL
SELECT format('DROP SCHEMA IF EXISTS %I CASCADE', nspname) FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
UNION ALL
SELECT format('DROP OWNED BY %1$I CASCADE; DROP ROLE %1$I', rolname) FROM pg_roles
    WHERE rolname NOT LIKE 'pg\\_%' AND rolname <> current_user
"""

# Not the scheduler: it would not come back.
OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name <> 'pg_cron scheduler'
"""


class PgCron(Postgres):
    """A server of our own with pg_cron, whose entries live in its database postgres; `conf` wins over PG_CRON_CONF."""

    def __init__(self, conf: Mapping[str, str] | None = None) -> None:
        super().__init__(conf={**PG_CRON_CONF, **(conf or {})}, programs=_programs_with_pg_cron())

    def clear(self) -> None:
        """Be as new: one empty database, the extension just created, no role, no changed setting, no session."""
        import psycopg

        if self.process is None:
            self.start()
        # Said by the client, a path wins over the one that a test gave the database; and in `public` a test may have left traps.
        with psycopg.connect(self.url, autocommit=True, options="-c search_path=pg_catalog") as connection:
            connection.execute(OTHERS)
            for (statement,) in connection.execute(LEFT_BEHIND).fetchall():
                connection.execute(statement)
            connection.execute("CREATE SCHEMA public")
            connection.execute("SET search_path = public")
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
            connection.execute("CREATE EXTENSION pg_cron")
            connection.execute("ALTER DATABASE postgres RESET ALL")
            connection.execute("ALTER SYSTEM RESET ALL")
            connection.execute("SELECT pg_reload_conf()")

    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text(errors="replace")


class Pooler:
    """PgBouncer before a server, in transaction mode: each transaction may find itself on another session."""

    def __init__(self, server_url: str) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if program is None:
            pytest.skip("needs PgBouncer: apt-get install pgbouncer")
        server = urlsplit(server_url)
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="jobmanager-pooler-"))
        conf = POOLER_CONF.format(
            host=server.hostname,
            server_port=server.port or 5432,
            user=server.username,
            password=server.password or "none",
            port=self.port,
            folder=self._folder,
        )
        (self._folder / "pooler.ini").write_text(conf)
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
        self._process = subprocess.Popen(
            [*as_postgres(), program, "-q", self._folder / "pooler.ini"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 15
        while not _answers(self.port):
            assert self._process.poll() is None, (self._folder / "pooler.log").read_text()
            assert time.monotonic() < deadline, "PgBouncer did not come up"
            time.sleep(0.05)

    def url(self, database_url: str) -> str:
        """The URL of the same database, through the pooler."""
        parts = urlsplit(database_url)
        return urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}"))

    def remove(self) -> None:
        """End it and leave nothing behind."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(15)
        shutil.rmtree(self._folder, ignore_errors=True)


class Redis:
    """A server of our own, in memory, on a free port; `persistent` keeps what it holds over a restart."""

    def __init__(self, *, persistent: bool = False) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("needs redis-server: apt-get install redis-server")
        self._program = program
        self._persistent = persistent
        self.folder = Path(tempfile.mkdtemp(prefix="jobmanager-redis-"))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Redis:
        """Start it, or start it again after `stop`, and wait until it answers."""
        kept = ("--appendonly", "yes", "--appendfsync", "always") if self._persistent else ("--save", "")
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *kept)
        self.process = subprocess.Popen(
            [*_with_us(), self._program, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _await(self.process, self.port, seconds=15)
        return self

    def flush(self) -> None:
        """Lose every message."""
        import redis

        with redis.Redis(port=self.port) as client:
            client.flushall()

    def stop(self) -> None:
        """End it at once. Twice is safe."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class RabbitMQ:
    """A server of our own with a name, a port mapper and a folder that no other one has; `conf` is for the application rabbit."""

    def __init__(self, conf: Mapping[str, int] | None = None) -> None:
        program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        if not program.exists():
            pytest.skip("needs RabbitMQ: apt-get install rabbitmq-server")
        self.folder = Path(tempfile.mkdtemp(prefix="jobmanager-rabbit-"))
        self.port, distribution, mapper = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self._environment = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"jobmanager-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        terms = ", ".join(f"{{{name}, {value}}}" for name, value in (conf or {}).items())
        (self.folder / "advanced.config").write_text(f"[{{rabbit, [{terms}]}}].\n")
        self.process = subprocess.Popen(
            [*_with_us(), program],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _await(self.process, self.port, seconds=60)

    def control(self, *words: str) -> None:
        """Do what `rabbitmqctl` does with these words."""
        program = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
        subprocess.run([program, *words], env=self._environment, check=True, capture_output=True, timeout=60)

    def remove(self) -> None:
        """End it and its port mapper, and leave nothing behind."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        deadline = time.monotonic() + 10
        # It stays while it knows a living node, and hears of the end of ours a moment later.
        while subprocess.run(
            ["epmd", "-kill"], env=self._environment, check=False, capture_output=True
        ).returncode:
            assert time.monotonic() < deadline, "epmd does not end"
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)


def _with_us() -> list[str]:
    """What stands before a command that is to go when the tests are killed."""
    return ["setpriv", "--pdeathsig=KILL"] if shutil.which("setpriv") else []


def _await(process: subprocess.Popen[bytes], port: int, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _answers(port):
        assert process.poll() is None, f"the server ended with code {process.returncode}"
        assert time.monotonic() < deadline, "the server did not come up"
        time.sleep(0.05)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _installed() -> list[Path]:
    """The folders of Debian's servers, the newest last."""
    found = (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return sorted(found, key=lambda folder: int(folder.parent.name))


def _programs() -> Path:
    """The folder of the newest installed server; skips the test if there is none."""
    found = _installed()
    if found:
        return found[-1]
    on_path = shutil.which("postgres")
    if on_path is None:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql, or set JOBMANAGER_TEST_PG_URL")
    return Path(on_path).resolve().parent


def _programs_with_pg_cron() -> Path:
    """The folder of the newest installed server that has it; skips the test if there is none."""
    extensions = Path("/usr/share/postgresql")
    found = [
        folder
        for folder in _installed()
        if (extensions / folder.parent.name / "extension" / "pg_cron.control").exists()
    ]
    if not found:
        pytest.skip("needs pg_cron: apt-get install postgresql-15-cron")
    return found[-1]


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running server on which databases may be made; its own clock zone is not UTC."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")
    given = os.environ.get(GIVEN)
    if given:
        yield given
        with FreshDatabases(given) as databases:
            databases.adopt(_TEMPLATES.pop(given, None))
        return
    server = Postgres()
    try:
        yield server.start().url
    finally:
        server.remove()


_TEMPLATES: dict[str, str] = {}
"""For each server the name of a database that has our tables."""


class FreshDatabases:
    """Makes empty databases, and leaves none of them on a server that outlives the tests."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._made: list[str] = []

    def make(self, *, template: str = "template0") -> str:
        """Make another one and return its URL."""
        name = f"jm_{uuid.uuid4().hex[:16]}"
        # Copying files makes a checkpoint, which costs nothing where no write reaches a disk.
        by_files = "" if GIVEN in os.environ else " STRATEGY file_copy"
        self._do(f"CREATE DATABASE {name} TEMPLATE {template}{by_files}")
        self._made.append(name)
        return urlunsplit(urlsplit(self._server_url)._replace(path=f"/{name}"))

    def make_installed(self) -> str:
        """Make another one that has our tables, and return its URL: installing takes ten times as long as copying."""
        if self._server_url not in _TEMPLATES:
            from jobmanager.stores.sql.postgres import PostgresStore

            url = self.make()
            with closing(PostgresStore(url)) as store:
                store.install()
            _TEMPLATES[self._server_url] = self._made.pop()
        return self.make(template=_TEMPLATES[self._server_url])

    def adopt(self, name: str | None) -> None:
        """Drop this one too, if it is one."""
        self._made += [] if name is None else [name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._made:
            if GIVEN in os.environ:
                self._do(f"DROP DATABASE {name} WITH (FORCE)")
            else:
                self._drop_unused(name)

    def _drop_unused(self, name: str) -> None:
        """Free the memory of a database of our own server, which goes as a whole in the end; one in use is left to that."""
        import psycopg

        with suppress(psycopg.Error), psycopg.connect(self._server_url, autocommit=True) as connection:
            if (
                connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (name,)).fetchone()
                is None
            ):
                connection.execute(f"DROP DATABASE {name}")

    def _do(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    with FreshDatabases(postgres_server) as databases:
        yield databases.make()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A running server that several tests share: use `redis_url`, or start one of your own to break it."""
    server = Redis()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """An empty broker."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """A running server that several tests share: what a test changes there it changes back."""
    server = RabbitMQ()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> str:
    """A running broker."""
    return rabbitmq_server.url


@pytest.fixture(scope="session")
def postgres_pooler(postgres_server: str) -> Iterator[Pooler]:
    """A transaction pooler before the server."""
    pooler = Pooler(postgres_server)
    try:
        yield pooler
    finally:
        pooler.remove()


@pytest.fixture(scope="session")
def pg_cron_server() -> Iterator[PgCron]:
    """A running server with pg_cron that several tests share: use `pg_cron_url`, or start one of your own for other settings."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")
    server = PgCron()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def pg_cron_url(pg_cron_server: PgCron) -> str:
    """The URL of the database that pg_cron lives in, with the extension and nothing else."""
    pg_cron_server.clear()
    return pg_cron_server.url


@pytest.fixture(scope="session")
def still_pg_cron_server() -> Iterator[PgCron]:
    """As `pg_cron_server`, but no entry ever runs: for tests that say themselves when a minute has come."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")
    server = PgCron({"cron.max_running_jobs": "0"})
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def still_pg_cron_url(still_pg_cron_server: PgCron) -> str:
    """As `pg_cron_url`, on the server whose entries never run."""
    still_pg_cron_server.clear()
    return still_pg_cron_server.url


@pytest.fixture
def pg_cron_databases(pg_cron_server: PgCron, pg_cron_url: str) -> FreshDatabases:
    """Makes databases beside the one of `pg_cron_url`, in which pg_cron cannot be created; the next test clears them."""
    return FreshDatabases(pg_cron_server.url)


@pytest.fixture
def pg_net(pg_cron_url: str) -> Iterator[StandIn]:
    """The stand-in for pg_net in the database of `pg_cron_url`, its worker running."""
    from tests.pg_net.stand_in import StandIn

    stand_in = StandIn(pg_cron_url)
    stand_in.install()
    try:
        yield stand_in.start()
    finally:
        stand_in.close()
