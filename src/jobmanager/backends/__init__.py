"""Where backends are found: the built-in ones by name, everybody else's by entry point or dotted path."""

from __future__ import annotations

ENTRY_POINT_GROUP = "jobmanager.backends"

BUILT_IN = {
    "noop": "jobmanager.backends.noop:NoopBackend",
    "local": "jobmanager.backends.local:LocalBackend",
    "celery": "jobmanager.backends.celery:CeleryBackend",
    "pg_cron": "jobmanager.backends.pg_cron:PgCronBackend",
    "external": "jobmanager.backends.external:ExternalBackend",
    "trigger_dev": "jobmanager.backends.tickers.trigger_dev:TriggerDevBackend",
    "qstash": "jobmanager.backends.tickers.qstash:QStashBackend",
    "inngest": "jobmanager.backends.tickers.inngest:InngestBackend",
    "vercel": "jobmanager.backends.tickers.vercel:VercelBackend",
}

# The extra that brings what a built-in backend imports. The others need nothing but the core.
EXTRAS = {"celery": "celery", "pg_cron": "postgres", "trigger_dev": "tickers", "qstash": "tickers"}

# Those whose clock calls the endpoint: its URL and secret are theirs then, and say nothing of pg_cron.
CALLED = ("external", "trigger_dev", "qstash", "inngest", "vercel")

# Those whose outside system goes on by itself after another backend was chosen.
GO_ON = ("pg_cron", "trigger_dev", "qstash")
