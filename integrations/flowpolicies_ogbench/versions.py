"""What differs between versions of OGBench."""

import warnings
from importlib.metadata import version

FIRST_WITH_MATCHING_REWARDS = (1, 2, 0)
"""From this version on, single-task environments judge the state before a step, as the data always did."""


def ogbench_version() -> str:
    """The installed version, with a warning if it is too old for its rewards to match those of the data."""
    found = version("ogbench")
    if _numbers(found) < FIRST_WITH_MATCHING_REWARDS:
        warnings.warn(
            f"OGBench {found}: single-task environments give reward, success and termination for the state after a "
            "step; since 1.2.0 they give them for the state before it, as the rewards of the data do. Online rewards "
            "are one step early against the data, and episodes end one step sooner: do not compare with newer "
            "versions. Update with: pip install 'ogbench>=1.2.1'",
            stacklevel=3,
        )
    return found


def reward_timing() -> str:
    """Which state of a step the environment's reward is about."""
    matches = _numbers(version("ogbench")) >= FIRST_WITH_MATCHING_REWARDS
    return "state before the step" if matches else "state after the step"


def _numbers(text: str) -> tuple[int, ...]:
    """Of "1.2.0rc1" the numbers before anything else: (1, 2, 0)."""
    parts = ["".join(character for character in part if character.isdigit()) for part in text.split(".")[:3]]
    return tuple(int(part or 0) for part in parts)
