"""`jobmanager webhooks`: the receivers that jobs may be sent to. Secrets are read from standard input and never printed again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from jobmanager.cli.asking import confirm
from jobmanager.cli.output.failures import FailedError, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.phrases import both, compact, count, iso
from jobmanager.validation.printable import printable

if TYPE_CHECKING:
    from jobmanager.webhooks import Auth, WebhookInfo

webhooks = Verbs(
    "webhooks",
    help="Receivers that jobs are sent to as signed requests: list, show, test; create, edit, delete, rotate.",
    default=["list"],
)
KEY = click.argument("key", metavar="KEY", help="Its key: the handler that jobs name.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
_HOW = "bearer, basic:USER, api-key, api-key:HEADER, header:NAME or none"


def _options(*, for_new: bool) -> Callable[[Any], Any]:
    """Declare what `create` and `edit` take."""
    declared = [
        click.option("--url", required=for_new, metavar="URL", help="Where the requests go."),
        click.option("--method", metavar="METHOD", help="POST, PUT, PATCH, DELETE or GET.  [default: POST]" if for_new else "Another method."),
        click.option("--auth", metavar="KIND", help=f"{_HOW}. Its secret is asked for, or read from standard input."),
        click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header without secrets; may be repeated."),
        click.option("--timeout", type=float, metavar="SECONDS", help="For the whole request, looking up the name included.  [default: 10]" if for_new else "For the whole request."),
        click.option("--expect", metavar="STATUSES", help="Which mean that the work is done, such as 200-299,409."),
        click.option("--sign/--no-sign", default=None, help="Whether requests are signed; --sign makes a new secret, shown this once."),
    ]  # fmt: skip

    def apply(function: Any) -> Any:
        for option in reversed(declared):
            function = option(function)
        return function

    return apply


@webhooks.command("list", example="jobmanager webhooks list")
@click.pass_obj
def list_webhooks(here: Session) -> None:
    """List every webhook: where it leads, how it is proved, who changed it last."""
    found = here.ledger.webhooks()
    if here.as_json:
        here.emit([_record(info) for info in found])
        return
    if not found:
        here.print("No webhooks. `jobmanager webhooks create KEY --url https://...` makes one.")
        return
    from jobmanager.cli.output.lists import Column, listing

    columns = (
        Column("KEY", yields=True),
        Column("SENDS", folds=True, yields=True),
        Column("AUTH"),
        Column("SIGNED"),
        Column("FROM"),
        Column("CHANGED", wide=100),
    )
    rows = [
        [
            info.key,
            printable(f"{info.method} {info.url}"),
            _auth_in_words(info),
            "yes" if info.signed else "no",
            f"{info.source}, off" if info.off else info.source,
            _changed(info),
        ]
        for info in found
    ]
    here.print(listing(here.console, columns, rows))


@webhooks.command("show", example="jobmanager webhooks show crm-sync")
@KEY
@click.pass_obj
def show(here: Session, key: str) -> None:
    """Show one webhook. Its secrets are shown by no command."""
    _print(here, _found(here, key))


@webhooks.command(
    "create", example="jobmanager webhooks create crm-sync --url https://crm.example.com/hook --auth bearer"
)
@KEY
@_options(for_new=True)
@click.pass_obj
def create(here: Session, /, key: str, **given: Any) -> None:
    """Make a webhook; jobs may name it at once, in every process. With JOBMANAGER_ENCRYPTION_KEY requests are signed."""
    made = here.ledger.create_webhook(key, by=here.user, **_words(given))
    _print(here, made, "made")


@webhooks.command("edit", example="jobmanager webhooks edit crm-sync --timeout 30")
@KEY
@_options(for_new=False)
@click.pass_obj
def edit(here: Session, /, key: str, **given: Any) -> None:
    """Change a webhook that an operator made; what is not given stays. To another host give the secret again, with --auth."""
    words = _words(given)
    if not words:
        raise UsageError("Say what to change.", hint=f"jobmanager webhooks edit {key} --timeout 30")
    _print(here, here.ledger.update_webhook(key, by=here.user, **words), "changed")


@webhooks.command("delete", example="jobmanager webhooks delete crm-sync --yes")
@KEY
@YES
@click.pass_obj
def delete(here: Session, key: str, yes: bool) -> None:
    """Delete a webhook that an operator made, and its secrets. Refused while a job names it."""
    if not here.as_json:
        confirm(here, f"Delete webhook {key}?", yes=yes)
    here.ledger.delete_webhook(key, by=here.user)
    if here.as_json:
        here.emit({"key": key, "deleted": True})
    else:
        here.print(f"{key}: deleted, with its secrets. `jobmanager audit` shows what it was.")


@webhooks.command("test", example="jobmanager webhooks test crm-sync")
@KEY
@click.pass_obj
def test(here: Session, key: str) -> None:
    """Send a signed ping, and show the response and how long it took. Exit code 1 if a run would have failed."""
    found = here.ledger.test_webhook(key, by=here.user)
    if here.as_json:
        here.emit(asdict(found))
        if not found.ok:
            raise click.exceptions.Exit(1)
        return
    if found.status is not None:
        here.print(f"{found.key}: {found.status} in {found.seconds:g} s")
        if found.body is not None:
            here.print(f"  {found.body if isinstance(found.body, str) else compact(found.body)}")
    if not found.ok:
        raise FailedError(found.error or "", hint=f"Look at it with `jobmanager webhooks show {found.key}`.")


@webhooks.command("rotate", example="jobmanager webhooks rotate")
@click.pass_obj
def rotate(here: Session) -> None:
    """Encrypt every stored secret with the newest key of JOBMANAGER_ENCRYPTION_KEY; the older keys may go afterwards."""
    number = here.ledger.rotate_webhooks(by=here.user)
    if here.as_json:
        here.emit({"rotated": number})
    else:
        here.print(
            f"{count(number, 'webhook')} encrypted with the newest key. The older ones may leave JOBMANAGER_ENCRYPTION_KEY."
        )


# ---------------------------------------------------------------- what is given


def _words(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as the methods take them."""
    words = {name: value for name, value in given.items() if value not in (None, ())}
    if "headers" in words:
        words["headers"] = _headers(words["headers"])
    if "auth" in words:
        words["auth"] = _auth(words["auth"])
    if "sign" in words:
        words["secret"] = words.pop("sign")
    return words


