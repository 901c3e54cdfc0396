"""The files of `export` for clocks that run code of ours or read a file at a deployment: Vercel, Trigger.dev, Cloud Scheduler, Cloudflare."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobmanager.backends.tickers.remote import Keys
from jobmanager.schedule.dialect import WEEKDAYS

if TYPE_CHECKING:
    from jobmanager.cli.commands.export_targets import ExternalJob

OF_VERCEL = Keys.of_project()
MOST_TRIGGERS = 5  # of a free account of Cloudflare
SCHEMA = "https://openapi.vercel.sh/vercel.json"


# --- Vercel


def vercel(entries: Sequence[ExternalJob]) -> dict[str, str]:
    """Return a vercel.json with Schedules, each in the zone of its job where no change of the clock touches it."""
    schedules = {
        OF_VERCEL.of_job(entry.job): {
            "schedule": entry.text,
            "timezone": entry.zone,
            "path": urlsplit(entry.url).path,
            "requestMethod": "GET",
        }
        for entry in entries
    }
    return _vercel_json({"schedules": schedules})


def vercel_crons(entries: Sequence[ExternalJob]) -> dict[str, str]:
    """Return a vercel.json with Cron Jobs, which Vercel calls legacy."""
    crons = [{"path": urlsplit(entry.url).path, "schedule": entry.text} for entry in entries]
    return _vercel_json({"crons": crons})


def _vercel_json(facts: dict[str, Any]) -> dict[str, str]:
    return {"vercel.json": json.dumps({"$schema": SCHEMA, **facts}, indent=2) + "\n"}


def merged(before: str, made: str) -> str | None:
    """Return a vercel.json with the entries of jobmanager renewed and all others kept; None if it cannot be read."""
    try:
        known, ours = json.loads(before), json.loads(made)
        any_path = next(iter([*ours.get("crons", ()), *ours.get("schedules", {}).values()]))["path"]
        path = str(any_path).rpartition("/")[0] + "/"
        crons = [one for one in known.get("crons", ()) if not str(one["path"]).startswith(path)]
        schedules = {
            name: one for name, one in known.get("schedules", {}).items() if not OF_VERCEL.is_ours(name)
        }
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None
    whole = {
        **known,
        "crons": crons + ours.get("crons", []),
        "schedules": {**schedules, **ours.get("schedules", {})},
    }
    kept = {name: value for name, value in whole.items() if value or name not in ("crons", "schedules")}
    return json.dumps(kept, indent=2) + "\n"


# --- Trigger.dev

TASK = """// Made by `jobmanager export trigger-dev`. Deploy it with `npx trigger.dev deploy`; jobmanager makes the schedules.
// JOBMANAGER_URL and JOBMANAGER_SECRET are environment variables of the Trigger.dev project.
import { schedules, wait } from "@trigger.dev/sdk";

