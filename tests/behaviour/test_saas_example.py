"""The example application's own work, without jobmanager: a real SQLite file, real services on loopback."""

import mailbox
import random
import smtplib
import socket
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from sqlalchemy import func, select, text

from jobmanager import RunContext

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the examples are no part of the installed package

from examples.saas import data, housekeeping, mails, outbox, partitions, seed, services  # noqa: E402
from examples.saas.fakes import Fakes  # noqa: E402
from examples.saas.jobs import figures  # noqa: E402
from examples.saas.smtp_sink import SmtpSink  # noqa: E402

NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
FEW = seed.Amounts(
    users=20,
    sessions=100,
    invitations=40,
    push_subscriptions=40,
    logs=400,
    error_logs=40,
    ai_requests=40,
    activities=40,
    conversions=10,
    mails=30,
)


class Watch:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def watch(monkeypatch):
    watch = Watch()
    monkeypatch.setattr(data, "now", watch)
    return watch


@pytest.fixture
def url(tmp_path, monkeypatch, watch):
    url = f"sqlite:///{tmp_path / 'saas.db'}"
    monkeypatch.setenv("SAAS_DATABASE_URL", url)
    data.create()
    yield url
    data.engine_of(url).dispose()


@pytest.fixture
def sink(monkeypatch):
    with SmtpSink() as server:
        monkeypatch.setenv("SAAS_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SAAS_SMTP_PORT", str(server.port))
        yield server


def populate(amounts: seed.Amounts = FEW, chance: int = 7) -> None:
    with data.transaction() as db:
        seed.populate(db, amounts, random.Random(chance), NOW)


def write(recipient: str = "ana@example.com", subject: str = "Hello", due: datetime = NOW) -> int:
    row = {"recipient": recipient, "subject": subject, "body": "Dear reader,\n.\n..two dots\n"}
    with data.transaction() as db:
        key = str(db.scalar(select(func.count()).select_from(data.pending_emails)))
        values = {**row, "key": key, "next_attempt_at": due, "created_at": due}
        return db.execute(data.pending_emails.insert().values(**values)).inserted_primary_key[0]


def state(mail_id: int):
    with data.transaction() as db:
        return db.execute(select(data.pending_emails).where(data.pending_emails.c.id == mail_id)).one()


def rows(what: str) -> int:
    with data.transaction() as db:
        return db.scalar(text(f"SELECT count(*) FROM {what}"))


def send_due() -> list[str]:
    with outbox.Outbox("worker") as box, outbox.server() as smtp:
        return [box.send(letter, smtp) for letter in box.claim(100)]


class TestSeed:
    def test_same_seed_and_moment_give_the_same_rows(self, tmp_path, monkeypatch, watch):
        dumps = []
        for name in ("one.db", "two.db"):
            monkeypatch.setenv("SAAS_DATABASE_URL", f"sqlite:///{tmp_path / name}")
            data.create()
            populate()
            with data.transaction() as db:
                dumps.append([list(db.execute(select(table))) for table in data.metadata.sorted_tables])
            data.engine_of(data.url()).dispose()

        assert dumps[0] == dumps[1]
        assert all(
            dumps[0][n] for n, table in enumerate(data.metadata.sorted_tables) if table.name == "licences"
        )

    def test_default_amounts_are_a_small_company(self, url):
        populate(seed.Amounts())

        assert [rows(table) for table in ("users", "sessions", "invitations", "logs", "pending_emails")] == [
            200,
            3000,
            300,
            20000,
            60,
        ]
        assert 500 < rows("sessions WHERE expires_at < '2026-02-27'") < 2500
        assert 10 < rows("pending_emails WHERE attempts > 0 AND last_error IS NOT NULL") < 40
        assert rows("users WHERE email NOT LIKE '%example.com'") == 0
        assert rows("logs WHERE created_at > '2026-03-29 01:00:01'") == 0

    def test_later_rows_belong_to_users_who_exist(self, url):
        populate()
        populate(seed.Amounts(users=0, sessions=5, invitations=5, logs=5, mails=5), chance=8)

        with data.transaction() as db:
            assert db.execute(text("PRAGMA foreign_key_check")).all() == []
        assert rows("sessions") == FEW.sessions + 5


class TestHousekeeping:
    @pytest.mark.parametrize(
        "old",
        [
            housekeeping.EXPIRED_SESSIONS,
            housekeeping.UNANSWERED_INVITATIONS,
            housekeeping.UNUSED_PUSH,
            housekeeping.OLD_LOGS,
            housekeeping.OLD_ERRORS,
        ],
        ids=lambda old: old.table.name,
    )
    def test_batches_delete_exactly_what_was_counted(self, url, old):
        populate()
        before = NOW - timedelta(days=30)
        all_rows = rows(old.table.name)
        expected = old.count(before)

        deleted = list(iter(lambda: old.delete(before, 5), 0))

        assert sum(deleted) == expected > 5
        assert max(deleted) <= 5
        assert old.count(before) == 0
        assert rows(old.table.name) == all_rows - expected

    def test_accepted_invitations_stay(self, url):
        populate()
        accepted = "invitations WHERE accepted_at IS NOT NULL"
        before = rows(accepted)

        housekeeping.UNANSWERED_INVITATIONS.delete(NOW, 1_000)

        assert rows(accepted) == before > 0


