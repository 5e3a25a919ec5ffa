"""The installed version of OGBench, and how its rewards differ from those of other versions."""

import warnings
from importlib.metadata import version

from packaging.version import Version

FIRST_WITH_MATCHING_REWARDS = Version("1.2.0")
"""First version whose single-task environments judge the state before a step, as the datasets have always done."""


def ogbench_version() -> str:
    """The installed version. Warns if its rewards do not match those of the datasets."""
    found = version("ogbench")
    if Version(found) < FIRST_WITH_MATCHING_REWARDS:
        warnings.warn(
            f"OGBench {found}: single-task environments give reward, success and termination for the state after a "
            "step; since version 1.2.0 they give them for the state before the step, as the datasets do. So online "
            "rewards come one step earlier than in the data, and episodes end one step earlier. Do not compare the "
            "results with those of newer versions. Update with: pip install 'ogbench>=1.2.1'",
            stacklevel=3,
        )
    return found


def reward_timing() -> str:
    """The state that the environment's reward of a step refers to, in words for the provenance of a dataset."""
    matches = Version(version("ogbench")) >= FIRST_WITH_MATCHING_REWARDS
    return "state before the step" if matches else "state after the step"
