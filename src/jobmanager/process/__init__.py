"""This process among the others: heartbeat, failure detection, background thread, signals."""