class TestFigures:
    BY_HAND = cast(RunContext, SimpleNamespace(scheduled_for=None))

    def test_writing_a_day_again_replaces_its_row(self, url):
        populate()

        first, second = (figures.generate_analytics(self.BY_HAND, date(2026, 3, 20)) for _ in range(2))

        assert first == second
        assert rows("daily_summaries WHERE day = '2026-03-20'") == 1

    def test_days_add_up_to_what_is_there(self, url):
        populate()

        days = [(NOW - timedelta(days=back)).date() for back in range(121)]
        found = [figures.generate_analytics(self.BY_HAND, day) for day in days]

        assert sum(each["sessions"] for each in found) == FEW.sessions == rows("sessions")
        assert sum(each["new_users"] for each in found) == FEW.users


class TestPartitions:
    def test_months_go_over_the_end_of_a_year(self):
        names = [
            partitions.name_of(month) for month in partitions.months(datetime(2026, 11, 30, 5, tzinfo=UTC), 3)
        ]

        assert names == ["events_2026_11", "events_2026_12", "events_2027_01"]

    def test_a_table_is_made_once_and_its_size_is_counted(self, url):
        with data.transaction() as db:
            made = [partitions.create(db, NOW), partitions.create(db, NOW)]
            partitions.fill(db, "events_2026_03", 10)
            counted = partitions.size(db)
            partitions.drop(db, "events_2026_03")

            assert (made, counted, partitions.size(db), partitions.names(db)) == ([True, False], 800, 0, [])


class TestMails:
    @pytest.mark.parametrize(
        ("locale", "greeting"),
        [("de", "Hallo Ana"), ("de-AT", "Hallo Ana"), ("en", "Hello Ana"), ("fr", "Hello Ana")],
    )
    def test_language_is_that_of_the_locale_and_english_where_there_is_none(self, locale, greeting):
        assert greeting in mails.text("welcome", locale, {"name": "Ana"})[1]

    def test_every_mail_exists_in_every_language(self):
        assert {frozenset(texts) for texts in mails.TEXTS.values()} == {frozenset({"en", "de"})}

    def test_a_key_is_written_once(self, url):
        with data.transaction() as db:
            for expected in (True, False):
                words = {"key": "one", "locale": "de", "at": NOW, "name": "Ana"}
                assert mails.write(db, "welcome", "ana@example.com", **words) is expected
        assert rows("pending_emails") == 1


class TestServices:
    @pytest.fixture
    def fakes(self, monkeypatch, watch):
        with Fakes(now=watch) as running:
            for name, value in running.environment.items():
                monkeypatch.setenv(name, value)
            yield running

    def test_stripe_gives_every_subscription_page_by_page(self, fakes):
        found = [one for page in services.stripe_subscriptions() for one in page]

        assert len({one["id"] for one in found}) == len(found) == 66
        assert fakes.calls["stripe"] == 2

    def test_cancelling_twice_is_safe_and_seen_in_the_list(self, fakes):
        assert [services.cancel_at_stripe("sub_0003") for _ in range(2)] == ["canceled", "canceled"]
        assert next(services.stripe_subscriptions())[0]["status"] == "canceled"
        assert services.cancel_at_stripe("sub_0001") == "unknown"

    def test_provider_without_credits_has_none(self, fakes):
        assert [services.llm_credits(name) for name in ("openai", "google")] == [120, 0]

    def test_a_failure_that_is_switched_on_lasts_until_it_is_switched_off(self, fakes):
        services.call("PUT", "/failures/git", json={"failure": "error"})
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            services.newest_commit()
        assert services.llm_credits("openai") == 120

        services.call("PUT", "/failures/git", json={"failure": "none"})
        assert services.newest_commit() == "0" * 40

    def test_mail_system_that_is_down_refuses_everybody(self, fakes, url):
        fakes.fail("smtp", "error")
        write()

        assert send_due() == ["failed"]


