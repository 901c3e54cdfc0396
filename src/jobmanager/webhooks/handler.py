"""WebhookHandler: the handler that sends a run to its receiver, and makes of the response what the run becomes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from jobmanager.clock import Clock
from jobmanager.context import RunContext
from jobmanager.errors import WebhookBusyError, WebhookError, WebhookRefusedError
from jobmanager.ledger.redaction import Redactor
from jobmanager.observe import traceparent
from jobmanager.webhooks.addresses import Reachable
from jobmanager.webhooks.sender import WebhookResponse, send
from jobmanager.webhooks.webhook import WITHOUT_BODY, Webhook, signing_key

GONE = 410
LONGEST_RETRY_AFTER = timedelta(hours=1)
MOST_QUOTED = 500
TRY_AGAIN = frozenset({408, 409, 425, 429})
"""The statuses from 400 to 499 that another attempt may change."""

_SECONDS = re.compile(r"[0-9]{1,9}")


class WebhookHandler:
    """Sends each run as one request. Called on a worker thread, for at most the webhook's timeout.

    `opened` gives the webhook with its secrets at each call, so that none lies in memory for longer.
    """

    def __init__(
        self,
        webhook: Webhook,
        *,
        opened: Callable[[], Webhook],
        reachable: Reachable,
        clock: Clock,
        off: str | None = None,
        switch_off: Callable[[str], None] | None = None,
    ) -> None:
        self.off = off
        """Why nothing is sent; None where it is."""
        self._switch_off = switch_off
        self.webhook = webhook
        """The webhook as it may be shown."""
        self.opened = opened
        """Gives the webhook with its secrets."""
        self._reachable = reachable
        self._clock = clock
        self.__doc__ = f"Send the run to {webhook.target.origin} as {webhook.method}."

    def __eq__(self, other: object) -> bool:
        """Two are equal if they send the same request: declaring a webhook twice is safe."""
        return self.webhook == other.webhook if isinstance(other, WebhookHandler) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.webhook.key)

    def __call__(self, context: RunContext) -> Any:
        """Send the run; return the content of the response. Raises WebhookError and its kinds."""
        about = {
            "job": context.job.id,
            "run": context.run_id,
            "instant": None if context.scheduled_for is None else context.scheduled_for.isoformat(),
            "attempt": context.attempt,
            "config": dict(context.config),
            "payload": dict(context.payload),
        }
        return self.send_and_judge(about, key=context.idempotency_key)

    def send_and_judge(self, about: Mapping[str, Any], *, key: str) -> Any:
        """Send what `about` says of a run, and return the content of the response; raises WebhookError and its kinds.

        A receiver that says 410 Gone wants no request any more: a stored webhook is switched off by it, until it is edited.
        """
        if self.off is not None:
            raise WebhookRefusedError(
                f"Webhook {self.webhook.key!r} is switched off: {self.off}. `jobmanager webhooks edit {self.webhook.key} --url URL` "
                "switches it on."
            )
        webhook = self.opened()
        response = self.send(webhook, about, key=key)
        if response.status == GONE and not webhook.expects(GONE) and self._switch_off is not None:
            self._switch_off(f"{webhook.target.origin} answered 410 Gone")
        return judged(webhook, response, redactor_of(webhook), self._clock.now())

    def send(self, webhook: Webhook, about: Mapping[str, Any], *, key: str) -> WebhookResponse:
        """Send what `about` says of a run, signed; return the response. Errors hold none of the webhook's secrets."""
        body = b"" if webhook.method in WITHOUT_BODY else json.dumps(about).encode()
        headers = request_headers(webhook, about, body, key=key, now=self._clock.now())
        try:
            return send(webhook.target, webhook.method, headers, body, reachable=self._reachable, timeout=webhook.timeout)  # fmt: skip
        except WebhookError as error:
            error.args = (redactor_of(webhook).text(str(error)),)
            raise


