"""`jobmanager export jobs`: the jobs that operators made, as the Python that declares them and as the commands that make them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobmanager.cli.session import Session
from jobmanager.present.phrases import Block

if TYPE_CHECKING:
    from jobmanager.stores.values import JobRow

HEADING = "# Jobs that operators made. Each line declares one; then the declaration holds, and `jobmanager jobs edit` overrides it."


def export_jobs(here: Session) -> None:
    """Print the stored jobs of the namespace; with --json each with its definition, which `seed` takes, and its command."""
    rows = _stored(here)
    if here.as_json:
        here.emit({"target": "jobs", "jobs": [_record(row) for row in rows]})
    elif rows:
        here.print(Block(program(rows)))
    else:
        here.print("Operators made no job in this namespace.")


def _stored(here: Session) -> list[JobRow]:
    if not here.ledger.store.exists():
        return []
    namespace = here.ledger.settings.namespace
    return [
        row
        for row in here.ledger.store.jobs.rows()
        if row.definition is not None and row.namespace == namespace and row.state != "deleted"
    ]


def program(rows: Sequence[JobRow]) -> str:
    """Return Python that declares these jobs with the manager `jobs`; it names their handlers by the same keys."""
    from jobmanager.bridge.brought import call
    from jobmanager.ledger.definition import words_of

    lines = []
    for row in rows:
        if row.definition is None:
            continue
        handler, words = words_of(row.definition)
        if row.state != "active":
            lines.append(f"# {row.state}: a declaration is active, until it is {row.state} again.")
        lines.append(call("jobs.add_job", (row.id, handler), words))
    text = "\n".join(lines)
    imports = [
        line
        for sign, line in (
            ("datetime.", "from datetime import datetime"),
            ("Retry(", "from jobmanager import Retry"),
        )
        if sign in text
    ]
    return "\n".join([HEADING, *imports, "", text])


def command(job_id: str, definition: Mapping[str, Any]) -> str:
    """Return the command that makes the job elsewhere."""
    words = [f"{word}={_argument(value)}" for word, value in definition.items() if word != "handler"]
    return shlex.join(["jobmanager", "jobs", "create", job_id, "--handler", definition["handler"], *words])


def _argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _record(row: JobRow) -> dict[str, Any]:
    definition = dict(row.definition or {})
    return {
        "id": row.id,
        "state": row.state,
        "definition": definition,
        "command": command(row.id, definition),
    }
