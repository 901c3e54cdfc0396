"""The methods of JobManager for webhooks: those that code declares, and those that operators make."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from jobmanager.access.principal import ADMIN, WRITE
from jobmanager.errors import (
    ConfigurationError,
    DuplicateJobError,
    EditConflictError,
    HandlerNotFoundError,
    WebhookError,
)
from jobmanager.job import check_id, make_job
from jobmanager.manager.guarding import changes, reads
from jobmanager.manager.parts import Parts
from jobmanager.registry import closest
from jobmanager.settings import Secret
from jobmanager.stores.webhooks import WebhookRow
from jobmanager.validation.call_arguments import check_arguments, may_be_id
from jobmanager.validation.texts import Located, calling_line, naming_its_caller, shown
from jobmanager.webhooks.auth import Auth
from jobmanager.webhooks.handler import WebhookHandler
from jobmanager.webhooks.probe import probe
from jobmanager.webhooks.stored import receiver_of, secrets_of, webhook_of
from jobmanager.webhooks.webhook import (
    ANY_SUCCESS,
    Expect,
    Webhook,
    WebhookInfo,
    WebhookTest,
    info_of,
    new_signing_secret,
)

WORDS = ("url", "method", "headers", "timeout", "expect", "auth", "secret")


class Hooking:
    """The methods for webhooks. Any thread may call them; those for stored webhooks install an empty store at first use.

    A webhook is a handler: any job may name its key. A stored one is there in every process of the namespace within a second.
    """

    _parts: Parts

    def webhook(
        self,
        key: str,
        url: str,
        *,
        method: str = "POST",
        auth: Auth | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
        expect: Expect = ANY_SUCCESS,
        secret: str | None = None,
        creatable: bool = True,
    ) -> Webhook:
        """Declare a webhook as a handler under a key, and as a job of that id without a schedule; return it.

        `expect` says which statuses mean that the work is done, `secret`, in the form of Standard Webhooks, signs the request, and with `creatable=False`
        only jobs that code declares may name the key. Repeating a declaration is safe; a different one raises DuplicateJobError,
        what cannot be meant ConfigurationError, and a process without the extra MissingExtraError.
        """
        with Located(f"Webhook {shown(key)}"):
            webhook = Webhook(
                key=key,
                url=url,
                method=method,
                auth=auth,
                headers=headers or {},
                timeout=timeout,
                expect=expect,
                secret=None if secret is None else Secret(secret),
            )
            self._parts.webhooks.check(webhook)
            handler = self._parts.webhooks.handler_of(webhook)
            self._parts.registry.add_handler(key, handler, creatable=creatable, kind="webhook")
            job = make_job(key, key, {})
            self._parts.backend_class.check(job)
            self._parts.registry.add_job(job, declared_at=calling_line())
        return webhook

    @reads
    def webhooks(self) -> list[WebhookInfo]:
        """Return the webhooks of the code and the stored ones by key, without secrets. Reads the store, if there is one."""
        of_code = {
            key: info_of(handler.target.webhook, "code")
            for key, handler in self._parts.registry.handlers.items()
            if isinstance(handler.target, WebhookHandler) and not handler.stored
        }
        store = self._parts.store
        rows = store.webhooks.rows(self._parts.settings.namespace) if store.exists() else []
        stored = {row.key: _info(row) for row in rows if not row.deleted}
        hidden = self._parts.hidden_handlers()
        return [info for key, info in sorted({**stored, **of_code}.items()) if key not in hidden]

    @naming_its_caller
    @changes(ADMIN, "create", of="webhook")
    def create_webhook(self, key: str, *, url: str, by: str | None = None, **options: Any) -> WebhookInfo:
        """Make a webhook with the options of `webhook`, and return it; jobs may name it from now on, without a restart.

        `secret=True` makes a signing secret, which the returned value alone shows; a text is one of yours, and False is none. Left out,
        one is made if JOBMANAGER_ENCRYPTION_KEY is set. Raises DuplicateJobError for a key that is taken, and ConfigurationError for
        what cannot be meant, for a secret without that key, and for `env=`: the environment belongs to code.
        """
        with Located(f"Webhook {shown(key)}"):
            check_arguments(by=by)
            check_id(key)
            options.setdefault("secret", self._parts.webhooks.vault.has_key)
            made, fields = _fields({"url": url, **options})
            webhook = Webhook(key=key, **fields)
        self._parts.check_not_disabled(f"Nothing is made: webhook {key!r}")
        self._parts.ready()
        with Located(f"Webhook {key!r}"):
            row = self._webhook_row(webhook, rev=1, by=by)
        if self._is_of_code(key) or not self._put(None, row, "create", _secrets_in(fields)):
            raise DuplicateJobError(
                f"Webhook {key!r} cannot be made: a handler has that key already. Edit that one, or choose another key."
            )
        self._follow_webhooks()
        return replace(_info(row), secret=made)

    @naming_its_caller
    @changes(ADMIN, "edit", of="webhook")
    def update_webhook(self, key: str, *, by: str | None = None, **options: Any) -> WebhookInfo:
        """Edit a stored webhook, and return it: what is left out stays. Its next request is the new one, in every process within a second.

        One that was switched off by 410 Gone sends again from then on, whatever is edited.

        With a URL of another host, scheme or port, give `auth` again: a stored secret is sent to the receiver it was given for.
        Raises what `create_webhook` raises, HandlerNotFoundError for a key without a stored webhook, and EditConflictError if
        another edit came first.
        """
        with Located(f"Webhook {shown(key)}"):
            check_arguments(by=by)
            made, fields = _fields(options)
        self._parts.check_not_disabled(f"Nothing is changed: webhook {shown(key)}")
        self._parts.ready()
        before = self._stored(key)
        with Located(f"Webhook {key!r}"):
            row = self._webhook_row(self._edited(before, fields), rev=before.rev + 1, by=by)
        self._replace(before, row, "edit", _secrets_in(fields))
        return replace(_info(row), secret=made)

    @naming_its_caller
    @changes(ADMIN, "delete", of="webhook")
    def delete_webhook(self, key: str, *, by: str | None = None) -> None:
        """Delete a stored webhook and its secrets. A run that is being sent ends as it will.

        Raises HandlerNotFoundError for a key without one, and ConfigurationError while a job names it.
        """
        with Located(f"Webhook {shown(key)}"):
            check_arguments(by=by)
        self._parts.check_not_disabled(f"Nothing is deleted: webhook {shown(key)}")
        self._parts.ready()
        before = self._stored(key)
        if users := self._users(key):
            raise ConfigurationError(
                f"Webhook {key!r} is in use by job {', '.join(map(repr, users[:3]))}{', ...' if users[3:] else ''}. "
                "Edit or delete that first."
            )
        now = self._parts.store.now()
        gone = replace(
            before, words={}, secrets=None, deleted=True, rev=before.rev + 1, changed_at=now, changed_by=by
        )
        self._replace(before, gone, "delete")

    @naming_its_caller
    @changes(WRITE, "test", of="webhook")
    def test_webhook(self, key: str, *, by: str | None = None) -> WebhookTest:
        """Send a signed ping to the receiver, and return its status, its response, how long it took and what went wrong.

        No run is recorded; with `by` the ping is audited where there is a store. Blocks for at most the webhook's timeout. Raises HandlerNotFoundError for a key that is no webhook.
        """
        check_arguments(by=by)
        self._parts.check_not_disabled(f"Nothing is sent: webhook {shown(key)}")
        self._parts.read_changes()
        known = self._parts.registry.handlers.get(key) if may_be_id(key) else None
        if known is None or not isinstance(known.target, WebhookHandler):
            raise self._not_found(key)
        sent = probe(known.target, self._parts.clock.now())
        if self._parts.store.exists():
            self._parts.record("test", "webhook", key, by, {"status": sent.status, "error": sent.error})
        return sent

    @naming_its_caller
    @changes(ADMIN, "rotate")
    def rotate_webhooks(self, *, by: str | None = None) -> int:
        """Encrypt the secrets of every stored webhook with the newest key, and return of how many. Twice is safe.

        Afterwards the older keys may leave JOBMANAGER_ENCRYPTION_KEY. Raises WebhookRefusedError for one that no key fits, and
        ConfigurationError without a key.
        """
        with Located("rotate_webhooks"):
            check_arguments(by=by)
        self._parts.check_not_disabled("Nothing is encrypted anew")
        if not self._parts.webhooks.vault.has_key:
            raise ConfigurationError(
                "JOBMANAGER_ENCRYPTION_KEY is not set, so there is nothing to encrypt with."
            )
        store = self._parts.ready().store
        rows = [row for row in store.webhooks.rows(self._parts.settings.namespace) if row.secrets]
        for row in rows:
            try:
                secrets = self._parts.webhooks.vault.rotated(row.secrets or "")
            except WebhookError as error:
                error.args = (f"Webhook {row.key!r}: {error}",)
                raise
            anew = replace(row, secrets=secrets, rev=row.rev + 1, changed_at=store.now(), changed_by=by)
            self._replace(row, anew, "rotate")
        return len(rows)

    # ---------------------------------------------------------------- parts

    def _webhook_row(self, webhook: Webhook, *, rev: int, by: str | None) -> WebhookRow:
        """Return the row of a webhook, its secrets encrypted; whatever is wrong with it is raised."""
        self._parts.webhooks.check(webhook)
        if webhook.auth is not None and webhook.auth.env is not None:
            raise ConfigurationError(
                "auth=...(env=) belongs to code: who may make webhooks must not read this process's environment. Give the secret itself."
            )
        words, secrets = webhook.words(), secrets_of(webhook)
        vault = self._parts.webhooks.vault
        return WebhookRow(
            namespace=self._parts.settings.namespace,
            key=webhook.key,
            words=words,
            secrets=vault.encrypted(secrets, receiver_of(webhook.key, words)) if secrets else None,
            rev=rev,
            changed_at=self._parts.store.now(),
            changed_by=by,
        )

    def _edited(self, before: WebhookRow, fields: Mapping[str, Any]) -> Webhook:
        """Return the stored webhook with these fields changed; its secrets are decrypted only if one of them stays."""
        has = {"auth": before.words["auth"], "secret": before.words["signed"]}
        stays = [name for name, there in has.items() if there and name not in fields]
        whole = self._parts.webhooks.opened(before) if stays else webhook_of(before.key, before.words, {})
        edited = replace(whole, **fields)
        if "auth" in stays and edited.target.origin != whole.target.origin:
            raise ConfigurationError(
                f"the stored secret was given for {whole.target.origin} and is sent nowhere else. Give auth again with the new url."
            )
        return edited

    def _users(self, key: str) -> list[str]:
        """Return the ids of the jobs that name this handler, without those that are deleted or that no code declares any more."""
        namespace = self._parts.settings.namespace
        rows = [row for row in self._parts.store.jobs.rows() if row.namespace == namespace]
        there = (row for row in rows if row.open or (row.definition is not None and row.state != "deleted"))
        return [row.id for row in there if (row.definition or json.loads(row.declared)).get("handler") == key]

    def _stored(self, key: str) -> WebhookRow:
        namespace = self._parts.settings.namespace
        row = self._parts.store.webhooks.get(namespace, key) if may_be_id(key) else None
        if row is None:
            raise self._not_found(key)
        return row

    def _not_found(self, key: str) -> HandlerNotFoundError:
        keys = [info.key for info in self.webhooks()]
        told = (
            "is declared by code: change it there." if key in keys else f"is not there.{closest(key, keys)}"
        )
        return HandlerNotFoundError(f"Webhook {shown(key)} {told}")

    def _replace(self, before: WebhookRow, row: WebhookRow, action: str, given: Collection[str] = ()) -> None:
        if not self._put(before, row, action, given):
            raise EditConflictError(
                f"Webhook {row.key!r} was changed meanwhile. Nothing was written; look at it again.",
                job_id=row.key,
                rev=before.rev,
            )
        self._follow_webhooks()

    def _follow_webhooks(self) -> None:
        """Take over the change at once; other processes notice it within a second."""
        self._parts.assembly.follow_changes()
        self._parts.read_changes()

    def _is_of_code(self, key: str) -> bool:
        """Return whether code, here or in another living process, has a handler of this key."""
        known = self._parts.registry.handlers.get(key)
        if known is not None:
            return not known.stored
        store, namespace = self._parts.store, self._parts.settings.namespace
        was_stored = any(
            row.key == key for row in store.webhooks.rows(namespace)
        )  # then its key may still be announced
        return not was_stored and key in store.processes.handlers_of_living(namespace)

    def _put(
        self, before: WebhookRow | None, row: WebhookRow, action: str, given: Collection[str] = ()
    ) -> bool:
        """Write the row with its entry of the audit, which names the secrets that were given, and no secret."""
        old: Mapping[str, Any] = {} if before is None else before.words
        differs = sorted(name for name in {*old, *row.words} if old.get(name) != row.words.get(name))
        anew = {"given": list(given)} if given else {}
        entry = self._parts.assembly.auditor.entry(
            action,
            "webhook",
            row.key,
            at=row.changed_at,
            by=row.changed_by,
            before=None if before is None else {name: old.get(name) for name in differs},
            after={**{name: row.words.get(name) for name in differs}, **anew},
        )
        return self._parts.store.webhooks.put(row, entry)


def _secrets_in(fields: Mapping[str, Any]) -> list[str]:
    return [name for name in ("auth", "secret") if fields.get(name)]


def _fields(options: Mapping[str, Any]) -> tuple[Secret | None, dict[str, Any]]:
    """Return the fields of a webhook that the options give, and the signing secret if one is made by them."""
    for word in options:
        if word not in WORDS:
            raise ConfigurationError(
                f"{word!r} is not an option.{closest(word, WORDS)} Known are {', '.join(WORDS)}."
            )
    fields = dict(options)
    given = fields.get("secret")
    if not isinstance(given, (str, bool, type(None))):
        raise ConfigurationError("secret is none of True, False and a text.")
    made = new_signing_secret() if given is True else None
    if "secret" in fields:
        fields["secret"] = made or (Secret(given) if isinstance(given, str) else None)
    return made, fields


def _info(row: WebhookRow) -> WebhookInfo:
    return info_of(
        webhook_of(row.key, row.words, {}),
        "stored",
        auth=row.words["auth"],
        signed=row.words["signed"],
        rev=row.rev,
        changed_at=row.changed_at,
        changed_by=row.changed_by,
        off=row.words.get("off"),
    )
