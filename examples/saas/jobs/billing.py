"""Payments: subscriptions at Stripe, licences, affiliates."""

import os
from datetime import datetime, timedelta
from typing import Any

from examples.saas import data, mails, services
from examples.saas.data import conversions, licences, subscriptions, users
from sqlalchemy import Connection, select, update

from jobmanager import Retry, RunContext

from .due import due, locale_for

WARNINGS = (7, 3, 1)
GRACE = timedelta(days=1)  # Stripe is asked every four hours: a renewal may be known late


def sync_stripe(context: RunContext) -> dict[str, int]:
    """Bring the local subscriptions to what Stripe says, those included whose webhook never came."""
    counts = {"seen": 0, "created": 0, "changed": 0}
    with data.transaction() as db:
        known = {row.stripe_id: row for row in db.execute(select(subscriptions))}
        owners = set(db.scalars(select(users.c.id)))
    for page in context.track(services.stripe_subscriptions()):
        counts["seen"] += len(page)
        with data.transaction() as db:
            for remote in page:
                local = known.get(remote["id"])
                values = {name: remote[name] for name in ("user_id", "status", "cents", "period_end")}
                # One without an owner belongs to an account that was deleted.
                if values["user_id"] in owners and (local is None or _differs(local, values)):
                    data.put(db, subscriptions, {"stripe_id": remote["id"], **values}, "stripe_id")
                    counts["created" if local is None else "changed"] += 1
    return counts


def _differs(local: Any, values: dict[str, Any]) -> bool:
    ended_here = local.status == "expired" and values["status"] != "active"
    return not ended_here and any(getattr(local, name) != value for name, value in values.items())


def check_license_expiration(context: RunContext) -> dict[str, int]:
    """Mark ended licences, and warn their owners 7, 3 and 1 days before; each warning is written once, late runs write the last one."""
    moment = due(context)
    counts = {"warned": 0, "expired": 0}
    joined = select(licences, users.c.name, users.c.email, users.c.locale).join(users)
    soon = licences.c.expires_at <= moment + timedelta(days=max(WARNINGS))
    with data.transaction() as db:
        for licence in db.execute(joined.where(licences.c.status == "active", soon)).all():
            left = licence.expires_at - moment
            if left <= timedelta(0):
                counts["expired"] += _change(db, licence, status="expired")
                _write(context, db, "licence_expired", licence, moment, f"licence-{licence.id}-ended")
                continue
            days = min(days for days in WARNINGS if left <= timedelta(days=days))
            if licence.warned_days is None or licence.warned_days > days:
                counts["warned"] += _change(db, licence, warned_days=days)
                _write(context, db, "licence_warning", licence, moment, f"licence-{licence.id}-{days}", days)
    return counts


def _change(db: Connection, licence: Any, **values: Any) -> int:
    return db.execute(update(licences).where(licences.c.id == licence.id).values(**values)).rowcount


def _write(
    context: RunContext, db: Connection, kind: str, row: Any, at: datetime, key: str, days: int = 0
) -> None:
    end = row.expires_at.date()
    locale = locale_for(context, row.locale)
    mails.write(
        db,
        kind,
        row.email,
        key=f"{key}-{end}",
        locale=locale,
        at=at,
        name=row.name,
        days=days,
        end=end,
    )


def subscription_renewal_reminder(context: RunContext, days: int = 7) -> dict[str, int]:
    """Remind of subscriptions whose period ends within `days` days, once for each period."""
    moment = due(context)
    within = subscriptions.c.period_end.between(moment, moment + timedelta(days=days))
    fresh = subscriptions.c.reminded_for.is_distinct_from(subscriptions.c.period_end)
    with data.transaction() as db:
        marked = {"reminded_for": subscriptions.c.period_end}
        claimed = data.claim(
            db, subscriptions, (subscriptions.c.status == "active") & within & fresh, marked, 1_000
        )
        for row in claimed:
            _write_for_period(context, db, "renewal_reminder", row, moment)
    return {"reminded": len(claimed)}


def subscription_expired_cleanup(context: RunContext) -> dict[str, int]:
    """Expire subscriptions whose period ended and was not renewed, and tell their owners."""
    moment = due(context)
    over = subscriptions.c.period_end < moment - GRACE
    with data.transaction() as db:
        claimed = data.claim(
            db, subscriptions, (subscriptions.c.status != "expired") & over, {"status": "expired"}, 1_000
        )
        for row in claimed:
            _write_for_period(context, db, "subscription_expired", row, moment)
    return {"expired": len(claimed)}


def _write_for_period(context: RunContext, db: Connection, kind: str, row: Any, at: datetime) -> None:
    owner = db.execute(select(users).where(users.c.id == row.user_id)).one()
    end = row.period_end.date()
    locale = locale_for(context, owner.locale)
    key = f"{kind}-{row.stripe_id}-{end}"
    mails.write(db, kind, owner.email, key=key, locale=locale, at=at, name=owner.name, end=end)


def approve_mature_affiliate_conversions(context: RunContext, hold_days: int = 30) -> dict[str, int]:
    """Approve conversions that were pending for `hold_days` days."""
    mature = conversions.c.created_at <= due(context) - timedelta(days=hold_days)
    statement = update(conversions).where(conversions.c.status == "pending", mature)
    with data.transaction() as db:
        return {"approved": db.execute(statement.values(status="approved")).rowcount}


def sells_licences() -> bool:
    """Return whether the billing model has licences."""
    return os.environ.get("SAAS_BILLING_MODEL", "hybrid") in ("license", "hybrid")


JOBS: dict[str, dict[str, Any]] = {
    "sync-stripe": {
        "function": sync_stripe,
        "cron": "0 */4 * * *",
        "retry": Retry(max_attempts=4, base=60),
        "timeout": 300,
    },
    "check-license-expiration": {
        "function": check_license_expiration,
        "cron": "0 8 * * *",
        "enabled_when": sells_licences,
        "retry": Retry(max_attempts=3),
        "timeout": 300,
    },
    "approve-mature-affiliate-conversions": {
        "function": approve_mature_affiliate_conversions,
        "cron": "0 4 * * *",
        "config": {"hold_days": 30},
        "enabled_when": "AFFILIATES_ENABLED",
        "timeout": 60,
    },
    "subscription-renewal-reminder": {
        "function": subscription_renewal_reminder,
        "cron": "0 9 * * *",
        "config": {"days": 7},
        "retry": Retry(max_attempts=3),
        "timeout": 120,
    },
    "subscription-expired-cleanup": {
        "function": subscription_expired_cleanup,
        "cron": "0 0 * * *",
        "retry": Retry(max_attempts=3),
        "timeout": 120,
    },
}
