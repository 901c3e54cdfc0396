"""From tick to outcome: open a run, call its handler, record how it ended."""
