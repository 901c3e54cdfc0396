"""Figures: the row of each day, and the cache behind the pages of the dashboard."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from examples.saas import data
from examples.saas.data import activities, analytics_cache, users
from sqlalchemy import delete, func, select

from jobmanager import Retry, RunContext

from .due import due

Figures = dict[str, Any]


def generate_analytics(context: RunContext, day: date | None = None) -> Figures:
    """Write the figures of `day`, by default the day before the run was due. Again is as good as once."""
    day = day or due(context).date() - timedelta(days=1)
    start = datetime.combine(day, time(), tzinfo=UTC)

    def within(column):
        return (column >= start) & (column < start + timedelta(days=1))

    paid = data.subscriptions
    counted = {
        "mrr_cents": select(func.sum(paid.c.cents)).where(paid.c.status == "active"),
        "new_users": select(func.count()).select_from(users).where(within(users.c.created_at)),
        "active_users": select(func.count(data.sessions.c.user_id.distinct())).where(
            within(data.sessions.c.created_at)
        ),
        "sessions": select(func.count()).select_from(data.sessions).where(within(data.sessions.c.created_at)),
        "ai_usage": select(func.sum(data.ai_requests.c.tokens)).where(within(data.ai_requests.c.created_at)),
        "errors": select(func.count())
        .select_from(data.error_logs)
        .where(within(data.error_logs.c.created_at)),
    }
    with data.transaction() as db:
        found = {name: int(db.scalar(statement) or 0) for name, statement in counted.items()}
        row = {"day": day.isoformat(), **found, "written_at": due(context)}
        data.put(db, data.daily_summaries, row, "day")
    return {"day": day.isoformat(), **found}


def analytics_user_growth(context: RunContext) -> Figures:
    """Count users, and those of the last week."""
    week = due(context) - timedelta(days=7)
    counted = select(func.count(), func.count().filter(users.c.created_at >= week)).select_from(users)
    return _keep(context, 600, lambda db: dict(zip(("users", "new"), db.execute(counted).one(), strict=True)))


def analytics_activity_trends(context: RunContext) -> Figures:
    """Count the activities of the last hour and of the hour before."""
    moment = due(context)
    hour, before = moment - timedelta(hours=1), moment - timedelta(hours=2)
    at = activities.c.created_at
    counted = select(
        func.count().filter((at >= hour) & (at < moment)), func.count().filter((at >= before) & (at < hour))
    ).select_from(activities)
    names = ("hour", "hour_before")
    return _keep(context, 300, lambda db: dict(zip(names, db.execute(counted).one(), strict=True)))


def analytics_top_items(context: RunContext, count: int = 5) -> Figures:
    """Rank the items by the activities of the last day."""
    day = due(context) - timedelta(days=1)
    times = func.count()
    ranked = select(activities.c.item, times).where(
        activities.c.created_at >= day, activities.c.created_at < due(context)
    )
    statement = ranked.group_by(activities.c.item).order_by(times.desc(), activities.c.item).limit(count)
    return _keep(context, 900, lambda db: {row.item: row[1] for row in db.execute(statement)})


def analytics_recent_activity(context: RunContext, count: int = 10) -> Figures:
    """Keep the newest activities."""
    newest = select(activities).where(activities.c.created_at < due(context))
    statement = newest.order_by(activities.c.created_at.desc(), activities.c.id).limit(count)
    return _keep(
        context, 120, lambda db: {"newest": [f"{row.user_id}: {row.item}" for row in db.execute(statement)]}
    )


def analytics_performance_metrics(context: RunContext) -> Figures:
    """Measure the requests of the last five minutes: how many, how long on average and at most."""
    moment = due(context)
    within = activities.c.created_at.between(moment - timedelta(minutes=5), moment)
    took = activities.c.milliseconds
    statement = select(func.count(), func.avg(took), func.max(took)).where(within)

    def measure(db) -> Figures:
        count, mean, most = db.execute(statement).one()
        return {"requests": count, "mean_ms": round(mean or 0, 1), "most_ms": round(most or 0, 1)}

    return _keep(context, 30, measure)


def analytics_cache_cleanup(context: RunContext) -> Figures:
    """Delete figures that nobody refreshed, and activities older than two days."""
    moment = due(context)
    with data.transaction() as db:
        stale = db.execute(delete(analytics_cache).where(analytics_cache.c.expires_at < moment)).rowcount
        old = activities.c.created_at < moment - timedelta(days=2)
        return {"stale": stale, "old_activities": db.execute(delete(activities).where(old)).rowcount}


def _keep(context: RunContext, seconds: int, compute: Callable[..., Figures]) -> Figures:
    """Compute figures and keep them in the cache for twice their interval."""
    moment = due(context)
    with data.transaction() as db:
        value = compute(db)
        row = {"name": context.job.id, "value": value, "computed_at": moment}
        data.put(db, analytics_cache, {**row, "expires_at": moment + timedelta(seconds=2 * seconds)}, "name")
    return value


JOBS: dict[str, dict[str, Any]] = {
    "generate-analytics": {
        "function": generate_analytics,
        "cron": "0 1 * * *",
        "retry": Retry(max_attempts=3),
        "timeout": 60,
    },
    "analytics-user-growth": {"function": analytics_user_growth, "every": 600, "timeout": 60},
    "analytics-activity-trends": {"function": analytics_activity_trends, "every": 300, "timeout": 60},
    "analytics-top-items": {"function": analytics_top_items, "every": 900, "timeout": 60},
    "analytics-recent-activity": {"function": analytics_recent_activity, "every": 120, "timeout": 30},
    "analytics-performance-metrics": {
        "function": analytics_performance_metrics,
        "every": 30,
        "timeout": 20,
    },
    "analytics-cache-cleanup": {"function": analytics_cache_cleanup, "every": 3_600, "timeout": 60},
}
