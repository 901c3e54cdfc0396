"""The pages are true: their Python runs, their tables are the classes', their commands, log lines and links exist.

A fenced block runs unless a comment above it says otherwise:

    <!-- illustrative: why it cannot run here -->     it is only compiled
    <!-- file: app.py -->                             it is written to the working directory first
    <!-- output -->                                   a text block: what the block before prints, ... standing for anything

The `python` and `pycon` blocks of a page are one program, from top to bottom. An output below an `sh` block is of a
terminal: tests/docs/test_tutorial.py types the tutorial's commands and looks at them.
"""

import ast
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest

from jobmanager.cli.app import app, hoisted
from jobmanager.cli.verbs import Verb

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
TEXTS = [*PAGES, *sorted(set(ROOT.glob("[A-Z]*.md")) - {*PAGES}), ROOT / "src" / "jobmanager" / "README.md"]

FENCE = re.compile(
    r"(?:<!-- (?P<word>[a-z]+)(?:: (?P<told>[^\n]+?))? -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)

RUN_PAGE = """
import contextlib, doctest, io, json, sys
page, blocks = json.load(sys.stdin)
names = {"__name__": "page"}
said = ""
flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
for kind, line, text in blocks:
    if kind == "output":
        assert doctest.OutputChecker().check_output(text, said, flags), f"{page}:{line} wants\\n{text}\\nbut there came\\n{said}"
    elif kind == "pycon":
        test = doctest.DocTestParser().get_doctest(text, names, page, page, line)
        assert not doctest.DocTestRunner(optionflags=flags, verbose=False).run(test, clear_globs=False).failed
        names.update(test.globs)
    else:
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            exec(compile("\\n" * line + text, page, "exec"), names)
        said = heard.getvalue()
"""


@dataclass(frozen=True)
class Block:
    word: str | None
    told: str | None
    language: str
    text: str
    line: int


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            found["word"],
            found["told"],
            found["language"],
            found["text"],
            text.count("\n", 0, found.start("text")),
        )
        for found in FENCE.finditer(text)
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": "utf-8"}


def told_files(path: Path) -> list[str]:
    return [block.told for block in blocks_of(path) if block.word == "file"]


def write_files(path: Path, folder: Path) -> None:
    for block in blocks_of(path):
        if block.word == "file":
            (folder / block.told).write_text(block.text, encoding="utf-8")


def commands_of(path: Path) -> list[list[str]]:
    """The command lines of a page's shell blocks, without prompts, comments, variables and what follows a pipe."""
    commands = []
    for block in blocks_of(path):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    commands.append(words)
    return commands


@pytest.mark.slow
class TestPython:
    @pytest.mark.parametrize("path", PAGES, ids=name_of)
    def test_every_block_of_a_page_runs(self, path, tmp_path):
        known = {"python", "pycon"}
        parts = [
            (block.word if block.word == "output" else block.language, block.line, block.text)
            for before, block in pairwise([None, *blocks_of(path)])
            if (block.word == "output" and before.language != "sh")
            or (block.language in known and block.word is None)
        ]
        if not parts:
            return  # no process is needed to run nothing
        write_files(path, tmp_path)

        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN_PAGE],
            input=json.dumps([name_of(path), parts]),
            cwd=tmp_path,
            env={**environment(), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert ended.returncode == 0, ended.stdout + ended.stderr

    @pytest.mark.parametrize("path", PAGES, ids=name_of)
    def test_what_is_only_illustrative_says_why_and_is_python(self, path):
        for block in blocks_of(path):
            if block.word == "illustrative":
                assert block.told, f"{name_of(path)}:{block.line} does not say why it cannot run"
                if block.language == "python":
                    ast.parse(block.text, f"{name_of(path)}:{block.line}")

    @pytest.mark.parametrize(
        "path", [path for path in PAGES if "test_" in str(told_files(path))], ids=name_of
    )
    def test_tests_shown_on_a_page_pass(self, path, tmp_path):
        write_files(path, tmp_path)

        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert ended.returncode == 0, ended.stdout + ended.stderr

    def test_every_directive_is_known(self):
        words = {block.word for path in PAGES for block in blocks_of(path)}

        assert words <= {None, "illustrative", "file", "output"}

    def test_the_readme_s_program_keeps_time_until_it_is_asked_to_end(self, tmp_path):
        write_files(ROOT / "README.md", tmp_path)

        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
        )
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "succeeded job=" in line:
                process.send_signal(signal.SIGTERM)
                break
        _, rest = process.communicate(timeout=15)

        assert process.returncode == 0, [*lines, rest]
        assert 'backend=local reason="JOBMANAGER_BACKEND unset"' in lines[0]

    def test_the_readme_s_program_is_about_ten_lines(self):
        (program,) = (block for block in blocks_of(ROOT / "README.md") if block.word == "file")

        assert len([line for line in program.text.splitlines() if line.strip()]) <= 12


