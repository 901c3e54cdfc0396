"""Checks of a pg_cron database for `jobmanager doctor`."""
