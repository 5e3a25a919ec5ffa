"""Checks of a dataset for faults that spoil training without an error message."""

from flowpolicies.lazy import make_lazy

SAMPLE = 50_000
"""Default number of rows for the expensive checks."""

make_lazy(__name__)