class TestTables:
    def test_are_what_the_classes_say(self):
        found = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
        tables = importlib.util.module_from_spec(found)
        found.loader.exec_module(tables)

        for page in sorted({page for _, pages in tables.TABLES.values() for page in pages}):
            text = (ROOT / page).read_text(encoding="utf-8")
            assert text == tables.written(page, text), f"{page}: run python docs/make_tables.py"


class TestLinks:
    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_lead_somewhere(self, path):
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            page = (path.parent / file).resolve() if file else path
            assert page.exists(), f"{name_of(path)}: {target}"
            if anchor:
                assert anchor in anchors_of(page), f"{name_of(path)}: {target}"

    def test_every_page_can_be_found_from_the_index(self):
        pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES if DOCS in path.parents}
        tree = (DOCS / "index.md").read_text(encoding="utf-8")
        named = set(re.findall(r"^([a-z0-9/_-]+)$", tree, re.MULTILINE))
        globbed = {
            page
            for page in pages
            for pattern in re.findall(r"^([a-z0-9/_-]+)/\*$", tree, re.MULTILINE)
            if page.startswith(f"{pattern}/")
        }

        assert pages - {"index"} == (named | globbed) & pages


class TestShell:
    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_every_command_exists(self, path):
        for words in commands_of(path):
            check = CHECKS.get(words[0])
            if check is not None:
                check(words[1:])


class TestTroubleshooting:
    @pytest.mark.parametrize("name", ["troubleshooting.md", "celery.md", "pg-cron.md"])
    def test_quotes_what_the_code_says(self, name):
        page = (DOCS / "howto" / name).read_text(encoding="utf-8")
        literals = "\n".join(said_by_the_code())

        for quoted in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE):
            for piece in re.split(r"…|^failed", quoted):  # the status is filled in too
                assert len(piece.strip()) < 4 or piece.strip() in literals, f"nothing says {piece.strip()!r}"


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST spell them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = (re.sub(r"[`*]", "", heading).strip().lower() for _, heading in HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@cache
def said_by_the_code() -> list[str]:
    """Every text in the source, as it reads when its places are filled with anything."""
    trees = (
        ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "src" / "jobmanager").rglob("*.py")
    )
    return [
        re.sub(r"%[sdr]|%\.\d+f", "…", node.value)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def command_line(words: list[str]) -> None:
    """A call of `jobmanager`: its verb exists and takes these options."""
    command: click.Command = app
    ctx = click.Context(app)
    words = hoisted(words)
    options = {option for parameter in command.params for option in parameter.opts}
    verb = "jobmanager"
    while words:
        word = words.pop(0)
        if re.match(r"-[^\d]", word):  # neither - nor -2h, which are values
            name, _, value = word.partition("=")
            assert name in options, f"{verb} takes no {name}"
            if name == "--app" and not value:
                words.pop(0)
        elif isinstance(command, click.Group):
            found = command.get_command(ctx, word)
            assert found is not None, f"{verb} has no verb {word!r}"
            command, verb = found, f"{verb} {word}"
            options |= {option for parameter in command.params for option in parameter.opts}


def make_target(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        assert "=" in word or re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), f"make {word}"


def installed(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        if named := re.fullmatch(r"([a-z-]+)\[([a-z,]+)\]", word):
            assert named[1] == project["name"]
            assert set(named[2].split(",")) <= project["optional-dependencies"].keys()
        elif word.startswith("jobmanager"):
            assert word == project["name"]


def interpreter(words: list[str]) -> None:
    if words[:1] == ["-m"]:
        path = ROOT / words[1].replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists() or importlib.util.find_spec(words[1])
    elif words and words[0].endswith(".py"):
        assert (ROOT / words[0]).exists() or words[0] in {
            block.told for path in PAGES for block in blocks_of(path) if block.word == "file"
        }


def pytest_target(words: list[str]) -> None:
    for word in words:
        assert word.startswith("-") or (ROOT / word).exists(), f"pytest {word}"


CHECKS = {
    "jobmanager": command_line,
    "make": make_target,
    "pip": installed,
    "python": interpreter,
    "pytest": pytest_target,
}


def verbs_of(group: click.Group, *words: str) -> Iterator[tuple[str, Verb]]:
    """Every verb below a group, with the words that call it."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        if isinstance(found, click.Group):
            yield from verbs_of(found, *words, name)
        else:
            assert isinstance(found, Verb)
            yield " ".join([*words, name]), found


@pytest.mark.parametrize(("words", "verb"), [pytest.param(*pair, id=pair[0]) for pair in verbs_of(app)])
def test_the_example_of_a_verb_calls_it(words, verb):
    """Fails if the example in a verb's help is of another verb, or names an option that it does not take."""
    called = shlex.split(verb.example.partition("jobmanager ")[2])
    said = hoisted(called[: called.index(">")] if ">" in called else called)
    assert f" {words}" in f" {' '.join(said)}"
    command_line(said)
