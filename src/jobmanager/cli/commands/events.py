"""`jobmanager events`: say that something has happened, and see what was said and which runs wait for it."""

from __future__ import annotations

import click

from jobmanager.cli.arguments import json_value
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.phrases import both, tail
from jobmanager.present.steps import event_record, sent_event_record, wait_record
from jobmanager.validation.printable import printable

events = Verbs("events", help="The events for which runs wait: send one, and see which came.")


@events.command("send", example='jobmanager events send user/confirmed --key 42 --data \'{"by": "mail"}\'')
@click.argument("name", metavar="NAME")
@click.option(
    "--key", default="", metavar="KEY", show_default=False, help="The one it happened to, like a user's id."
)
@click.option(
    "--data", "-d", metavar="JSON", help="What the handlers get: JSON, @file, or - for standard input."
)
@click.option(
    "--id", "event_id", metavar="ID", help="Sent once: an event of the same id changes nothing more."
)
@click.pass_obj
def send(here: Session, name: str, key: str, data: str | None, event_id: str | None) -> None:
    """Send an event.

    Runs that wait for one of this name and key go on, and those that come to wait for it within seven days.
    """
    value = None if data is None else json_value(data, "data")
    event = here.jobs.send_event(name, key=key, data=value, id=event_id, by=here.user)
    if here.as_json:
        here.emit(event_record(event))
        return
    of = f" of {event.key}" if event.key else ""
    here.print(f"Event {event.name}{of} is sent: {event.id}.")


NAME = click.option("--name", metavar="NAME", help="Only of this name.")
LIMIT = click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(min=1, max=1000), default=50, help="How many at most."
)


@events.command("list", example="jobmanager events list --name user/confirmed")
@NAME
@click.option("--before", metavar="ID", help="Sent before this one: the last of the page before.")
@LIMIT
@click.pass_obj
def list_events(here: Session, name: str | None, before: str | None, limit: int) -> None:
    """List the events that were sent, newest first, and the runs that they started."""
    found = here.ledger.sent_events(name=name, before=before, limit=limit)
    if here.as_json:
        here.emit([sent_event_record(event) for event in found])
        return
    if not found:
        here.print("No event like that was sent within seven days.")
        return
    from jobmanager.cli.output.lists import Column, listing

    columns = [
        Column("SENT"),
        Column("NAME", yields=True),
        Column("KEY", yields=True),
        Column("ID"),
        Column("STARTED", folds=True, yields=True),
    ]
    rows = [
        [
            both(event.sent_at),
            printable(event.name),
            printable(event.key or "-"),
            printable(event.id),
            ", ".join(f"{run.job_id} {tail(run.id)}" for run in event.runs) or "-",
        ]
        for event in found
    ]
    here.print(listing(here.console, columns, rows))


@events.command("waits", example="jobmanager events waits --name user/confirmed")
@NAME
@LIMIT
@click.pass_obj
def list_waits(here: Session, name: str | None, limit: int) -> None:
    """List the runs that rest until an event comes, the longest first."""
    found = here.ledger.event_waits(name=name, limit=limit)
    if here.as_json:
        here.emit([wait_record(wait) for wait in found])
        return
    if not found:
        here.print("No run waits for an event like that.")
        return
    from jobmanager.cli.output.lists import Column, listing

    columns = [
        Column("RUN"),
        Column("JOB", yields=True),
        Column("EVENT", yields=True),
        Column("KEY", yields=True),
        Column("SINCE"),
        Column("GOES ON WITHOUT"),
    ]
    rows = [
        [
            tail(wait.run_id),
            wait.job_id,
            printable(wait.name),
            printable(wait.key or "-"),
            both(wait.since),
            both(wait.until) if wait.until else "-",
        ]
        for wait in found
    ]
    here.print(listing(here.console, columns, rows))
