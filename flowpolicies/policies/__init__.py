"""Policies: named networks and a sampler. They act, save and load without an algorithm."""

from flowpolicies.lazy import make_lazy

make_lazy(__name__)
