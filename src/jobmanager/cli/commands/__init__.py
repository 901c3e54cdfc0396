"""The command line's verbs, one module per group."""
