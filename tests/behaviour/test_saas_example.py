"""The example application's own work, without jobmanager: a real SQLite file, a real mail server on loopback."""

import random
import smtplib
import socket
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the examples are no part of the installed package

from examples.saas import analytics, database, housekeeping, mail, seed  # noqa: E402
from examples.saas.smtp_sink import SmtpSink  # noqa: E402

NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
FEW = seed.Amounts(users=20, sessions=100, invitations=40, logs=400, mails=30)
NOBODY = seed.Amounts(users=0, sessions=0, invitations=0, logs=0, mails=0)


class Watch:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "saas.db"


@pytest.fixture
def db(path):
    with database.connect(path) as connection:
        database.create(connection)
        yield connection


@pytest.fixture
def sink(monkeypatch):
    with SmtpSink() as server:
        monkeypatch.setenv("SAAS_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SAAS_SMTP_PORT", str(server.port))
        yield server


def write(
    db: sqlite3.Connection, recipient: str = "ana@example.com", subject: str = "Hello", due: datetime = NOW
) -> int:
    row = (recipient, subject, "Dear reader,\n.\n..two dots\n", database.stamp(due), database.stamp(due))
    statement = "INSERT INTO pending_emails (recipient, subject, body, next_attempt_at, created_at) VALUES (?, ?, ?, ?, ?)"
    return db.execute(statement, row).lastrowid


def state(db: sqlite3.Connection, mail_id: int) -> dict:
    return dict(db.execute("SELECT * FROM pending_emails WHERE id = ?", (mail_id,)).fetchone())


def rows(db: sqlite3.Connection, what: str) -> int:
    return db.execute(f"SELECT count(*) FROM {what}").fetchone()[0]


def send_due(db: sqlite3.Connection, watch: Watch) -> list[str]:
    with mail.Outbox(db, "worker", now=watch) as outbox, mail.server() as smtp:
        return [outbox.send(letter, smtp) for letter in outbox.claim(100)]


class TestSeed:
    def test_same_seed_and_moment_give_the_same_rows(self, tmp_path):
        dumps = []
        for name in ("one.db", "two.db"):
            with database.connect(tmp_path / name) as db:
                database.create(db)
                seed.populate(db, FEW, random.Random(7), NOW)
                dumps.append(list(db.iterdump()))

        assert dumps[0] == dumps[1]

    def test_default_amounts_are_a_small_company(self, db):
        seed.populate(db, seed.Amounts(), random.Random(7), NOW)

        assert [
            rows(db, table) for table in ("users", "sessions", "invitations", "logs", "pending_emails")
        ] == [
            200,
            3000,
            300,
            20000,
            60,
        ]
        assert 500 < rows(db, "sessions WHERE expires_at < '2026-02-27'") < 2500
        assert 10 < rows(db, "pending_emails WHERE attempts > 0 AND last_error IS NOT NULL") < 40
        assert rows(db, "users WHERE email NOT LIKE '%example.com'") == 0
        assert rows(db, "logs WHERE created_at > '2026-03-29 01:00:00+00:00'") == 0

    def test_later_rows_belong_to_users_who_exist(self, db):
        seed.populate(db, FEW, random.Random(7), NOW)
        seed.populate(
            db, seed.Amounts(users=0, sessions=5, invitations=5, logs=5, mails=5), random.Random(8), NOW
        )

        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert rows(db, "sessions") == FEW.sessions + 5


class TestHousekeeping:
    @pytest.mark.parametrize(
        "old",
        [housekeeping.EXPIRED_SESSIONS, housekeeping.UNANSWERED_INVITATIONS, housekeeping.OLD_LOGS],
        ids=lambda old: old.table,
    )
    def test_batches_delete_exactly_what_was_counted(self, db, old):
        seed.populate(db, FEW, random.Random(7), NOW)
        before = NOW - timedelta(days=30)
        all_rows = rows(db, old.table)
        expected = old.count(db, before)

        deleted = list(iter(lambda: old.delete(db, before, 7), 0))

        assert sum(deleted) == expected > 7
        assert max(deleted) <= 7
        assert old.count(db, before) == 0
        assert rows(db, old.table) == all_rows - expected

    def test_accepted_invitations_stay(self, db):
        seed.populate(db, FEW, random.Random(7), NOW)
        accepted = "invitations WHERE accepted_at IS NOT NULL"
        before = rows(db, accepted)

        housekeeping.UNANSWERED_INVITATIONS.delete(db, NOW, 1_000)

        assert rows(db, accepted) == before > 0


