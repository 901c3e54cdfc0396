"""The lines of docs/howto/api.md, curl and JavaScript, as they stand there, against the application that the page shows."""

import doctest
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from tests.docs.test_docs import DOCS, blocks_of, write_files

PAGE = DOCS / "howto" / "api.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of the page's files, and the environment of its lines, while its application is served."""
    missing = [program for program in ("curl", "node") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {missing[0]} on this machine")
    folder = tmp_path_factory.mktemp("api")
    write_files(PAGE, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JOBMANAGER_")},
        "JOBMANAGER_DATABASE_URL": f"sqlite:///{folder}/jobs.db",
        "PYTHONPATH": str(folder),
        "API": f"http://127.0.0.1:{port}/ops/api/v1",
    }
    making = "import app; app.jobs.sync(); print(app.jobs.create_key('docs'))"
    made = subprocess.run(
        [sys.executable, "-c", making],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    environ["KEY"] = made.stdout.strip()
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning"],
        cwd=folder,
        env=environ,
    )
    transport = httpx.HTTPTransport(retries=100)
    with httpx.Client(transport=transport, headers={"authorization": f"Bearer {environ['KEY']}"}) as client:
        assert client.get(f"{environ['API']}/jobs", timeout=30).status_code == 200
    yield folder, environ
    server.terminate()
    assert server.wait(30) in (0, -signal.SIGTERM)


def commands_of(text):
    """Each command of a console block, with what it prints."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    for part in parts:
        lines = part.splitlines()
        command = [lines.pop(0)]
        while command[-1].endswith("\\"):
            command.append(lines.pop(0).removeprefix("> "))
        yield "\n".join(command), "\n".join(lines) + "\n"


def test_every_line_prints_what_the_page_says(place):
    folder, environ = place
    console = [block for block in blocks_of(PAGE) if block.language == "console" and block.word is None]
    assert len(console) > 8
    for block in console:
        for command, expected in commands_of(block.text):
            ended = subprocess.run(
                ["bash", "-euc", command],
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            said = f"{ended.stdout}\n".replace("\n\n", "\n")
            told = f"{PAGE.name}:{block.line}: {command}\nsays {said}\nand on the page stands {expected}"
            assert ended.returncode == 0, told + ended.stderr
            assert doctest.OutputChecker().check_output(expected, said, FLAGS), told


def test_every_status_of_the_page_is_one_that_a_route_may_have():
    from jobmanager.web.api.routing import WORDS

    told = re.findall(r"^\| ([\d, ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(status) for row in told for status in row.split(", ")} < {*WORDS}
