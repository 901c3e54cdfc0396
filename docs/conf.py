"""How the pages are built: Markdown in, HTML out, nothing fetched from elsewhere."""

from typing import Any

from jobmanager import __version__

project = "jobmanager"
author = "jobmanager contributors"
project_copyright = "2026 jobmanager contributors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
autodoc_mock_imports = ["pytest"]  # the contracts import it, and nothing of it is rendered
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
default_role = "code"  # docstrings are plain text: a name in backticks is code
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jobmanager"
html_extra_path = ["llms.txt"]  # the map for programs, whose links are the copied sources
html_copy_source = True
html_sourcelink_suffix = ".txt"


def _without_introductions(_app: object, what: str, *rest: object) -> None:
    """Drop the docstrings of modules: the pages introduce what they list."""
    lines = rest[-1]
    if what == "module" and isinstance(lines, list):
        lines.clear()


def setup(app: Any) -> None:
    """Register what Sphinx calls while it reads docstrings."""
    app.connect("autodoc-process-docstring", _without_introductions)
