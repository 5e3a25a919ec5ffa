"""Offline data: datasets of transitions, the formats and sources that they come from, and the replay buffer."""

from flowpolicies.lazy import make_lazy

make_lazy(__name__)
