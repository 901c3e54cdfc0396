"""A small SaaS back end whose recurring work is done by jobmanager. Start with README.md, then jobs.py."""
