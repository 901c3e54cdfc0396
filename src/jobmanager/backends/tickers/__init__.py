"""Clocks of others that call the endpoint by HTTP. `base.py` keeps theirs equal to our jobs; each clock is one page beside it."""
