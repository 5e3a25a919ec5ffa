"""Commands that judge runs: `evaluate`, `diagnose` and their kin."""
