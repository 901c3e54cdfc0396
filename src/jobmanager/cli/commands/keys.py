"""`jobmanager keys create`, `list` and `revoke`, and `jobmanager dashboard-user`: who may ask over HTTP."""

from __future__ import annotations

import sys

import click

from jobmanager.cli.arguments import duration
from jobmanager.cli.asking import confirm
from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs, verb
from jobmanager.present.account import key_record
from jobmanager.present.phrases import both, iso
from jobmanager.validation.printable import printable

VARIABLE = "JOBMANAGER_DASHBOARD_USERS"

keys = Verbs("keys", help="The API keys with which services ask.")


@keys.command("create", example="jobmanager keys create ci --permission jobs:read --expires 90d")
@click.argument("name", metavar="NAME")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    metavar="WORD",
    help="A permission or a role; jobs:read and jobs:write.",
)
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="Only runs of this scope of project jobs."
)
@click.option("--expires", metavar="LENGTH", help="When it ends, like 90d; never.")
@click.pass_obj
def create(
    here: Session, name: str, permissions: tuple[str, ...], scopes: tuple[str, ...], expires: str | None
) -> None:
    """Make a key and print its secret, this once."""
    from jobmanager.access.principal import READ, WRITE

    jobs = here.ledger
    ends = None if expires is None else jobs.store.now() + duration(expires)
    secret = jobs.create_key(
        name, permissions=permissions or (READ, WRITE), scopes=scopes or None, expires=ends, by=here.user
    )
    if here.as_json:
        here.emit({"name": name, "secret": secret, "expires_at": iso(ends)})
        return
    here.aside.print("The secret of the key, shown this once:")
    here.copyable(secret)


@keys.command("list", example="jobmanager keys list")
@click.pass_obj
def list_keys(here: Session) -> None:
    """List the keys, newest first; no secret is kept."""
    jobs = here.ledger
    found, now = jobs.keys(), jobs.store.now()
    if here.as_json:
        here.emit([key_record(key) for key in found])
        return
    if not found:
        here.print("There is no key. `jobmanager keys create NAME` makes one.")
        return
    from jobmanager.cli.output.lists import Column, listing

    columns = [
        Column("NAME", yields=True),
        Column("STATE"),
        Column("SECRET"),
        Column("MAY", folds=True, yields=True),
        Column("SCOPES", folds=True, yields=True),
        Column("LAST USED"),
        Column("ENDS"),
        Column("MADE BY", yields=True),
    ]
    rows = [
        [
            printable(key.name),
            "revoked" if key.revoked_at else "valid" if key.is_valid(now) else "ended",
            f"{key.hint}...",
            " ".join(key.permissions),
            "all" if key.scopes is None else printable(" ".join(key.scopes)),
            both(key.last_used_at) if key.last_used_at else "never",
            both(key.expires_at) if key.expires_at else "never",
            printable(key.created_by or "unnamed"),
        ]
        for key in found
    ]
    here.print(listing(here.console, columns, rows))


@keys.command("revoke", example="jobmanager keys revoke ci --yes")
@click.argument("name", metavar="NAME")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def revoke(here: Session, name: str, yes: bool) -> None:
    """Revoke a key: requests with it are refused from now on."""
    if not here.as_json:
        confirm(here, f"Revoke key {name}?", yes=yes)
    key = here.ledger.revoke_key(name, by=here.user)
    if here.as_json:
        here.emit(key_record(key))
    else:
        here.print(f"{printable(key.name)}: revoked.")


@verb("dashboard-user", example="jobmanager dashboard-user ana --role admin")
@click.argument("name", metavar="NAME")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    default="viewer",
    help="What the user may do.",
)
@click.pass_obj
def dashboard_user(here: Session, name: str, role: str) -> None:
    """Ask for a password and print the setting with this user, and with those that it has already.

    The password is not shown; where the input is no terminal, it is the first line of the input. Only a hash of it is printed.
    """
    from jobmanager.access.passwords import SHORTEST, User, hashed, users_of
    from jobmanager.settings import Settings

    if not name.isprintable() or set(name) & set(" :,\"'") or not 1 <= len(name) <= 100:
        raise UsageError(
            f"{name!r} is no name of a user.",
            hint="Use up to 100 letters and signs, without blanks, colons and commas.",
        )
    password = _password()
    if len(password) < SHORTEST:
        raise UsageError(
            f"The password is shorter than {SHORTEST} characters.", hint="Let a password manager make one."
        )
    before = Settings.from_env().dashboard_users
    users = {
        **users_of(before.get_secret_value() if before else ""),
        name: User(name, role, hashed(password)),
    }
    value = " ".join(f"{user.name}:{user.role}:{user.hash}" for user in users.values())
    if here.as_json:
        here.emit({"variable": VARIABLE, "value": value})
        return
    here.copyable(f'{VARIABLE}="{value}"')


def _password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")
