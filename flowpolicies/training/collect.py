"""Datasets of what a policy does, written for training, for others, or for a benchmark."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import Any, SupportsFloat, final

import gymnasium as gym
import torch
from tqdm import tqdm

from flowpolicies.data import TransitionDataset, make_env, open_writer
from flowpolicies.policies import Evaluation
from flowpolicies.policies.evaluation import Predicts
from flowpolicies.training.rollout import rollout


def collect(
    policy: Predicts,
    env: gym.Env[Any, Any] | str,
    episodes: int,
    *,
    out: str | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    provenance: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[TransitionDataset, Evaluation]:
    """Whole episodes of anything with Stable-Baselines3's `predict`, as a dataset, and what they come to.

    The policy's state goes from call to call, so that action chunks and memories work. An episode is kept with all of
    its T+1 observations. Nothing is written before the last episode has ended, and then all of it or nothing.

    Args:
        policy: a policy of ours, a model of Stable-Baselines3, or your own object.
        env: an environment, or where to make it: Gymnasium's id, or an address such as "ogbench:NAME".
        episodes: how many.
        out: where to write, "npz:PATH" or "minari:NAME"; None: nowhere.
        seed: of the environment, of the policy if it has a generator, and of torch's global one while collecting.
        deterministic: passed to `predict`; flows start at zero noise.
        overwrite: replace what is there.
        progress: show a progress bar.
        provenance: added to the dataset's; JSON data.
        **options: of the writer, such as `author` and `description` for Minari.

    Raises:
        FileExistsError: if something is there and `overwrite` is off; before the first episode.
        ValueError: for fewer than one episode, an unknown writer, or an environment that does not fit the policy.
    """
    write = None if out is None else open_writer(out, overwrite=overwrite, env=env, **options)
    facts = {
        "source": "collect",
        "env": env if isinstance(env, str) else env.spec.id if env.spec else type(env.unwrapped).__name__,
        "policy": type(policy).__name__,
        "seed": seed,
        "deterministic": deterministic,
        **(provenance or {}),
    }
    name = "collected" if out is None else out.partition(":")[2]
    with (
        closing(make_env(env)) if isinstance(env, str) else nullcontext(env) as made,
        tqdm(total=episodes, desc="collecting", unit="episode", dynamic_ncols=True, disable=not progress) as bar,
        torch.random.fork_rng(range(torch.cuda.device_count())),
    ):
        if seed is not None:
            torch.manual_seed(seed)  # Models of Stable-Baselines3 sample from the global generator.
        dataset, found = rollout(
            policy,
            _Counted(made, bar),
            episodes,
            seed=seed,
            deterministic=deterministic,
            name=name,
            provenance=facts,
        )
    if write is not None:
        write(dataset)
    return dataset, found


@final
class _Counted(gym.Wrapper[Any, Any, Any, Any]):
    """Moves a progress bar by one for every episode that ends."""

    def __init__(self, env: gym.Env[Any, Any], bar: tqdm[Any]) -> None:
        super().__init__(env)
        self._bar = bar

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._bar.update(int(terminated or truncated))
        return observation, reward, terminated, truncated, info
