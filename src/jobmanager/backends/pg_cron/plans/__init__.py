"""Schedules as SQL reads them."""