class TestAnalytics:
    def test_writing_a_day_again_replaces_its_row(self, db):
        seed.populate(db, FEW, random.Random(7), NOW)
        day = date(2026, 3, 20)

        first = analytics.summarise(db, day, NOW)
        second = analytics.summarise(db, day, NOW + timedelta(minutes=5))

        assert first == second
        assert [row["day"] for row in db.execute("SELECT day FROM daily_summaries")] == ["2026-03-20"]

    def test_days_add_up_to_what_is_there(self, db):
        seed.populate(db, FEW, random.Random(7), NOW)

        rows = [analytics.summarise(db, (NOW - timedelta(days=back)).date(), NOW) for back in range(121)]

        assert sum(row["sessions"] for row in rows) == FEW.sessions
        assert sum(row["new_users"] for row in rows) == FEW.users
        assert sum(row["invitations"] for row in rows) == FEW.invitations


class TestClaiming:
    def test_two_threads_never_claim_the_same_mail(self, path, db):
        written = {write(db) for _ in range(200)}
        together = threading.Barrier(2)
        claimed: dict[str, list[int]] = {"a": [], "b": []}

        def work(name: str) -> None:
            with database.connect(path) as own:
                outbox = mail.Outbox(own, name, now=Watch())
                together.wait()
                while batch := outbox.claim(3):
                    claimed[name] += [letter.id for letter in batch]

        workers = [threading.Thread(target=work, args=(name,)) for name in claimed]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        assert sorted(claimed["a"] + claimed["b"]) == sorted(written)

    def test_two_processes_never_claim_the_same_mail(self, path, db):
        written = sorted(write(db) for _ in range(200))
        program = (
            "import sys; from pathlib import Path; from examples.saas import database, mail\n"
            "with database.connect(Path(sys.argv[1])) as db:\n"
            "    outbox = mail.Outbox(db, sys.argv[2])\n"
            "    print('ready', flush=True); sys.stdin.readline()\n"
            "    while batch := outbox.claim(3): print(*[letter.id for letter in batch])\n"
        )
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(path), name],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("a", "b")
        ]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()

        claimed = [int(word) for worker in workers for word in worker.communicate(timeout=30)[0].split()]

        assert sorted(claimed) == written

    def test_claim_is_bounded_and_takes_the_longest_waiting_first(self, db):
        late = write(db, due=NOW - timedelta(minutes=1))
        early = write(db, due=NOW - timedelta(hours=1))
        write(db, due=NOW + timedelta(seconds=1))

        outbox = mail.Outbox(db, "worker", now=Watch())

        assert outbox.due() == 2
        assert [letter.id for letter in outbox.claim(1)] == [early]
        assert [letter.id for letter in outbox.claim(5)] == [late]
        assert outbox.claim(5) == []

    def test_leaving_gives_back_what_was_not_tried(self, db):
        waiting = write(db)

        with mail.Outbox(db, "a", now=Watch()) as outbox:
            outbox.claim(5)

        assert state(db, waiting)["status"] == "pending"
        assert [letter.id for letter in mail.Outbox(db, "b", now=Watch()).claim(5)] == [waiting]

    def test_mail_of_a_dead_worker_is_found_again_and_the_dead_one_cannot_send_it(self, db, sink):
        write(db)
        watch = Watch()
        dead = mail.Outbox(db, "dead", now=watch)
        (letter,) = dead.claim(5)

        watch.now += mail.ABANDONED_AFTER
        living = mail.Outbox(db, "living", now=watch)
        assert living.due() == 1
        (same,) = living.claim(5)

        with mail.server() as smtp:
            assert dead.send(letter, smtp) == "taken"
            assert living.send(same, smtp) == "sent"
        assert len(sink.received) == 1


