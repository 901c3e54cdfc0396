"""Duties to people: deletions they asked for, and warnings before credits run out."""

import os
from datetime import timedelta
from typing import Any

from examples.saas import data, mails, services
from examples.saas.data import deletion_requests as requests
from examples.saas.data import push_subscriptions, subscriptions, users
from sqlalchemy import delete, or_, select, update

from jobmanager import Retry, RunContext

from .due import due, locale_for

CLAIM_HOLDS = timedelta(minutes=15)
OF_A_USER = (
    data.sessions,
    data.invitations,
    data.push_subscriptions,
    data.ai_requests,
    data.activities,
    data.conversions,
    data.licences,
    data.subscriptions,
)


def process_account_deletions(context: RunContext, days: int = 30, limit: int = 20) -> dict[str, int]:
    """Delete the accounts whose owners asked for it `days` days ago: first at Stripe, then here, with a mail at the end."""
    moment = due(context)
    ripe = (requests.c.status == "pending") & (requests.c.requested_at <= moment - timedelta(days=days))
    left = (requests.c.status == "processing") & (requests.c.claimed_at <= moment - CLAIM_HOLDS)
    mine = {"status": "processing", "claimed_at": moment}
    with data.transaction() as db:
        claimed = data.claim(db, requests, or_(ripe, left), mine, limit)
    done = 0
    try:
        for request in context.track(claimed, message="accounts"):
            _delete_account(context, request)
            done += 1
    finally:
        with data.transaction() as db:
            rest = requests.c.id.in_([request.id for request in claimed[done:]])
            db.execute(update(requests).where(rest).values(status="pending", claimed_at=None))
    return {"deleted": done}


def _delete_account(context: RunContext, request: Any) -> None:
    with data.transaction() as db:
        user = db.execute(select(users).where(users.c.id == request.user_id)).one_or_none()
        paid = db.scalars(
            select(subscriptions.c.stripe_id).where(subscriptions.c.user_id == request.user_id)
        ).all()
    for stripe_id in paid:
        services.cancel_at_stripe(stripe_id)  # twice is safe, so a later attempt may do it again
    with data.transaction() as db:
        for table in OF_A_USER:
            db.execute(delete(table).where(table.c.user_id == request.user_id))
        db.execute(delete(users).where(users.c.id == request.user_id))
        ended = requests.c.id == request.id
        db.execute(update(requests).where(ended).values(status="done", done_at=due(context)))
        if user is not None:
            locale = locale_for(context, user.locale)
            key, at = f"deleted-{request.user_id}", due(context)
            mails.write(db, "account_deleted", user.email, key=key, locale=locale, at=at, name=user.name)


def check_low_credits_alerts(context: RunContext) -> dict[str, int]:
    """Push a notification to accounts that fell below their threshold, once until they are above it again."""
    counts = {"alerted": 0, "pushed": 0, "gone": 0}
    low = users.c.credits < users.c.credit_threshold
    moment = due(context)
    with data.transaction() as db:
        db.execute(update(users).where(~low).values(credits_alerted_at=None))
        claimed = data.claim(
            db, users, low & users.c.credits_alerted_at.is_(None), {"credits_alerted_at": moment}, 500
        )
    for done, user in enumerate(claimed):
        try:
            for device in _devices(user.id):
                text = f"{user.credits} credits are left."
                reached = services.push(device.endpoint, text, f"credits-{user.id}-{moment:%Y%m%dT%H%M}")
                counts["pushed" if reached else "gone"] += 1
                if not reached:
                    _forget(device.id)
        except Exception:
            _unmark([user.id for user in claimed[done:]])
            raise
        counts["alerted"] += 1
    return counts


def _devices(user_id: int) -> list[Any]:
    with data.transaction() as db:
        mine = select(push_subscriptions).where(push_subscriptions.c.user_id == user_id)
        return list(db.execute(mine.order_by(push_subscriptions.c.id)))


def _forget(device: int) -> None:
    with data.transaction() as db:
        db.execute(delete(push_subscriptions).where(push_subscriptions.c.id == device))


def _unmark(ids: list[int]) -> None:
    with data.transaction() as db:
        db.execute(update(users).where(users.c.id.in_(ids)).values(credits_alerted_at=None))


def check_llm_credits(context: RunContext, providers: list[str], low: float = 10) -> dict[str, str]:
    """Mail the administrator when a provider of language models has fewer than `low` USD left, or none; once a day for each."""
    moment = due(context)
    admin = os.environ.get("SAAS_ADMIN_EMAIL", "admin@example.com")
    states = {}
    for provider in context.track(providers):
        left = services.llm_credits(provider)
        states[provider] = state = "exhausted" if left <= 0 else "low" if left < low else "fine"
        if state != "fine":
            key = f"llm-{provider}-{state}-{moment:%Y-%m-%d}"
            words = {"provider": provider, "state": state, "remaining": f"{left:.2f}"}
            with data.transaction() as db:
                locale = context.locale
                mails.write(db, "llm_credits", admin, key=key, locale=locale, at=moment, **words)
    return states


JOBS: dict[str, dict[str, Any]] = {
    "process-account-deletions": {
        "function": process_account_deletions,
        "cron": "*/30 * * * *",
        "config": {"days": 30},
        "retry": Retry(max_attempts=3, base=60),
        "timeout": 600,
    },
    "check-low-credits-alerts": {
        "function": check_low_credits_alerts,
        "cron": "0 */6 * * *",
        "retry": Retry(max_attempts=3, base=60),
        "timeout": 300,
    },
    "check-llm-credits": {
        "function": check_llm_credits,
        "cron": "0 9 * * *",
        "config": {"providers": ["openai", "anthropic", "google"], "low": 10},
        "retry": Retry(max_attempts=3, base=60),
        "timeout": 60,
    },
}
