"""Observation and action spaces: the layout of flat observations, and spaces as JSON."""
