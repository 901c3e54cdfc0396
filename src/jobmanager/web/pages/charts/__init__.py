"""Charts as SVG: x in per cent and y in pixels, so that text never scales. Each is for the eye; a table beside it says the same."""
