"""A bakery: a project of Django with jobs."""
