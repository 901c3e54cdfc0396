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


def test_an_asgi_server_that_is_told_to_leave_waits_for_no_handler_of_a_call() -> None:
    """Fails if a call that executes its run holds the interpreter for as long as the handler hangs: SIGKILL would end it."""
    program = (
        "import asyncio, base64, sys, threading, time\n"
        "import httpx\n"
        "from jobmanager import JobManager, Settings\n"
        "from jobmanager.web import asgi\n"
        "secret = base64.b64encode(bytes(range(32))).decode()\n"
        "words = dict(database_url='memory://', backend='external', secret=secret, auth='bearer', wait=True)\n"
        "jobs, begun = JobManager(Settings(**words)), threading.Event()\n"
        "def hangs():\n"
        "    begun.set()\n"
        "    time.sleep(600)\n"
        "jobs.add_job('hangs', hangs)\n"
        "jobs.trigger_job('hangs')\n"
        "async def main():\n"
        "    server = httpx.AsyncClient(transport=httpx.ASGITransport(asgi(jobs)), base_url='http://shop')\n"
        "    call = server.post('/jobs/work?limit=1', headers={'authorization': f'Bearer {secret}'}, timeout=600)\n"
        "    call = asyncio.ensure_future(call)\n"
        "    await asyncio.to_thread(begun.wait)\n"
        "    sys.exit(7)\n"
        "asyncio.run(main())\n"
    )
    left = subprocess.run([sys.executable, "-c", program], timeout=100, capture_output=True, check=False)
    assert left.returncode == 7, left.stderr.decode()
