"""llms.txt, the map of the pages for programs: its links lead to pages of the built site, and no page is left out."""

import re
import runpy

import pytest
from tests.docs.test_docs import DOCS, LINK, PAGES

MAP = DOCS / "llms.txt"
SERVED = re.compile(r"_sources/(?P<source>.+\.md)\.txt|(?P<page>.+)\.html")


def page_of(link: str) -> str:
    """Return the page in docs/ that the built site serves at a link."""
    found = SERVED.fullmatch(link)
    assert found is not None, f"{link} is neither a page of the site nor its source"
    return found["source"] or f"{found['page']}.md"


@pytest.mark.parametrize("link", LINK.findall(MAP.read_text(encoding="utf-8")))
def test_each_link_leads_to_a_page(link):
    assert (DOCS / page_of(link)).is_file()


def test_every_page_but_the_index_and_the_decisions_is_named_once():
    named = [page_of(link) for link in LINK.findall(MAP.read_text(encoding="utf-8"))]
    pages = {path.relative_to(DOCS).as_posix() for path in PAGES if DOCS in path.parents}

    assert sorted(named) == sorted(
        page for page in pages if page != "index.md" and not page.startswith("adr/")
    )


def test_it_is_of_the_form_that_programs_expect():
    lines = [line for line in MAP.read_text(encoding="utf-8").splitlines() if line]

    assert lines[0].startswith("# ")
    assert lines[1].startswith("> ")
    for line in lines[lines.index("## Begin") :]:
        assert re.fullmatch(r"## .+|- \[.+\]\(\S+\): .+", line), line


def test_the_site_serves_it_and_the_sources():
    conf = runpy.run_path(str(DOCS / "conf.py"))

    assert "llms.txt" in conf["html_extra_path"]
    assert conf["html_copy_source"]
    assert conf["html_sourcelink_suffix"] == ".txt"
