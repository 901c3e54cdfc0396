"""Set the application up: tables, rows where there are none, and the jobs. Twice is safe, and changes nothing.

python -m examples.saas.init        in saas.db, or the database that SAAS_DATABASE_URL names
"""

import random

from sqlalchemy import select

from jobmanager import JobManager

from . import data, seed
from .jobs import jobs, plant

SEED = 7


def init(manager: JobManager, amounts: seed.Amounts | None = None) -> list[str]:
    """Create and fill the database where it is empty, make the missing jobs, and return their ids."""
    fill(amounts or seed.Amounts())
    return plant(manager)


def fill(amounts: seed.Amounts) -> None:
    """Create the tables, and fill them if there are no users."""
    data.create()
    with data.transaction() as db:
        if db.scalar(select(data.users.c.id).limit(1)) is None:
            seed.populate(db, amounts, random.Random(SEED), data.now())


if __name__ == "__main__":
    made = init(jobs)
    print(
        f"{data.engine_of(data.url()).url!r} is filled; jobs made: {', '.join(made) or 'none, all are there'}."
    )
