"""docs/internals is true: the tests, files and sections it names exist, and so does every page that the code cites."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "jobmanager"
INTERNALS = ROOT / "docs" / "internals"
PAGES = sorted(INTERNALS.glob("*.md"))
SOURCES = sorted(
    path
    for folder in ("src", "tests", "benchmarks", "examples", "backends", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".sql", ".md"} and "_build" not in path.parts
)

# A page as comments cite it: its path from the root, and `#section` where one is meant.
CITED = re.compile(r"(?<![\w/.-])(docs/(?:internals|howto|adr|reference)/[\w-]+\.md)(?:#([\w-]+))?")
# The pages of the founders are not part of the repository: their rules stand in docs/internals.
FOREIGN = re.compile(r"\b[A-Z][A-Z_]+\.md\b")
KEPT = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"}


@cache
def names_of_tests() -> frozenset[str]:
    return frozenset(
        node.name
        for path in SOURCES
        if path.suffix == ".py" and (ROOT / "tests" in path.parents or PACKAGE / "testing" in path.parents)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@cache
def sections_of(page: Path) -> frozenset[str]:
    headings = re.findall(r"^#{1,6} (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)
    return frozenset(plain)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_test_that_a_page_names_exists(page):
    named = re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))

    assert [name for name in named if name not in names_of_tests()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_file_that_a_page_names_exists(page):
    named = re.findall(r"`([\w/.-]+/[\w.-]*\.(?:py|sql|md)|[\w/-]+/)`", page.read_text(encoding="utf-8"))

    assert [
        name
        for name in named
        if not any((base / name).exists() for base in (ROOT, PACKAGE, PACKAGE / "backends" / "pg_cron"))
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_rule_of_a_table_names_a_test_that_holds_it(page):
    text = page.read_text(encoding="utf-8")
    tables = re.findall(r"^\|.*(?:held by|own test) \|\n\|[-| ]+\|\n((?:\|.*\n?)+)", text, re.MULTILINE)

    rows = [row for table in tables for row in table.splitlines()]
    assert [row for row in rows if not re.search(r"`test_\w+`|`tests/[\w/.]+`", row)] == []
    assert rows or page.name in {"architecture.md", "releasing.md"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_page_that_is_cited_is_in_the_repository(path):
    text = path.read_text(encoding="utf-8")

    foreign = {name for name in FOREIGN.findall(text) if name not in KEPT}
    assert not foreign, f"{relative(path)} cites {sorted(foreign)}: cite docs/internals/..."
    for name, section in CITED.findall(text):
        page = ROOT / name
        assert page.exists(), f"{relative(path)} cites {name}, which does not exist"
        assert not section or section in sections_of(page), f"{relative(path)}: {name} has no #{section}"