def request_headers(
    webhook: Webhook, about: Mapping[str, Any], body: bytes, *, key: str, now: datetime
) -> dict[str, str]:
    """Return the headers of the request of one attempt."""
    run_id, attempt = str(about["run"]), str(about["attempt"])
    headers = {
        **webhook.headers,
        "Content-Type": "application/json",
        "Accept": "application/json, */*;q=0.1",
        "Accept-Encoding": "identity",
        "User-Agent": "jobmanager",
        "Connection": "close",
        "Webhook-Id": run_id,
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Idempotency-Key": quote(key, safe="!#$&'()*+,/:;=?@[]~"),
        "Jobmanager-Attempt": attempt,
        "traceparent": traceparent() or new_trace(run_id, attempt),
    }
    if webhook.secret is not None:
        headers["Webhook-Signature"] = signature(webhook, run_id, body, now)
    if webhook.auth is not None:
        headers[webhook.auth.header] = webhook.auth.value_of(webhook.auth.read())
    return headers


def signature(webhook: Webhook, run_id: str, body: bytes, now: datetime) -> str:
    """Return a signature of Standard Webhooks for each secret of the webhook, with blanks between."""
    from standardwebhooks import Webhook as Signer  # noqa: PLC0415 - of the extra `webhooks`

    return " ".join(
        Signer(signing_key(secret)).sign(run_id, now, body.decode()) for secret in webhook.signing_secrets
    )


def new_trace(run_id: str, attempt: str) -> str:
    """Return a traceparent for a process without tracing: one trace for each run, one span for each attempt."""
    trace = hashlib.sha256(run_id.encode()).hexdigest()[:32]
    span = hashlib.sha256(f"{run_id}:{attempt}".encode()).hexdigest()[:16]
    return f"00-{trace}-{span}-01"


def redactor_of(webhook: Webhook) -> Redactor:
    """Return what hides the secrets of this webhook: a receiver may send them back."""
    secrets = {*webhook.signing_secrets, *map(signing_key, webhook.signing_secrets)}
    if webhook.auth is not None:
        secret = webhook.auth.read()
        secrets |= {secret, webhook.auth.value_of(secret)}
    return Redactor(secrets)


def judged(webhook: Webhook, response: WebhookResponse, hide: Redactor, now: datetime) -> Any:
    """Return the response's body where the status is expected; raise what the run becomes where it is not."""
    if webhook.expects(response.status):
        return hide.value(content_of(response))
    status = response.status
    quoted = hide.text(response.body.decode("utf-8", "replace"))[:MOST_QUOTED]
    text = f"{webhook.target.origin} answered {status}" + (f": {quoted}" if quoted.strip() else ".")
    delay = retry_after(response.headers.get("retry-after"), now) if status in (429, 503) else None
    if delay is not None:
        raise WebhookBusyError(text, delay=delay, status=status)
    if 300 <= status < 400:
        raise WebhookRefusedError(f"{text} Redirects are not followed: give the final URL.", status=status)
    if status >= 500 or status in TRY_AGAIN:
        raise WebhookError(text, status=status)
    raise WebhookRefusedError(text, status=status)


def content_of(response: WebhookResponse) -> Any:
    """Return the body as JSON if it is JSON, else as text; None if there is none. Compressed ones are not unpacked."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return f"[{len(response.body):,} bytes of {encoding[:20]!r}, not unpacked]"
    text = response.body.decode("utf-8", "replace")
    if response.clipped:
        return f"{text} [clipped]"
    try:
        return json.loads(text, parse_constant=_refuse) if text.strip() else None
    except (ValueError, RecursionError):
        return text


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Return the delay that a Retry-After header asks for, as seconds or as a date, at most an hour; None for what is neither."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return min(timedelta(seconds=int(value)), LONGEST_RETRY_AFTER)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 10 ms that a process without webhooks need not spend

    try:
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(timedelta(0), min(moment - now, LONGEST_RETRY_AFTER))
    except (ValueError, OverflowError):
        return None


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
