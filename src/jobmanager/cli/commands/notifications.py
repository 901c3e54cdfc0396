"""`jobmanager notifications`: what waits to be told, what was told, and what could not be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobmanager.cli.output.failures import ConflictError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.account import notification_record
from jobmanager.present.phrases import Block, both, tail
from jobmanager.validation.printable import printable, printable_lines

if TYPE_CHECKING:
    from jobmanager.stores.outbox import Notification

notifications = Verbs("notifications", help="What waits to be told, was told, or could not be.")

ID = click.argument("notification", metavar="ID", help="Its id, or the end of it.")


@notifications.command("list", example="jobmanager notifications list --state dead")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["waiting", "sent", "dead", "dropped"]),
    help="Only these; may be given several times.",
)
@click.option("--job", metavar="JOB", help="Only those of this job.")
@click.option("--before", metavar="ID", help="Older than this one: the last of the page before.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(min=1, max=1000), default=50, help="How many at most."
)
@click.pass_obj
def list_notifications(
    here: Session, states: tuple[Any, ...], job: str | None, before: str | None, limit: int
) -> None:
    """List notifications, newest first."""
    found = here.ledger.notifications(states, job=job, before=before, limit=limit)
    if here.as_json:
        here.emit([notification_record(item) for item in found])
        return
    if not found:
        here.print("There are no notifications like that.")
        return
    from jobmanager.cli.output.lists import Column, listing

    columns = [
        Column("ID"),
        Column("WHEN"),
        Column("STATE"),
        Column("EVENT"),
        Column("JOB", yields=True),
        Column("TO", yields=True),
        Column("TRIED", right=True),
        Column("ERROR", folds=True, yields=True),
    ]
    rows = [
        [
            tail(item.id),
            both(item.created_at),
            item.state,
            item.event if item.count == 1 else f"{item.event} x {item.count:,}",
            item.job_id or "-",
            printable(_to(item)),
            str(item.attempts),
            printable(item.error or ""),
        ]
        for item in found
    ]
    here.print(listing(here.console, columns, rows))


@notifications.command("show", example="jobmanager notifications show 8f0c2b1a")
@ID
@click.pass_obj
def show(here: Session, notification: str) -> None:
    """Show one notification with the text that is sent."""
    found = here.ledger.notification(notification)
    if here.as_json:
        here.emit(notification_record(found))
        return
    from jobmanager.cli.output.lists import facts

    here.print(
        facts(
            [
                ("notification", found.id),
                ("event", found.event),
                ("job", found.job_id or "-"),
                ("about", found.subject),
                ("to", _to(found)),
                ("state", found.state),
                ("noted", both(found.created_at)),
                ("next attempt", both(found.due_at) if found.state == "waiting" else ""),
                ("attempts", str(found.attempts)),
                ("unconfirmed", f"{found.unsure} of 2 transmissions" if found.unsure else ""),
                ("sent", both(found.sent_at) if found.sent_at else ""),
                ("error", found.error or ""),
            ]
        ),
        "",
        Block(printable_lines(_text(here, found))),
    )


@notifications.command("resend", example="jobmanager notifications resend 8f0c2b1a")
@ID
@click.pass_obj
def resend(here: Session, notification: str) -> None:
    """Send one again as if it were new. A living process does it, within seconds."""
    _print_changed(here, here.ledger.resend_notification(notification, by=here.user), "it is sent again")


@notifications.command("drop", example="jobmanager notifications drop 8f0c2b1a")
@ID
@click.pass_obj
def drop(here: Session, notification: str) -> None:
    """Do not send one any more. One that was sent stays as it is."""
    after = here.ledger.drop_notification(notification, by=here.user)
    if after.state == "sent":
        raise ConflictError(
            f"Notification {tail(after.id)} was sent already.", hint="There is nothing to drop."
        )
    _print_changed(here, after, "it is not sent any more")


@notifications.command("test", example="jobmanager notifications test --to ops@example.org")
@click.option(
    "--to",
    metavar="ADDRESS",
    help="An e-mail address, or channel:address. Without it all who are told of everything.",
)
@click.pass_obj
def test(here: Session, to: str | None) -> None:
    """Send a message now, from this process, and say how that went."""
    outcome = here.ledger.test_notifications(to, by=here.user)
    if here.as_json:
        here.emit([{"to": address, "error": error} for address, error in outcome.items()])
    else:
        for address, error in outcome.items():
            here.print(f"{address}: {'sent' if error is None else printable(error)}")
    failed = [address for address, error in outcome.items() if error is not None]
    if failed:
        raise ConflictError(
            f"Not sent to {', '.join(failed)}.", hint="Look at JOBMANAGER_SMTP_URL and at the server's log."
        )


def _print_changed(here: Session, after: Notification, what: str) -> None:
    if here.as_json:
        here.emit(notification_record(after))
    else:
        here.print(
            f"{tail(after.id)} ({after.event}, {after.job_id or 'no job'}, to {printable(_to(after))}): {what}."
        )


def _to(item: Notification) -> str:
    return item.channel if not item.address else f"{item.channel}:{item.address}"


def _text(here: Session, item: Notification) -> str:
    message = here.ledger.notification_message(item.id)
    return f"Subject: {message.subject}\n\n{message.text}"
