"""Observation and action spaces: flat observations, scaled actions, and spaces as JSON."""
