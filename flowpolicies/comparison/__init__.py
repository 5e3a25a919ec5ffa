"""Finished runs beside each other: their episodes, scores, statistics and curves. Import its modules by name."""
