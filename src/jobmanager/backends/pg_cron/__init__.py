"""The database keeps the time: pg_cron announces what is due and calls the application, which decides and executes."""

from jobmanager.backends.pg_cron.backend import PgCronBackend

__all__ = ["PgCronBackend"]
