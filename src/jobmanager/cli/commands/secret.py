"""`jobmanager secret rotate` and `retire`: a new signing secret, without a refused call in between."""

from __future__ import annotations

import click

from jobmanager.cli.asking import confirm
from jobmanager.cli.commands.pg_cron import care_of, manager_of
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.phrases import count

secret = Verbs("secret", help="The secret that the database's calls are signed with.")

# Both at first: calls that were signed before wait in the database's queue, and a token is sent alone.
STEPS = (
    'Start every process of the application with JOBMANAGER_SECRET="NEW OLD": the new secret, a blank, the old one.',
    "Then `jobmanager secret retire`: only the new one is used from then on.",
    "With the next deployment leave the old one out of JOBMANAGER_SECRET.",
)


@secret.command("rotate", example="jobmanager secret rotate")
@click.option("--again", is_flag=True, help="Although the last rotation was not ended: its secret was lost.")
@click.pass_obj
def rotate(here: Session, again: bool) -> None:
    """Make a new secret that signs beside the old one, so that both are accepted until `secret retire`. Shown once."""
    care = care_of(here)
    secret = manager_of(here).rotate_secret(again=again, by=here.user)
    if here.as_json:
        here.emit({"secret": secret, "signing": care.keys(), "next": list(STEPS)})
        return
    here.print("The new secret, shown this once:", "")
    here.copyable(f"  {secret}\n")  # never wrapped: it is to be copied
    for number, step in enumerate(STEPS, start=1):
        here.print(f"{number}. {step}")


@secret.command("retire", example="jobmanager secret retire")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def retire(here: Session, yes: bool) -> None:
    """End a rotation: from now on only the newest secret signs. Every process of the application must have it by then."""
    care = care_of(here)
    if care.keys() > 1:
        confirm(
            here,
            "Does every process of the application have the newest secret? Others will refuse all calls.",
            yes=yes,
        )
    ended = manager_of(here).retire_secrets(by=here.user)
    if here.as_json:
        here.emit({"retired": ended, "signing": care.keys()})
    elif not ended:
        here.print("Only one secret signs; nothing to retire.")
    else:
        here.print(f"{count(ended, 'secret')} retired; only the newest signs.")
        here.print("`jobmanager verify` shows whether the application accepts it.")
