"""The mails that the application writes, in English and German. Jobs put them into the outbox; process-pending-emails sends them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from . import data

TEXTS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "welcome": {
        "en": ("Welcome to Acme Boards", "Hello {name},\n\nyour first board is waiting for you.\n"),
        "de": ("Willkommen bei Acme Boards", "Hallo {name},\n\nIhr erstes Board wartet auf Sie.\n"),
    },
    "sign_in": {
        "en": ("New sign-in to your account", "Hello {name},\n\na new browser signed in to your account.\n"),
        "de": ("Neue Anmeldung", "Hallo {name},\n\nein neuer Browser hat sich bei Ihrem Konto angemeldet.\n"),
    },
    "licence_warning": {
        "en": ("Your licence ends in {days} day(s)", "Hello {name},\n\nyour licence ends on {end}.\n"),
        "de": ("Ihre Lizenz endet in {days} Tag(en)", "Hallo {name},\n\nIhre Lizenz endet am {end}.\n"),
    },
    "licence_expired": {
        "en": ("Your licence has ended", "Hello {name},\n\nyour licence ended on {end}.\n"),
        "de": ("Ihre Lizenz ist abgelaufen", "Hallo {name},\n\nIhre Lizenz ist am {end} abgelaufen.\n"),
    },
    "renewal_reminder": {
        "en": ("Your subscription renews soon", "Hello {name},\n\nyour subscription renews on {end}.\n"),
        "de": (
            "Ihr Abonnement wird bald verlängert",
            "Hallo {name},\n\nIhr Abonnement verlängert sich am {end}.\n",
        ),
    },
    "subscription_expired": {
        "en": ("Your subscription has ended", "Hello {name},\n\nyour subscription ended on {end}.\n"),
        "de": ("Ihr Abonnement ist beendet", "Hallo {name},\n\nIhr Abonnement endete am {end}.\n"),
    },
    "account_deleted": {
        "en": ("Your account is deleted", "Hello {name},\n\nyour data has been removed, as you asked.\n"),
        "de": ("Ihr Konto ist gelöscht", "Hallo {name},\n\nIhre Daten wurden wie gewünscht entfernt.\n"),
    },
    "llm_credits": {
        "en": ("[Alert] {provider}: credits {state}", "{provider} has {remaining} USD left.\n"),
        "de": ("[Alarm] {provider}: Guthaben {state}", "{provider} hat noch {remaining} USD.\n"),
    },
}


def text(kind: str, locale: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Return subject and body in the language of the locale, in English where there is no text in it."""
    texts = TEXTS[kind]
    subject, body = texts.get(locale.partition("-")[0].lower(), texts["en"])
    return subject.format(**values), body.format(**values)


def write(
    db: Connection, kind: str, recipient: str, *, key: str, locale: str, at: datetime, **values: Any
) -> bool:
    """Put a mail into the outbox, once for the key; False if it was there. It counts with the transaction around it."""
    subject, body = text(kind, locale, values)
    row = {"key": key, "recipient": recipient, "subject": subject, "body": body}
    return data.add_new(db, data.pending_emails, {**row, "next_attempt_at": at, "created_at": at})
