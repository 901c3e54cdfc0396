"""The page beside others quotes our own figures from the benchmarks' README, and no others."""

import re

from tests.docs.test_docs import DOCS, ROOT

COMMIT = re.compile(r"\bat ([0-9a-f]{7})\b")
FIGURE = re.compile(r"\b\d+\.\d+\b")


def test_our_figures_are_those_of_the_benchmarks_at_the_commit_they_name():
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    sections = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").split("\n## ")
    ours = page.partition("This library beside them")[2].partition("\n## ")[0]
    quoted = re.findall(r"^- .+(?:\n  .+)*", ours, re.MULTILINE)

    assert quoted
    for line in quoted:
        (commit,) = COMMIT.findall(line)
        measured = [section for section in sections if commit in section]
        assert FIGURE.findall(line)
        for figure in FIGURE.findall(line):
            assert any(re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", section) for section in measured), (
                f"{figure} at {commit}"
            )
