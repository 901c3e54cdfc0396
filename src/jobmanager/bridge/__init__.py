"""From another scheduler's entries to jobs: one module per source, and in `brought` what they share."""
