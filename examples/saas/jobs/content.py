"""Content that lives in a repository of the Git host."""

from typing import Any

from examples.saas import data, services
from examples.saas.data import articles, facts
from sqlalchemy import select

from jobmanager import Retry, RunContext

HEAD = "content_head"


def repository_sync(context: RunContext) -> dict[str, Any]:
    """Bring the articles to the newest commit; where that is known already, nothing is asked for."""
    commit = services.newest_commit()
    with data.transaction() as db:
        if db.scalar(select(facts.c.value).where(facts.c.name == HEAD)) == commit:
            return {"changed": 0, "removed": 0}
    found = {article["path"]: article for article in services.articles(commit)}
    with data.transaction() as db:
        known = {row.path: row.sha for row in db.execute(select(articles))}
        changed = [article for path, article in found.items() if known.get(path) != article["sha"]]
        for article in context.track(changed):
            data.put(db, articles, article, "path")
        removed = known.keys() - found.keys()
        db.execute(articles.delete().where(articles.c.path.in_(removed)))
        data.put(db, facts, {"name": HEAD, "value": commit}, "name")
    return {"changed": len(changed), "removed": len(removed)}


JOBS: dict[str, dict[str, Any]] = {
    "repository-sync": {
        "function": repository_sync,
        "cron": "*/5 * * * *",
        "retry": Retry(max_attempts=2, base=20),
        "timeout": 120,
    }
}
