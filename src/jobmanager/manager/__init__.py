"""JobManager, and what it is assembled of."""