class TestClaiming:
    def test_two_threads_never_claim_the_same_mail(self, url):
        written = {write() for _ in range(200)}
        together = threading.Barrier(2)
        claimed: dict[str, list[int]] = {"a": [], "b": []}

        def work(name: str) -> None:
            box = outbox.Outbox(name)
            together.wait()
            while batch := box.claim(3):
                claimed[name] += [letter.id for letter in batch]

        workers = [threading.Thread(target=work, args=(name,)) for name in claimed]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        assert sorted(claimed["a"] + claimed["b"]) == sorted(written)

    def test_two_processes_never_claim_the_same_mail(self, url):
        written = sorted(write() for _ in range(200))
        program = (
            "import sys; from examples.saas.outbox import Outbox\n"
            "box = Outbox(sys.argv[1])\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "while batch := box.claim(3): print(*[letter.id for letter in batch])\n"
        )
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", program, name],
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

    def test_claim_is_bounded_and_takes_the_longest_waiting_first(self, url, watch):
        late = write(due=NOW - timedelta(minutes=1))
        early = write(due=NOW - timedelta(hours=1))
        write(due=NOW + timedelta(seconds=1))

        box = outbox.Outbox("worker")

        assert box.due() == 2
        assert [letter.id for letter in box.claim(1)] == [early]
        assert [letter.id for letter in box.claim(5)] == [late]
        assert box.claim(5) == []

    def test_leaving_gives_back_what_was_not_tried(self, url, watch):
        waiting = write()

        with outbox.Outbox("a") as box:
            box.claim(5)

        assert state(waiting).status == "pending"
        assert [letter.id for letter in outbox.Outbox("b").claim(5)] == [waiting]

    def test_mail_of_a_dead_worker_is_found_again_and_the_dead_one_cannot_send_it(self, url, sink, watch):
        write()
        dead = outbox.Outbox("dead")
        (letter,) = dead.claim(5)

        watch.now += outbox.ABANDONED_AFTER
        living = outbox.Outbox("living")
        assert living.due() == 1
        (same,) = living.claim(5)

        with outbox.server() as smtp:
            assert dead.send(letter, smtp) == "taken"
            assert living.send(same, smtp) == "sent"
        assert len(sink.received) == 1


class TestSending:
    def test_sent_mail_arrives_as_written(self, url, sink, watch):
        sent = write(recipient="chloe@example.com", subject="Grüße")

        assert send_due() == ["sent"]

        (received,) = sink.received
        assert received.recipients == ("chloe@example.com",)
        assert received.sender == "no-reply@example.com"
        assert b"\r\n.\r\n..two dots\r\n" in received.content
        assert f"<pending-{sent}@example.com>".encode() in received.content
        assert state(sent).status == "sent"

    def test_refused_mail_waits_one_three_nine_fifteen_minutes(self, url, sink, watch):
        refused = write(recipient="ana@full.example.com")
        waits = []
        for _ in range(6):
            assert send_due() == ["failed"]
            due = state(refused).next_attempt_at
            waits.append((due - watch.now) / timedelta(minutes=1))
            watch.now = due - timedelta(seconds=1)
            assert send_due() == []  # not a second early
            watch.now = due

        assert waits == [1, 3, 9, 15, 15, 15]
        assert state(refused).attempts == 6
        assert state(refused).last_error == "452 4.2.2 mailbox full"

    def test_greylisted_mail_arrives_in_the_end(self, url, sink, watch):
        write(recipient="ana@greylist.example.com")
        outcomes = []
        for minutes in (0, 1, 3):
            watch.now += timedelta(minutes=minutes)
            outcomes += send_due()

        assert outcomes == ["failed", "failed", "sent"]
        assert len(sink.received) == 1

    def test_mail_for_nobody_is_given_up_at_once(self, url, sink, watch):
        hopeless = write(recipient="ana@gone.example.com")

        assert send_due() == ["failed"]

        assert state(hopeless).status == "failed"
        assert outbox.Outbox("worker").left() == 0

    def test_mail_is_given_up_after_the_last_attempt(self, url, sink, watch):
        hopeless = write(recipient="ana@full.example.com")
        for _ in range(outbox.MAX_ATTEMPTS):
            assert send_due() == ["failed"]
            watch.now += timedelta(minutes=15)

        assert send_due() == []
        assert state(hopeless).status == "failed"

    def test_mail_that_cannot_be_written_does_not_hold_up_the_others(self, url, sink, watch):
        broken = write(subject="two\nlines")
        fine = write()

        assert send_due() == ["failed", "sent"]

        assert state(broken).attempts == 1
        assert state(fine).status == "sent"

    def test_server_that_hangs_up_is_an_error_and_the_rest_is_given_back(self, url, sink, watch):
        first, second = write(), write()

        with outbox.Outbox("worker") as box, outbox.server() as smtp:
            batch = box.claim(5)
            smtp.sock.shutdown(socket.SHUT_RDWR)
            with pytest.raises(smtplib.SMTPServerDisconnected):
                box.send(batch[0], smtp)

        assert state(first).attempts == 1
        assert state(second).attempts == 0
        assert {state(one).status for one in (first, second)} == {"pending"}

    def test_no_server_is_an_error_before_any_attempt(self, monkeypatch):
        with SmtpSink() as gone:
            port = gone.port
        monkeypatch.setenv("SAAS_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SAAS_SMTP_PORT", str(port))

        with pytest.raises(OSError, match="refused"):
            outbox.server()


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
        with (
            SmtpSink(file=tmp_path / "mails.mbox") as server,
            smtplib.SMTP("127.0.0.1", server.port) as client,
        ):
            client.sendmail("bea@example.com", ["ana@example.com"], "Subject: kept\n\nFrom here on\n")

        kept = mailbox.mbox(tmp_path / "mails.mbox", create=False)
        assert [message["subject"] for message in kept] == ["kept"]
        kept.close()
