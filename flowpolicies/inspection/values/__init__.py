"""Checks of values that no environment returns: sentinels, spikes, readings that hang, and rounding."""
