"""The end of a process that was told to leave."""

from __future__ import annotations

import subprocess
import sys


def test_a_process_that_is_told_to_leave_waits_for_no_call() -> None:
    """Fails with the threads of a ThreadPoolExecutor, which the interpreter joins: a store that hangs would hold it."""
    program = (
        "import asyncio, time\n"
        "from jobmanager.beside_loop import beside_loop\n"
        "async def main():\n"
        "    call = asyncio.ensure_future(beside_loop(time.sleep, 600))\n"
        "    await asyncio.sleep(0)\n"
        "    raise SystemExit(7)\n"
        "asyncio.run(main())\n"
    )
    left = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, check=False)
    assert left.returncode == 7
