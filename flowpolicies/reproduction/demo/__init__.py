"""The demo: Q-Flow beside BC on OGBench's pointmaze-medium, fine-tuning from an unseen start, pictures and a GIF."""

from flowpolicies.lazy import make_lazy

make_lazy(__name__)
