"""Reproducing published results: presets, published tables, jobs, and the demo."""

from flowpolicies.lazy import make_lazy

make_lazy(__name__)
