"""What importing costs: milliseconds and memory of a fresh process, beside the standard library it needs; and the CLI's help."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial

from measure import Report, interleaved, options

PROBE = """
import sys, time
before = set(sys.modules)
begun = time.perf_counter()
{code}
elapsed = (time.perf_counter() - begun) * 1000
with open("/proc/self/status") as status:
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
loaded = [name for name in sys.modules if name not in before and name.partition(".")[0] in sys.stdlib_module_names]
import json
print(json.dumps([elapsed, memory, loaded]))
"""


def probe(code: str) -> tuple[float, float, list[str]]:
    words = [sys.executable, "-c", PROBE.format(code=code)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    elapsed, memory, loaded = json.loads(done.stdout)
    return elapsed, memory, loaded


def help_ms() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jobmanager", "--help"], capture_output=True, check=True)
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    chosen = options(__doc__)
    needed = probe("import jobmanager")[2]
    cases = {
        "bare Python": "pass",
        "the standard library that jobmanager needs": "\n".join(f"import {name}" for name in needed)
        or "pass",
        "import jobmanager": "import jobmanager",
        "from jobmanager import JobManager": "from jobmanager import JobManager",
        "APScheduler's BackgroundScheduler": "from apscheduler.schedulers.background import BackgroundScheduler",
    }
    memory: dict[str, list[float]] = {name: [] for name in cases}

    def timed(name: str) -> float:
        elapsed, resident, _ = probe(cases[name])
        memory[name].append(resident)
        return elapsed

    for code in cases.values():  # once for the byte code and the page cache
        probe(code)
    samples = interleaved(
        {
            **{name: partial(timed, name) for name in cases},
            "jobmanager --help, whole process": help_ms,
        },
        chosen.repeats if chosen.quick else max(chosen.repeats, 7),
    )
    report = Report("imports", "ms", quick=chosen.quick)
    report.samples(samples)
    for name, values in memory.items():
        report.figure(f"{name}: memory", values, unit="MiB")
    imported = report.figures["import jobmanager"]["median"]
    report.bar("import jobmanager", imported, unit="ms", most=60)
    report.bar(
        "import jobmanager", report.figures["import jobmanager: memory"]["median"], unit="MiB", most=16
    )
    report.finish()


if __name__ == "__main__":
    main()
