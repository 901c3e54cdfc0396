"""Every benchmark, one after another: `make bench`. Arguments are passed on; figures are kept in results/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from measure import RESULTS
from postgres import installed

HERE = Path(__file__).parent
SCRIPTS = (
    "recorder",
    "runs",
    "rollup",
    "cpu",
    "burst",
    "trigger",
    "dashboard",
    "streams",
    "steps",
    "sleepers",
    "one_a_second",
    "many",
    "celery_backend",
    "pg_cron_backend",
    "imports",
    "fake_clock",
    "next_fire",
    "plans",
)
# Once more; burst and trigger have both stores in one run.
ON_POSTGRES = ("recorder", "runs", "steps", "sleepers")


def main() -> None:
    for script in SCRIPTS:
        subprocess.run([sys.executable, HERE / f"{script}.py", *sys.argv[1:]], check=True)
        if script in ON_POSTGRES and installed():
            words = [sys.executable, HERE / f"{script}.py", "--store", "postgres", *sys.argv[1:]]
            subprocess.run(words, check=True)
    bars = [
        (told["name"], bar)
        for told in (json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json")))
        for bar in told["bars"]
        if bar["met"] is not None
    ]
    missed = [
        f"  {name}: {bar['name']}: {bar['value']:.3g} {bar['unit']}" for name, bar in bars if not bar["met"]
    ]
    print(
        f"\n{len(bars) - len(missed)} of {len(bars)} bars met"
        + "".join(f"\n{line}" for line in ["; missed:", *missed] if missed)
    )


if __name__ == "__main__":
    main()
