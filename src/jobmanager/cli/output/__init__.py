"""Output of the command line, for people and for machines."""
