"""The tutorial, done as a newcomer does it: each command as written, in an empty folder, with what it prints below it.

Only three things are put in place of what is written: ids are those of the output before, Redis and the dashboard have
ports of their own, and `pip install` is not run, as the package under test is there.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from tests.docs.test_docs import DOCS, Block, blocks_of, write_files
from tests.servers import free_port
from tests.waiting import until

PAGE = DOCS / "tutorial.md"
ID = re.compile(r"\b[0-9a-f]{8}\b")
UNTIL_CTRL_C = "# until Ctrl-C"


def pattern_of(wanted: str) -> re.Pattern[str]:
    """Return the expression that an output of the page stands for: dots are anything, ids are groups by their text."""
    pieces = [re.escape(" ".join(piece.split())).replace(r"\ ", r"\s+") for piece in wanted.split("...")]
    text = r"\s*.*?\s*".join(pieces)
    text = re.sub(r"\bago\b", "(?:ago|now)", text)  # on a quick machine
    for found in dict.fromkeys(ID.findall(text)):
        text = text.replace(found, f"(?P<_{found}>[0-9a-f]{{8}})", 1)
    return re.compile(text, re.DOTALL | re.IGNORECASE)


@dataclass
class Terminal:
    """A shell in a folder, with what its user exported and the ids that were seen."""

    folder: Path
    env: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)
    address: str = ""

    def do(self, block: Block, wanted: str) -> None:
        """Type the lines of a block, and end what runs until Ctrl-C when all that is wanted was printed."""
        screen = self.folder / f"screen-{block.line}"
        living = []
        with screen.open("wb") as out:
            for line in block.text.splitlines():
                started = self.typed(line, out)
                if started and UNTIL_CTRL_C in line:
                    living.append(started)
                elif started:
                    assert started.wait(60) == 0, screen.read_text("utf-8")
            try:
                found = self.shown(screen, wanted, wait=bool(living))
                if self.address:
                    assert httpx.get(self.address).status_code == 200
            finally:
                for process in living:
                    os.killpg(process.pid, signal.SIGINT)
                for process in living:
                    process.wait(30)
                self.address = ""
        self.ids |= {name[1:]: value for name, value in found.groupdict().items()}

    def typed(self, line: str, out) -> subprocess.Popen[bytes] | None:
        words = shlex.split(line, comments=True)
        if not words or words[0] == "pip":
            return None
        if words[0] == "export":
            self.env |= dict(word.split("=", 1) for word in words[1:])
            self.env |= {"JOBMANAGER_CELERY_BROKER_URL": self.env["TEST_REDIS"]}
            return None
        if words[0] == "unset":
            for word in words[1:]:
                del self.env[word]
            return None
        for written, seen in self.ids.items():
            line = line.replace(written, seen)
        if "dashboard" in words:
            port = free_port()
            self.address = f"http://127.0.0.1:{port}/"
            line = line.replace("dashboard", f"dashboard --port {port}")
        return subprocess.Popen(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env=self.env,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def shown(self, screen: Path, wanted: str, *, wait: bool) -> re.Match[str]:
        if self.address:
            wanted = re.sub(r"http://127\.0\.0\.1:\d+/", self.address, wanted)
        pattern = pattern_of(wanted)
        try:
            return until(lambda: pattern.search(screen.read_text("utf-8")), within=40 if wait else 1)
        except Exception as problem:
            raise AssertionError(
                f"wanted\n{wanted}\nbut there came\n{screen.read_text('utf-8')}"
            ) from problem


@pytest.mark.slow
@pytest.mark.servers
def test_every_command_does_what_the_tutorial_shows(tmp_path, redis_url):
    write_files(PAGE, tmp_path)
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBMANAGER_")}
    terminal = Terminal(
        tmp_path,
        {
            **kept,
            "PATH": binaries,
            "TEST_REDIS": redis_url,
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "120",
            "TZ": "UTC",
        },
    )

    for block, after in pairwise([*blocks_of(PAGE), Block(None, None, "", "", 0)]):
        if block.language == "sh":
            terminal.do(block, after.text if after.word == "output" else "")

    assert len(terminal.ids) == 2


def test_an_output_that_is_not_the_page_s_is_found():
    wanted = 'RUN  STATUS\ne3ed0a0e  ✓ succeeded  ... ago  {"rates": 31}\n'

    assert pattern_of(wanted).search('RUN   STATUS\n01234567  ✓ succeeded  4 s ago  {"rates": 31}')
    assert pattern_of(wanted).search('RUN   STATUS\n01234567  ✓ succeeded  now  {"rates": 31}')
    assert not pattern_of(wanted).search('RUN   STATUS\n01234567  ✗ failed  4 s ago  {"rates": 31}')
