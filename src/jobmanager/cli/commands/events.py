"""`jobmanager events send`: say that something has happened, so that runs that wait for it go on."""

from __future__ import annotations

import click

from jobmanager.cli.arguments import json_value
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.steps import event_record

events = Verbs("events", help="The events for which runs wait: send one.")


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