def _headers(pairs: Sequence[str]) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"--header {pair!r} has no value.", hint="Write --header X-Tenant=acme.")
        headers[name] = value
    return headers


def _auth(kind: str) -> Auth | None:
    from jobmanager.webhooks import ApiKey, Basic, Bearer, Header

    name, _, detail = kind.partition(":")
    match name, detail:
        case "none", "":
            return None
        case "bearer", "":
            return Bearer(_secret("Token"))
        case "basic", user if user:
            return Basic(user, _secret("Password"))
        case "api-key", header:
            return ApiKey(_secret("Key"), header=header or "X-Api-Key")
        case "header", header if header:
            return Header(header, _secret(f"Value of {header}"))
    raise UsageError(f"--auth {kind!r} is no kind.", hint=f"It is {_HOW}.")


def _secret(what: str) -> str:
    """Return the secret that the terminal is asked for, without an echo, or the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, err=True))
    secret = sys.stdin.readline().strip()
    if not secret:
        raise UsageError(
            f"{what}: standard input is empty.",
            hint='Pipe the secret: printf %s "$TOKEN" | jobmanager webhooks ...',
        )
    return secret


# ---------------------------------------------------------------- what is shown


def _found(here: Session, key: str) -> WebhookInfo:
    from jobmanager.errors import HandlerNotFoundError
    from jobmanager.registry import closest

    found = {info.key: info for info in here.ledger.webhooks()}
    if key not in found:
        raise HandlerNotFoundError(f"No webhook {key!r}.{closest(key, found)}")
    return found[key]


def _print(here: Session, info: WebhookInfo, what: str = "") -> None:
    secret = info.secret.get_secret_value() if info.secret else None
    if here.as_json:
        here.emit({**_record(info), **({"secret": secret} if secret else {})})
        return
    here.print(f"{info.key}: {what or info.source}, {printable(f'{info.method} {info.url}')}")
    for name, value in (
        ("auth", _auth_in_words(info)),
        ("signed", "yes, as Standard Webhooks" if info.signed else "no"),
        ("headers", ", ".join(f"{name}: {value}" for name, value in info.headers.items()) or "none"),
        ("timeout", f"{info.timeout:g} s"),
        ("expects", info.expect),
        ("changed", _changed(info) or "in code"),
        *([("off", f"{info.off}; any edit switches it on")] if info.off else []),
    ):
        here.print(f"  {name:<8} {printable(value)}")
    if secret:
        here.print("", "The signing secret, shown this once: give it to the receiver.")
        here.copyable(f"  {secret}")


def _auth_in_words(info: WebhookInfo) -> str:
    auth = info.auth or {"kind": "none"}
    kind = str(auth["kind"]).replace("_", "-")
    detail = auth.get("username") or auth.get("header")
    place = f" of {auth['env']}" if auth.get("env") else ""
    return printable(f"{kind}:{detail}{place}" if detail else f"{kind}{place}")


def _changed(info: WebhookInfo) -> str:
    return (
        ""
        if info.changed_at is None
        else f"{both(info.changed_at)} by {printable(info.changed_by or 'unnamed')}"
    )


def _record(info: WebhookInfo) -> dict[str, Any]:
    record = {name: value for name, value in asdict(info).items() if name != "secret"}
    return {**record, "changed_at": None if info.changed_at is None else iso(info.changed_at)}
