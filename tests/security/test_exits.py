"""What handlers, payloads and callers write reaches a terminal, JSON and the log escaped, whichever verb shows it."""

from __future__ import annotations

import ast
import fcntl
import importlib
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from tests.forked import Forked, ran

from jobmanager.validation.printable import get_logger, printable, printable_json, printable_lines

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\u2028\x85\x7f\r\nFORGED 14:02:11 succeeded\x00"
STORED = EVIL.replace("\x00", "")
SHOWN = "evil"

APPLICATION = f"""
import logging, sys
from jobmanager import JobManager, Retry, RunContext

EVIL = {STORED!r}
jobs = JobManager()

@jobs.job("victim", name="N " + EVIL, cron="0 2 * * *", config={{"text": EVIL}}, retry=Retry(max_attempts=2, delays=[0], jitter=0))
def victim(context: RunContext, text: str = "") -> dict:
    context.progress(1, total=2, message=EVIL)
    context.log.warning("L " + EVIL)
    logging.getLogger("theirs").error("T " + EVIL)
    if context.attempt == 1:
        raise ValueError("E " + EVIL)
    return {{"k" + EVIL: ["v" + EVIL, "x" * 90]}}

@jobs.job("fails")
def fails() -> None:
    class Odd(Exception): pass
    Odd.__name__ = "O" + EVIL[:60]
    error = Odd("E " + EVIL)
    error.add_note("N " + EVIL)
    raise error
"""

VERBS = [
    "jobs list", "jobs show victim", "jobs next", "jobs next victim", "runs list", "runs list --job victim", "runs show {ok}", "runs show {failed}",
    "logs {ok}", "logs {failed}", "explain victim", "explain fails", "simulate --hours 30", "sync", "override victim", "dead list", "doctor",
    "healthcheck", "metrics", "export crontab --url https://shop.example", "jobs pause victim --reason {evil}", "jobs list", "jobs show victim",
    "explain victim", "runs show {evil}", "jobs show {evil}", "trigger {evil}", "trigger victim --payload {evil}", "runs list --status {evil}",
    "{evil}", "trigger fails --wait --scope {evil}", "runs list", "db check", "--app {evil} jobs list",
]  # fmt: skip
"""Every verb that shows what others wrote, in an order in which there is something to show."""


def raw(text: str) -> list[str]:
    """The characters of it that command a terminal, but for lines and tabs."""
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(APPLICATION, encoding="utf-8", errors="surrogatepass")
    ran = [
        run(folder, "--json", "trigger", job, "--wait", "--key", f"{job}{STORED}")
        for job in ("victim", "fails")
    ]
    ids = [json.loads(done.stdout)["id"] for done in ran]
    return folder, {"ok": ids[0], "failed": ids[1], "evil": STORED}


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "JOBMANAGER_APP": "shop",
        "PYTHONIOENCODING": "utf-8",
        "TERM": "xterm",
        "NO_COLOR": "1",
        "COLUMNS": "150",
    }


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return ran(["jobmanager", *words], folder=folder, env=environment())


def on_a_terminal(folder: Path, *words: str) -> str:
    """Everything that a terminal gets, standard error included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 150, 0, 0))
    name = os.ttyname(theirs)
    process = Forked(["jobmanager", *words], folder=folder, env=environment(), out=name, reads=name)
    read: list[bytes] = []
    reader = threading.Thread(target=_read_on, args=(ours, read))
    reader.start()
    process.wait()
    os.close(theirs)  # it was held open until the process had it: now the last byte is followed by the end
    reader.join(60)
    os.close(ours)
    return b"".join(read).decode("utf-8").replace("\r\n", "\n")


def _read_on(terminal: int, read: list[bytes]) -> None:
    with suppress(OSError):  # it has no other end any more
        while chunk := os.read(terminal, 65536):
            read.append(chunk)


def filled(verb: str, values: dict[str, str]) -> list[str]:
    return [word.format(**values) for word in verb.split()]


def assert_harmless(text: str) -> None:
    assert not raw(text), ascii(text)
    forged = [line for line in text.splitlines() if line.startswith("FORGED")]
    assert not forged, ascii(text)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_shows_it_raw(shop: tuple[Path, dict[str, str]], verb: str) -> None:
    folder, values = shop
    words = filled(verb, values)

    piped = run(folder, *words)
    assert_harmless(piped.stdout)
    assert_harmless(piped.stderr)

    documents = run(folder, "--json", *words)
    assert_harmless(documents.stdout)
    if documents.stdout.startswith(("{", "[")) and not verb.startswith("logs"):
        json.loads(documents.stdout)

    # What rich itself writes: styles, and the cursor of a live display.
    assert_harmless(re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b\[[0-9;]*m|\r", "", on_a_terminal(folder, *words)))


@pytest.mark.slow
def test_the_walk_meets_the_texts(shop: tuple[Path, dict[str, str]]) -> None:
    """Else it would prove nothing."""
    folder, values = shop
    for verb in (
        "jobs show victim",
        "runs show {ok}",
        "runs show {failed}",
        "logs {ok}",
        "jobs pause victim --reason {evil}",
    ):
        assert SHOWN in run(folder, *filled(verb, values)).stdout, verb
    record = json.loads(run(folder, "--json", "runs", "show", values["ok"]).stdout)
    assert record["output"] == {f"k{STORED}": [f"v{STORED}", "x" * 90]}
    assert record["idempotency_key"] == f"victim{STORED}"


# ---------------------------------------------------------------- the functions


@pytest.mark.parametrize("text", [EVIL, "\ud800", "\U000e0041", "\xad", "\u200b", "\ufeff"])
def test_what_is_not_seen_is_escaped(text: str) -> None:
    assert printable(text).isprintable()
    assert not raw(printable_lines(text))
    document = printable_json({text: [text]})
    assert not raw(document)
    assert json.loads(document) == {text: [text]}


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "gr\u00fc\u00dfe",
        "\u65e5\u672c\u3000\u8a9e",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f468\u200d\U0001f469",
        "a\\nb",
    ],
)
def test_what_is_seen_stays(text: str) -> None:
    assert printable(text) == text


# ---------------------------------------------------------------- log lines


class Hostile:
    def __str__(self) -> str:
        return EVIL

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("say %s", (EVIL,)),
        ("say %r", (Hostile(),)),
        ("say %s", (ValueError(EVIL),)),
        (EVIL, ()),
        (Hostile(), ()),
        ("say %(it)s", ({"it": EVIL},)),
        ("%d of %.1f %s", (3, 2.5, EVIL)),
    ],
)
def test_no_record_of_ours_says_it_raw(
    message: object, arguments: tuple[object, ...], caplog: pytest.LogCaptureFixture
) -> None:
    get_logger("jobmanager.exits").warning(message, *arguments)

    [line] = caplog.messages
    assert line.isprintable()
    assert SHOWN in line


def test_a_traceback_in_the_log_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        get_logger("jobmanager.exits").exception("failed")

    assert not raw(caplog.text)
    assert all(line.startswith("  ") for line in caplog.text.splitlines()[1:])


def test_every_logger_of_ours_escapes() -> None:
    """A module that asked logging itself would let texts through."""
    package = Path(__import__("jobmanager").__file__).parent
    own = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "logging.getLogger"
    }
    assert own <= {"validation/printable.py", "cli/output/waiting.py", "cli/commands/serve.py"}
    assert importlib.import_module("jobmanager.context")._logger.filters
