"""How the pages are built: Markdown in, HTML out, nothing fetched from elsewhere."""

from jobmanager import __version__

project = "jobmanager"
author = "jobmanager contributors"
project_copyright = "2026 jobmanager contributors"
version = release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jobmanager"
