"""Jobmanager in other people's frameworks, each an extra."""
