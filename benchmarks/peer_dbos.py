"""DBOS as a peer, in a process of its own: `python peer_dbos.py URL IN_FLIGHT SECONDS` prints the steps in a second.

Each workflow has a thread and runs one step after the other, as the flows of `steps.py` do; the called function does nothing. Before the first
is measured each has begun. `DBOS_PYTHON` names the Python of an environment that has `dbos`, if this one has not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time

from measure import answer

PYTHON = os.environ.get("DBOS_PYTHON", sys.executable)


def installed() -> bool:
    """True if it can be measured: `pip install dbos`, here or in the environment of DBOS_PYTHON."""
    return "DBOS_PYTHON" in os.environ or importlib.util.find_spec("dbos") is not None


def steps(url: str, in_flight: int, seconds: float) -> float:
    """Steps a second."""
    words = [PYTHON, __file__, url, str(in_flight), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        rate: float = answer(process)
    return rate


def work(url: str, in_flight: int, seconds: float) -> float:
    from dbos import DBOS

    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "CRITICAL"})
    ready = threading.Barrier(in_flight + 1)

    @DBOS.step()
    def one() -> int:
        return 0

    @DBOS.workflow()
    def flow() -> int:
        one()
        ready.wait(60)
        deadline, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < deadline:
            one()
            count += 1
        counts.append(count)
        return count

    counts: list[int] = []
    DBOS.launch()
    threads = [threading.Thread(target=flow, daemon=True) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    ready.wait(60)
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    rate = sum(counts) / (time.perf_counter() - began)
    assert len(counts) == in_flight, "a workflow failed"
    return rate


if __name__ == "__main__":
    print(json.dumps(work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))), flush=True)
    os._exit(0)  # its threads would go on polling
