"""The project of `examples/django` on PostgreSQL, by URL, CONN_MAX_AGE and whether Django checks connections: prints what became of it as one JSON object."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import django
from django.conf import settings

url = urlsplit(sys.argv[1])
sys.path.insert(0, str(Path.cwd()))

from bakery import settings as bakery  # noqa: E402

words = {name: getattr(bakery, name) for name in dir(bakery) if name.isupper()}
words["DATABASES"] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(url.path[1:]),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname or parse_qs(url.query).get("host", [""])[0],
        "PORT": str(url.port or parse_qs(url.query).get("port", [""])[0]),
        "CONN_MAX_AGE": {"none": None}.get(sys.argv[2], 60),
        "CONN_HEALTH_CHECKS": sys.argv[3] == "checks",
    }
}
words["JOBMANAGER"] = {"BACKEND": "local", "WORKERS": 10, "DRAIN_SECONDS": 1, "MIGRATE_WITH_DJANGO": True}
settings.configure(**words)
django.setup()

from bakery.orders.models import Order  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from jobmanager import Retry  # noqa: E402
from jobmanager.contrib.django import jobs  # noqa: E402

call_command("migrate", verbosity=0)
told: dict[str, object] = {}
seen: set[int] = set()
inside, goes_on = threading.Event(), threading.Event()


@jobs.job("look", overlap="allow")
def look() -> int:
    Order.objects.count()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        found = int(cursor.fetchone()[0])
    seen.add(found)
    return found


@jobs.job("stuck", retry=Retry(max_attempts=12, delays=[0]))  # ten threads whose connections were cut
def stuck() -> int:
    found = look()
    inside.set()
    goes_on.wait(60)
    return found


def backends(pids: list[int]) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [pids])
        return int(cursor.fetchone()[0])


jobs.start()

try:
    with transaction.atomic():
        order = Order.objects.create(customer="nobody")
        jobs.trigger_job("confirm-order", {"order": order.id}, atomic=True)
        raise ZeroDivisionError
except ZeroDivisionError:
    told["rolled back"] = [run.id for run in jobs.runs("confirm-order")]
with transaction.atomic():
    order = Order.objects.create(customer="ana")
    run_id = jobs.trigger_job("confirm-order", {"order": order.id}, atomic=True)
ended = jobs.wait(run_id, 30)
told["committed"] = [str(ended.status)]
told["found by id"] = ended.id == run_id and ended.output == "ana"

runs, cut = [], 0
for _ in range(10):
    started = [jobs.trigger_job("look") for _ in range(20)]
    runs += [jobs.wait(run.id, 30) for run in started]
    with connection.cursor() as cursor:  # between runs
        cursor.execute("SELECT count(pg_terminate_backend(pid)) FROM unnest(%s::int[]) AS pid", [list(seen)])
        cut += int(cursor.fetchone()[0])
    seen.clear()
told["runs"], told["cut"] = len(runs), cut
told["failed"] = sum(str(run.status) != "succeeded" for run in runs)

seen.clear()
lost = jobs.trigger_job("stuck")
inside.wait(30)
jobs.stop()  # the thread is let go
(stuck_pid,) = seen
goes_on.set()
deadline = time.monotonic() + 20
while (left := backends([pid for pid in seen if pid == stuck_pid])) and time.monotonic() < deadline:
    time.sleep(0.05)
told["connections left of abandoned threads"] = left
print(json.dumps(told))
