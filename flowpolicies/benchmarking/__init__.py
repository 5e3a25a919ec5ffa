"""Measurements of speed, as functions that return plain data."""
