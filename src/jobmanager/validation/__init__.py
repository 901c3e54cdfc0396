"""Checks at the door: options, durations and texts are read once, and what cannot be meant is refused in a sentence."""
