"""The Celery backend: beats bring ticks, workers execute. Any number of both; a message carries the run's id and nothing else.

`backend.py` is the backend itself, `beat.py` the scheduler for `celery beat`, `worker.py` what happens in a worker,
`publisher.py` sends the messages, `application.py` makes the Celery application where the user brings none.
"""

from jobmanager.backends.celery.backend import CeleryBackend
from jobmanager.backends.celery.beat import Scheduler

__all__ = ["CeleryBackend", "Scheduler"]
