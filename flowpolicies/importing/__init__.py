"""Policies from files of other packages."""

from flowpolicies.lazy import make_lazy

make_lazy(__name__)
