"""The report about runs: one HTML page with what their folders hold. Import its modules by name."""
