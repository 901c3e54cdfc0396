"""Whatever bytes an answer has, its call is labelled, and what is kept of it is text that can be read, dumped and restored (L9)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from tests.pg_net.loop import Loop
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Reply
from tests.servers import FreshDatabases, PgCron

from jobmanager.backends.pg_cron import schema

pytestmark = [pytest.mark.servers, pytest.mark.slow]

CHARACTERS = ("ä", "€", "\N{MUSICAL SYMBOL G CLEF}")
BORDERS = range(294, 303)

ANSWERS: list[bytes] = [
    *(bytes([byte]) for byte in range(1, 256)),
    *(b"<p>" + bytes([byte]) + b"</p>" for byte in range(128, 256)),
    # Cut sequences: at the end, and before another character.
    *(c.encode()[:size] for c in CHARACTERS for size in range(1, len(c.encode()))),
    *(c.encode()[:size] + b"x" for c in CHARACTERS for size in range(1, len(c.encode()))),
    # Where 300 bytes and 300 characters end.
    *(b"a" * count + c.encode() * 4 for c in CHARACTERS for count in BORDERS),
    *(b"a" * count + c.encode()[:-1] for c in CHARACTERS for count in BORDERS),
    *(c.encode() * count + b"\xe4" for c in CHARACTERS for count in (74, 99, 149, 299, 300, 301)),
    b"\xed\xa0\x80 \xed\xb0\x80",  # surrogates
    b"\xc0\x80 \xe0\x80\x80 \xf0\x80\x80\x80",  # longer than need be
    b"\xf4\x90\x80\x80 \xf8\x88\x80\x80\x80",  # beyond the last character
    b"\xff\xfe<\0h\0".replace(b"\0", b""),
    "Größe überschritten: Auftrag läuft".encode("latin-1"),
    "ошибка".encode("cp1251"),
    "エラー".encode("shift_jis"),
    b"\\ back\\slashes \\303\\244 and \xe4",
    b"\x1b[31m\xc3",
    b"\xe4" * 100_000,
]


@pytest.fixture
def pg_cron_url(still_pg_cron_url: str) -> str:
    """Where no entry runs by itself."""
    return still_pg_cron_url


@pytest.fixture
def loop(pg_cron_url: str, pg_net: StandIn) -> Iterator[Loop]:
    with Loop(pg_cron_url, pg_net) as loop:
        yield loop


def answer(loop: Loop, contents: list[bytes], status: int = 500, column: str = "content") -> None:
    """Let a call of its own be answered with each of these."""
    with loop.connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO jobmanager.calls (namespace, kind, epoch, request_id, sent_at, runs, run_ids)"
            " VALUES ('default', 'sweep', jobmanager.current_epoch(), %s, clock_timestamp(), 0, '{}')",
            [(number,) for number in range(10_000, 10_000 + len(contents))],
        )
        cursor.executemany(
            f"INSERT INTO net._http_response (id, status_code, {column}, timed_out)"
            " VALUES (%s, %s, net.unchecked(%s), false)",
            [(number, status, content) for number, content in enumerate(contents, 10_000)],
        )


def kept(loop: Loop) -> list[tuple[str | None, str]]:
    """Outcome and detail of each of these calls, in order."""
    return loop.connection.execute(
        "SELECT outcome, detail FROM jobmanager.calls WHERE request_id >= 10000 ORDER BY id"
    ).fetchall()


def as_kept(content: bytes) -> str:
    """Return what should be kept: characters as they are, else each byte that is no ASCII as its octal number."""
    try:
        return content.decode()[:300]
    except UnicodeDecodeError:
        escaped = (
            "\\\\" if byte == ord("\\") else chr(byte) if byte < 128 else f"\\{byte:03o}"
            for byte in content[:300]
        )
        return "".join(escaped)[:300]


@pytest.mark.parametrize("column", ["content", "error_msg"])
def test_every_answer_is_labelled_and_kept_as_text(loop: Loop, column: str) -> None:
    answer(loop, ANSWERS, column=column)

    loop.sweep()

    assert kept(loop) == [("server_error", as_kept(content)) for content in ANSWERS]


def test_the_client_s_encoding_does_not_matter(loop: Loop) -> None:
    """Fails if the bytes are converted for the client that happens to sweep."""
    loop.connection.execute("SET client_encoding = 'LATIN1'")
    answer(loop, ANSWERS)

    loop.sweep()

    loop.connection.execute("SET client_encoding = 'UTF8'")
    assert kept(loop) == [("server_error", as_kept(content)) for content in ANSWERS]


@pytest.mark.parametrize("content", [b"\xe4", b'{"call":99} \xc3', b"<title>Gr\xfc\xdfe</title>"])
def test_a_foreign_page_with_any_bytes_is_not_ours(loop: Loop, content: bytes) -> None:
    answer(loop, [content], status=200)

    loop.sweep()

    assert kept(loop) == [("not_ours", as_kept(content))]


def test_one_answer_that_cannot_be_worked_with_ends_no_pass(loop: Loop) -> None:
    """Whatever the reason: here the table refuses it."""
    loop.connection.execute(
        "ALTER TABLE jobmanager.calls ADD CONSTRAINT poison CHECK (detail NOT LIKE 'poison%') NOT VALID"
    )
    answer(loop, [b"before", b"poison", b"after"])
    loop.make_due()
    loop.ask("SELECT count(*) FROM jobmanager.announce(NULL, '0', clock_timestamp())")

    assert loop.sweep() == 1, "the pass went on to what is due for a call"

    [first, poisoned, last] = kept(loop)
    assert (first, last) == (("server_error", "before"), ("server_error", "after"))
    assert poisoned[0] == "server_error"
    assert poisoned[1].startswith("the answer cannot be read: new row")
    loop.succeeded()


@pytest.mark.parametrize(
    "body", ["Größe überschritten".encode("latin-1"), b"cut \xe2\x82", b"ab\0cd\xe4", b"\xe4" * 400]
)
def test_a_run_that_was_missed_for_such_an_answer_can_be_read(loop: Loop, body: bytes) -> None:
    """Over the wire, and to the end of the run."""
    loop.gate.reply = Reply(status=500, body=body)
    loop.ask("UPDATE jobmanager.jobs SET catch_up_window_seconds = 60 RETURNING 1")
    loop.make_due()
    loop.fire()
    loop.answered()
    loop.sweep()

    loop.sweep(after=130)

    [run] = loop.manager.runs("work")
    assert (str(run.status), run.reason) == ("missed", "transport")
    assert run.error is not None
    assert run.error.message == f"server_error: {as_kept(body.partition(bytes(1))[0])}"


def test_a_dump_is_restored_with_all_its_rows(
    loop: Loop, pg_cron_url: str, still_pg_cron_server: PgCron
) -> None:
    """Fails if one byte that is no character is kept: COPY refuses the whole table."""
    answer(loop, ANSWERS)
    loop.sweep()

    assert restored(pg_cron_url, still_pg_cron_server) == len(ANSWERS)


def test_what_an_earlier_release_kept_is_mended(
    loop: Loop, pg_cron_url: str, still_pg_cron_server: PgCron
) -> None:
    loop.gate.reply = Reply(status=500, body=b"later")
    loop.ask("UPDATE jobmanager.jobs SET catch_up_window_seconds = 60 RETURNING 1")
    loop.make_due()
    loop.fire()
    loop.answered()
    loop.sweep()
    loop.sweep(after=130)
    raw = "Größe".encode("latin-1")
    loop.ask(
        "UPDATE jobmanager.calls SET detail = net.unchecked(%s) WHERE outcome IS NOT NULL RETURNING 1", raw
    )
    loop.ask(
        "UPDATE jobmanager.runs SET error = jsonb_set(error, '{message}', to_jsonb('server_error: ' || net.unchecked(%s)))"
        " WHERE reason = 'transport' RETURNING 1",
        raw,
    )
    loop.connection.execute(f"COMMENT ON FUNCTION {schema.STAMP} IS '0.of last year'")

    loop.manager.sync()

    [run] = loop.manager.runs("work")
    assert run.error is not None
    assert run.error.message == f"server_error: {as_kept(raw)}"
    assert loop.ask("SELECT detail FROM jobmanager.calls WHERE outcome IS NOT NULL") == as_kept(raw)
    assert restored(pg_cron_url, still_pg_cron_server) >= 1


def restored(url: str, server: PgCron) -> int:
    """How many labelled calls a dump of the schema brings into an empty database."""
    dump = subprocess.run(
        [server.program("pg_dump"), "--schema=jobmanager", "--no-owner", url], capture_output=True, check=True
    )
    there = FreshDatabases(server.url).make()
    subprocess.run(
        [server.program("psql"), "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", there],
        input=dump.stdout,
        capture_output=True,
        check=True,
    )
    with psycopg.connect(there) as connection:
        row = connection.execute("SELECT count(*) FROM jobmanager.calls WHERE outcome IS NOT NULL").fetchone()
    assert row is not None
    return int(row[0])
