"""OGBench for flowpolicies: its datasets and environments, evaluation over its tasks, and local data generation."""

import warnings

from flowpolicies.lazy import make_lazy

make_lazy(__name__)

# OGBench imports dm_control, which tries to render with GLFW first and warns on machines without a screen, although it
# then uses EGL.
warnings.filterwarnings("ignore", ".*DISPLAY environment variable is missing")