class TestSending:
    def test_sent_mail_arrives_as_written(self, db, sink):
        sent = write(db, recipient="chloe@example.com", subject="Grüße")

        assert send_due(db, Watch()) == ["sent"]

        (received,) = sink.received
        assert received.recipients == ("chloe@example.com",)
        assert received.sender == "no-reply@example.com"
        assert b"\r\n.\r\n..two dots\r\n" in received.content
        assert f"<pending-{sent}@example.com>".encode() in received.content
        assert state(db, sent)["status"] == "sent"

    def test_refused_mail_waits_one_three_nine_fifteen_minutes(self, db, sink):
        refused = write(db, recipient="ana@full.example.com")
        watch = Watch()
        waits = []
        for _ in range(6):
            assert send_due(db, watch) == ["failed"]
            due = datetime.fromisoformat(state(db, refused)["next_attempt_at"])
            waits.append((due - watch.now) / timedelta(minutes=1))
            watch.now = due - timedelta(seconds=1)
            assert send_due(db, watch) == []  # not a second early
            watch.now = due

        assert waits == [1, 3, 9, 15, 15, 15]
        assert state(db, refused)["attempts"] == 6
        assert state(db, refused)["last_error"] == "452 4.2.2 mailbox full"

    def test_greylisted_mail_arrives_in_the_end(self, db, sink):
        write(db, recipient="ana@greylist.example.com")
        watch = Watch()
        outcomes = []
        for minutes in (0, 1, 3):
            watch.now += timedelta(minutes=minutes)
            outcomes += send_due(db, watch)

        assert outcomes == ["failed", "failed", "sent"]
        assert len(sink.received) == 1

    def test_mail_for_nobody_is_given_up_at_once(self, db, sink):
        hopeless = write(db, recipient="ana@gone.example.com")

        assert send_due(db, Watch()) == ["failed"]

        assert state(db, hopeless)["status"] == "failed"
        assert mail.Outbox(db, "worker", now=Watch()).left() == 0

    def test_mail_is_given_up_after_the_last_attempt(self, db, sink):
        hopeless = write(db, recipient="ana@full.example.com")
        watch = Watch()
        for _ in range(mail.MAX_ATTEMPTS):
            assert send_due(db, watch) == ["failed"]
            watch.now += timedelta(minutes=15)

        assert send_due(db, watch) == []
        assert state(db, hopeless)["status"] == "failed"

    def test_mail_that_cannot_be_written_does_not_hold_up_the_others(self, db, sink):
        broken = write(db, subject="two\nlines")
        fine = write(db)

        assert send_due(db, Watch()) == ["failed", "sent"]

        assert state(db, broken)["attempts"] == 1
        assert state(db, fine)["status"] == "sent"

    def test_server_that_hangs_up_is_an_error_and_the_rest_is_given_back(self, db, sink):
        first, second = write(db), write(db)

        with mail.Outbox(db, "worker", now=Watch()) as outbox, mail.server() as smtp:
            batch = outbox.claim(5)
            smtp.sock.shutdown(socket.SHUT_RDWR)
            with pytest.raises(smtplib.SMTPServerDisconnected):
                outbox.send(batch[0], smtp)

        assert state(db, first)["attempts"] == 1
        assert state(db, second)["attempts"] == 0
        assert {state(db, one)["status"] for one in (first, second)} == {"pending"}

    def test_no_server_is_an_error_before_any_attempt(self, monkeypatch):
        with SmtpSink() as gone:
            port = gone.port
        monkeypatch.setenv("SAAS_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SAAS_SMTP_PORT", str(port))

        with pytest.raises(OSError, match="refused"):
            mail.server()


class TestSink:
    def test_speaks_enough_smtp(self, sink):
        with smtplib.SMTP("127.0.0.1", sink.port) as client:
            assert client.helo()[0] == 250
            assert client.rcpt("ana@example.com")[0] == 503
            assert client.docmd("DATA")[0] == 503
            assert client.mail("bea@example.com")[0] == 250
            assert client.rcpt("ana@full.example.com")[0] == 452
            assert client.rset()[0] == 250
            assert client.noop()[0] == 250
            assert client.verify("ana")[0] == 502

    def test_keeps_what_it_took_in_a_mailbox_file(self, tmp_path):
        import mailbox

        with (
            SmtpSink(file=tmp_path / "mails.mbox") as server,
            smtplib.SMTP("127.0.0.1", server.port) as client,
        ):
            client.sendmail("bea@example.com", ["ana@example.com"], "Subject: kept\n\nFrom here on\n")

        kept = mailbox.mbox(tmp_path / "mails.mbox", create=False)
        assert [message["subject"] for message in kept] == ["kept"]
        kept.close()
