"""Watches one update of a tiny FQL: which files of the package run, and how deep below `learn_offline` a loss lies."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")
"""Frames that do not count, since newer versions of Python do not make them."""


class Probe:
    """A hook for `sys.setprofile`.

    The depth counts the package's frames from `learn_offline` to the first function of `losses/`, both included, and
    takes the deepest of them.
    """

    def __init__(self, root: Path) -> None:
        self.root = f"{root}/"
        self.files: set[str] = set()
        self.deepest: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename.removeprefix(self.root)
        if event != "call" or not file.startswith("flowpolicies/"):
            return
        self.files.add(file)
        if file.startswith("flowpolicies/losses/"):
            stack = self._stack(frame)
            is_first = not any(place.startswith("flowpolicies/losses/") for place in stack[:-1])
            if is_first and len(stack) > len(self.deepest):
                self.deepest = stack

    def _stack(self, frame: FrameType | None) -> list[str]:
        """The package's frames from `learn_offline` to this one; empty outside `learn_offline`."""
        stack: list[str] = []
        while frame is not None:
            file, function = frame.f_code.co_filename.removeprefix(self.root), frame.f_code.co_name
            if file.startswith("flowpolicies/") and function not in COMPREHENSIONS:
                stack.append(f"{file}: {function}")
            if function == "learn_offline":
                return stack[::-1]
            frame = frame.f_back
        return []


def watch_one_update(root: Path) -> Probe:
    """A probe that has seen the second update of a tiny FQL; the first one builds what is built only once.

    Args:
        root: the checkout that `flowpolicies` is imported from.
    """
    import numpy as np
    from gymnasium.spaces import Box

    from flowpolicies import FQL, TransitionDataset

    rng, n = np.random.default_rng(0), 100
    observations, actions, rewards = rng.normal(size=(n, 3)), rng.uniform(-1, 1, (n, 1)), rng.normal(size=n)
    data = TransitionDataset.from_arrays(
        observations,
        actions,
        rewards,
        observations,
        terminations=np.zeros(n, bool),
        truncations=np.arange(n) % 50 == 49,
        observation_space=Box(-np.inf, np.inf, (3,)),
        action_space=Box(-1.0, 1.0, (1,)),
    )
    model = FQL(dataset=data, seed=0, device="cpu", batch_size=8, actor_hidden_dims=(8,), value_hidden_dims=(8,))
    model.learn_offline(1)
    probe = Probe(root)
    sys.setprofile(probe)
    try:
        model.learn_offline(1)
    finally:
        sys.setprofile(None)
    return probe