export const jobmanagerTick = schedules.task({
  id: "jobmanager-tick",
  run: async (payload) => {
    // It is queued up to half a minute before its time.
    await wait.until({ date: payload.timestamp });
    const job = payload.externalId ? `/${payload.externalId}` : "";
    const base = (process.env.JOBMANAGER_URL ?? "%BASE%").replace(/\\/+$/, "");
    const answer = await fetch(`${base}${job}`, {
      method: "POST",
      redirect: "error",
      headers: { Authorization: `Bearer ${process.env.JOBMANAGER_SECRET}`, "Content-Type": "application/json" },
    });
    const text = await answer.text();
    if (!answer.ok) {
      // 425, 429 and 5xx ask to come again, and so do the task's own retries.
      throw new Error(`jobmanager answers ${answer.status}: ${text.slice(0, 300)}`);
    }
    return JSON.parse(text);
  },
});
"""


def trigger_dev(entries: Sequence[ExternalJob]) -> dict[str, str]:
    """Return the task that the schedules of the backend `trigger_dev` start."""
    base = entries[0].url.removesuffix(f"/{entries[0].job}")
    return {"jobmanager-tick.ts": TASK.replace("%BASE%", base)}


# --- Google Cloud Scheduler

SCRIPT = """#!/bin/bash
# Made by `jobmanager export gcloud`; make it again when a schedule changes, and once a year.
# Run it with LOCATION and JOBMANAGER_SECRET set: the token goes by a pipe, so that no list of processes shows it.
set -euo pipefail
: "${LOCATION:?the location of the jobs, such as europe-west1}" "${JOBMANAGER_SECRET:?}"
put() {
  local name=$1; shift
  gcloud scheduler jobs update http "$name" --location="$LOCATION" "$@" \\
    --flags-file <(printf -- '--update-headers:\\n  Authorization: "Bearer %s"\\n' "$JOBMANAGER_SECRET") 2>/dev/null ||
  gcloud scheduler jobs create http "$name" --location="$LOCATION" "$@" \\
    --flags-file <(printf -- '--headers:\\n  Authorization: "Bearer %s"\\n' "$JOBMANAGER_SECRET")
}
"""


def gcloud(entries: Sequence[ExternalJob]) -> dict[str, str]:
    """Return a script that makes one job of Cloud Scheduler for each, or brings it in step."""
    lines = []
    for entry in entries:
        lines += [
            f"# {entry.job}: {entry.schedule.describe()}",
            *(f"#   {remark}" for remark in entry.remarks),
        ]
        zone = "Etc/UTC" if entry.zone == "UTC" else entry.zone
        lines.append(
            f"put {_gcloud_name(entry.job)} --schedule='{entry.text}' --time-zone='{zone}' --uri='{entry.url}' --http-method=POST "
            f"--attempt-deadline={min(max(entry.patience, 15), 1800)}s --max-retry-attempts=3 --min-backoff=31s"
        )
    return {"jobmanager-gcloud.sh": SCRIPT + "\n".join(lines) + "\n"}


def _gcloud_name(job: str) -> str:
    plain = f"jobmanager-{job}"
    if re.fullmatch(r"[A-Za-z0-9_-]+", plain):
        return plain
    return f"{re.sub('[^A-Za-z0-9_-]', '-', plain)}-{sha256(job.encode()).hexdigest()[:8]}"


# --- Cloudflare

WORKER = """// Made by `jobmanager export cloudflare`; make it again when a schedule changes, and once a year.
const calls = %CALLS%;

export default {
  async scheduled(event, env) {
    const failed = [];
    for (const url of calls[event.cron] ?? []) {
      const answer = await fetch(url, {
        method: "POST",
        redirect: "manual",
        headers: { Authorization: `Bearer ${env.JOBMANAGER_SECRET}` },
      });
      if (!answer.ok) failed.push(`${url}: ${answer.status}`);
    }
    if (failed.length) throw new Error(failed.join(", "));
  },
};
"""


def cloudflare(entries: Sequence[ExternalJob]) -> dict[str, str]:
    """Return a Worker and its triggers: one for each text, or, of more than an account has, one that wakes all jobs each minute."""
    calls: dict[str, list[str]] = {}
    for entry in entries:
        calls.setdefault(weekdays_named(entry.text), []).append(entry.url)
    if len(calls) > MOST_TRIGGERS:
        calls = {"* * * * *": [entries[0].url.removesuffix(f"/{entries[0].job}")]}
    wrangler = [
        "# Made by `jobmanager export cloudflare`. The token: npx wrangler secret put JOBMANAGER_SECRET",
        'name = "jobmanager-ticks"',
        'main = "worker.js"',
        'compatibility_date = "2026-01-01"',
        "",
        "[triggers]",
        f"crons = {json.dumps(list(calls))}",
    ]
    return {
        "wrangler.toml": "\n".join(wrangler) + "\n",
        "worker.js": WORKER.replace("%CALLS%", json.dumps(calls, indent=2)),
    }


def weekdays_named(text: str) -> str:
    """Return five fields with weekdays by name: some clocks count from Sunday as 1."""
    *fields, weekday = text.split()
    named = weekday if weekday == "*" else ",".join(WEEKDAYS[int(day)].upper() for day in weekday.split(","))
    return " ".join([*fields, named])
