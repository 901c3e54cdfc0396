"""URLs as people have them, each against a server: several hosts, raw passwords, and TLS whose certificate is looked at."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.servers import free_port

from jobmanager import JobManager, Settings
from jobmanager.backends.celery.application import make_app
from jobmanager.backends.pg_cron.database import PgCronDatabase
from jobmanager.stores.sql.postgres import PostgresStore

# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture
def several(postgres_url: str) -> str:
    """The URL of a database behind two hosts, of which the first is not there."""
    parts = urlsplit(postgres_url)
    user = f"{parts.username}:some/pass?@"
    return f"postgresql://{user}127.0.0.1:{free_port()},127.0.0.1:{parts.port}{parts.path}"


@pytest.mark.servers
def test_a_run_is_on_record_behind_several_hosts_and_with_a_password_as_it_is(several: str) -> None:
    jobs = JobManager(Settings(backend="noop", database_url=f"{several}?target_session_attrs=read-write"))
    jobs.add_job("work", lambda: "done")
    with closing(jobs.store):
        assert jobs.trigger_job("work").output == "done"
    assert "some/pass" not in jobs.store.url


@pytest.mark.servers
def test_pg_cron_is_reached_behind_several_hosts(several: str) -> None:
    database = PgCronDatabase(several)
    with database.transaction() as connection:
        row = connection.execute("SELECT current_database()").fetchone()
    assert row == (several.rpartition("/")[2],)
    assert "some/pass" not in database.shown


@pytest.mark.servers
def test_an_error_behind_several_hosts_names_no_password(several: str) -> None:
    store = PostgresStore(several.rpartition("/")[0] + "/nowhere")
    with closing(store), pytest.raises(Exception, match="createdb") as refused:
        store.install()
    assert "some/pass" not in str(refused.value)
    assert "some%2Fpass" not in str(refused.value)


# ---------------------------------------------------------------- brokers behind TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody signed, with its key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "own.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(
        [*request.split(), "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True
    )
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


class TlsServer:
    """Counts the handshakes that come to an end, and says nothing."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.spoken = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as shaken:
                    if shaken.recv(8):
                        self.spoken.set()
            except OSError:
                plain.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[TlsServer]:
    with closing(TlsServer(certificate)) as server:
        yield server


def connect(url: str) -> str:
    """What comes of the first connection: the error's text."""
    app = make_app(Settings(celery_broker_url=url).celery_broker_url or "")
    limits = {"socket_timeout": 3, "socket_connect_timeout": 3} if url.startswith("rediss") else {}
    with app.connection_for_write(connect_timeout=3, transport_options=limits) as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
        except Exception as error:
            return f"{error} {error.__cause__} {error.__context__}"
    return ""


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_certificate_that_no_authority_signed_is_refused(scheme: str, tls_server: TlsServer) -> None:
    said = connect(f"{scheme}://u:p@localhost:{tls_server.port}/0")

    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert not tls_server.spoken.is_set()


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_certificate_of_another_host_is_refused(
    scheme: str, tls_server: TlsServer, certificate: Path
) -> None:
    said = connect(f"{scheme}://u:p@127.0.0.1:{tls_server.port}/0?ssl_ca_certs={certificate}.crt")

    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert not tls_server.spoken.is_set()


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
@pytest.mark.parametrize("known", [True, False])
def test_a_certificate_that_is_known_or_not_asked_for_is_spoken_to(
    scheme: str, known: bool, tls_server: TlsServer, certificate: Path
) -> None:
    how = f"ssl_ca_certs={certificate}.crt" if known else "ssl_cert_reqs=none"
    connect(f"{scheme}://u:p@localhost:{tls_server.port}/0?{how}")

    assert tls_server.spoken.wait(5)


@pytest.mark.servers
def test_the_second_of_two_brokers_is_used_where_the_first_is_away(redis_url: str) -> None:
    app = make_app(
        Settings(celery_broker_url=f"redis://127.0.0.1:{free_port()}/0;{redis_url}").celery_broker_url or ""
    )
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=3, interval_start=0)
        assert str(urlsplit(redis_url).port) in connection.as_uri()
