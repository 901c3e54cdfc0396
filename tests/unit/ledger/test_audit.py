"""Entries of the audit: who, from where, what differs; bounded, on one line each, and without secrets."""

from dataclasses import replace
from datetime import UTC, datetime

from jobmanager.access.acting import acting, in_batch
from jobmanager.access.principal import Principal
from jobmanager.ledger.audit import Auditor
from jobmanager.ledger.redaction import Redactor
from jobmanager.run import CANCELLED, PENDING, Run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANA = Principal("ana", "admin")
AUDITOR = Auditor(Redactor(["s3cr3t-of-ours"]), namespace="shop")
RUN = Run(
    id="01-run",
    job_id="nightly",
    status=PENDING,
    trigger="manual",
    due_at=NOW,
    opened_at=NOW,
    concurrency_key="nightly",
)


def test_an_entry_of_anything_names_the_principal_and_where_it_came_from() -> None:
    with acting(ANA, address="10.0.0.7", user_agent="Mozilla/5.0", request_id="r-1"), in_batch("b-1"):
        entry = AUDITOR.entry("create", "webhook", "crm", at=NOW, after={"url": "https://x.example"})
    assert (entry.namespace, entry.action, entry.target, entry.target_id) == (
        "shop",
        "create",
        "webhook",
        "crm",
    )
    assert (entry.by, entry.address, entry.user_agent, entry.request_id, entry.batch_id) == (
        "ana",
        "10.0.0.7",
        "Mozilla/5.0",
        "r-1",
        "b-1",
    )
    assert (entry.job_id, entry.outcome, entry.after) == (None, "done", {"url": "https://x.example"})


def test_by_goes_before_the_principal() -> None:
    with acting(ANA):
        assert AUDITOR.entry("purge", "runs", "shop", at=NOW, by="cleanup").by == "cleanup"


def test_no_secret_and_no_control_character_gets_into_an_entry() -> None:
    with acting(ANA, user_agent="x\r\ns3cr3t-of-ours\0\ud800" + "y" * 9000, request_id="s3cr3t-of-ours"):
        entry = AUDITOR.entry(
            "edit",
            "key",
            "k",
            at=NOW,
            reason="s3cr3t-of-ours\n",
            after={"password": "x", "u": "s3cr3t-of-ours"},
        )
    assert "s3cr3t-of-ours" not in repr(entry)
    assert entry.user_agent is not None
    assert entry.user_agent.isprintable()
    assert len(entry.user_agent) < 600
    assert entry.after is not None
    assert entry.after["password"] != "x"


def test_a_run_is_audited_where_somebody_is_named_and_something_changes() -> None:
    cancelled = replace(RUN, status=CANCELLED, reason="requested")
    assert AUDITOR.of_run("cancel", RUN, cancelled, by=None, at=NOW) is None
    assert AUDITOR.of_run("cancel", RUN, RUN, by="ana", at=NOW) is None
    entry = AUDITOR.of_run("cancel", RUN, cancelled, by="ana", at=NOW)
    assert entry is not None
    assert (entry.target, entry.target_id, entry.job_id) == ("run", "01-run", "nightly")
    assert (entry.before, entry.after) == (
        {"status": "pending", "reason": None},
        {"status": "cancelled", "reason": "requested"},
    )
