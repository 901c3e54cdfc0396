"""Import of another scheduler's entries as jobs: one module per source, and `brought` for what they share."""
