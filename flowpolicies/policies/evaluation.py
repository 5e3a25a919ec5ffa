"""Evaluation of policies: episodes, returns and success rates."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol, final

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from flowpolicies.data import make_env
from flowpolicies.policies.episodes import EpisodeRows
from flowpolicies.policies.intervals import ROWS
from flowpolicies.policies.intervals import Interval as Interval
from flowpolicies.policies.intervals import mean_interval as mean_interval
from flowpolicies.policies.intervals import success_interval as success_interval

LONG_EPISODE = 10_000
"""Number of steps of one episode after which `evaluate` warns that the environment may never end."""


class Predicts(Protocol):
    """Anything with Stable-Baselines3's `predict`."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]: ...


@final
@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, in the order of their starts. With equal seeds, entry i has the same start.

    Examples:
        >>> from flowpolicies import QFlow
        >>> print(QFlow(env="Pendulum-v1", seed=0).evaluate(episodes=2))
        2 episodes (sampled actions): return ...
    """

    returns: np.ndarray
    """Sums of rewards per episode, `[n]`."""
    lengths: np.ndarray
    """Numbers of environment steps per episode, `[n]`."""
    successes: np.ndarray | None
    """Value of `is_success` (or `success`) at the last step of each episode, `[n]`; None if the environment does not
    report it."""
    deterministic: bool
    """Whether flows started at zero noise."""
    environment: str | None = None
    """Address or Gymnasium id of the environment; None if it is not known."""
    seed: int | None = None
    """Seed of the episodes and of the policy's noise; None if they were not seeded."""

    def __len__(self) -> int:
        return len(self.returns)

    def success_rate(self) -> Interval:
        """Share of successful episodes, with Wilson's interval.

        Raises:
            ValueError: if the environment does not report success.
        """
        if self.successes is None:
            raise ValueError("this environment does not report success (infos have no 'is_success'); use mean_return()")
        return success_interval(int(self.successes.sum()), len(self))

    def mean_return(self) -> Interval:
        """Mean return, with a bootstrap interval."""
        return mean_interval(self.returns)

    def summary(self) -> dict[str, float]:
        """Scalars for the log."""
        scalars = {"ep_rew_mean": float(self.returns.mean()), "ep_len_mean": float(self.lengths.mean())}
        if self.successes is not None:
            scalars["success_rate"] = float(self.successes.mean())
        return scalars

    def __str__(self) -> str:
        how = "zero noise" if self.deterministic else "sampled actions"
        success = "" if self.successes is None else f"success {self.success_rate()}, "
        return f"{len(self)} episodes ({how}): {success}return {self.mean_return()}, length {self.lengths.mean():.0f}"


def evaluate(
    policy: Predicts,
    env: gym.Env[Any, Any] | VecEnv | str | Callable[[], gym.Env[Any, Any]],
    episodes: int = 50,
    *,
    deterministic: bool = False,
    seed: int | None = None,
    max_steps: int | None = None,
    n_envs: int = ROWS,
) -> Evaluation:
    """Runs a policy for a number of episodes.

    Actions are sampled by default, as in the papers' protocol; Stable-Baselines3's `evaluate_policy` passes
    `deterministic=True` instead. Each environment gets its number of episodes beforehand, so that short episodes
    are not preferred.

    An id, an address and a function are made into several environments, and the policy acts in all of them in one call,
    which takes much less time than one call for each.

    With a seed, every policy gets the same list of starts and goals: each episode has its own seed, independent of the
    episodes before it, and a `FlowPolicy` has its own noise in each. So the results are the same, to the last bit, for
    any number of environments; except those of `RobustGuided`, which remembers what it saw. For a VecEnv this needs
    environments in `SeededEpisodes`, as `flowpolicies.training.make_vec_env` makes them, or environments that seed each
    episode themselves, such as OGBench's here.

    Returns are in the units of the task: of environments in `VecNormalize` the rewards before its normalisation are
    summed. Its statistics normalise observations as they are, and evaluation does not change them. If an episode has
    not ended after 10,000 steps (`LONG_EPISODE`), a warning says so.

    Args:
        policy: a policy or an algorithm.
        env: an environment, its Gymnasium id or address ("ogbench:NAME"), a function that makes one, or a VecEnv.
        episodes: number of episodes.
        deterministic: whether flows start at zero noise.
        seed: seed of the episodes, and of the policy's generator if it has one; None: both stay as they are.
        max_steps: number of steps after which an episode is cut and counts with its return so far; None: episodes are
            never cut.
        n_envs: number of environments that are made of an id, an address or a function, in this process; at most one
            for each episode. 1 for environments that exist once in a process.

    Raises:
        ValueError: for fewer than one episode, environment or step, or an environment with other observations or
            actions.
        TypeError: if `policy` cannot predict, or `env` is not an environment.
    """
    check_predicts(policy)
    for name, number in {"episodes": episodes, "n_envs": n_envs}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps is a number of steps and must be at least 1, or None, got {max_steps}")
    if isinstance(env, str) or (callable(env) and not isinstance(env, gym.Env | VecEnv)):
        options: dict[str, Any] = {"deterministic": deterministic, "seed": seed, "max_steps": max_steps}
        with closing(_copies(env, min(n_envs, episodes))) as made:
            found = evaluate(policy, made, episodes, **options)
        return dataclasses.replace(found, environment=env) if isinstance(env, str) else found
    vec_env = _as_vec_env(env)
    _check_space("observation", policy, vec_env.observation_space)
    _check_space("action", policy, vec_env.action_space)
    owner = getattr(policy, "policy", policy)
    apart: AbstractContextManager[Any] = nullcontext()
    if seed is not None:
        _seed(owner, vec_env, seed)
        if hasattr(owner, "in_episodes"):
            apart = owner.in_episodes(seed, vec_env.num_envs)
    with _frozen_statistics(vec_env), apart as rows:
        ended = _roll_out(policy, vec_env, episodes, deterministic, max_steps, rows)
    returns, lengths, successes = zip(*ended, strict=True)
    known = all(success is not None for success in successes)
    return Evaluation(
        returns=np.array(returns),
        lengths=np.array(lengths),
        successes=np.array(successes, float) if known else None,
        deterministic=deterministic,
        environment=_id_of(vec_env),
        seed=seed,
    )


def _id_of(env: VecEnv) -> str | None:
    """The Gymnasium id that the environments share; None if they have none, different ones, or do not tell."""
    try:
        ids = {getattr(spec, "id", None) for spec in env.get_attr("spec")}
    except (AttributeError, NotImplementedError):  # Not every VecEnv is made of environments of Gymnasium.
        return None
    return ids.pop() if len(ids) == 1 else None


def _seed(owner: Any, env: VecEnv, seed: int) -> None:
    env.seed(seed)
    if hasattr(owner, "generator") and hasattr(owner, "seed"):
        owner.seed(seed)


class _Episode(NamedTuple):
    total: float
    length: int
    success: float | None


def _normalizers(env: VecEnv) -> list[VecNormalize]:
    """All `VecNormalize` around the environments, the outermost one first."""
    found = []
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecNormalize):
            found.append(env)
        env = env.venv
    return found


def _monitor_sees_normalized(env: VecEnv) -> bool:
    """Whether a `VecMonitor` around a `VecNormalize` puts sums of normalised rewards into the infos."""
    while isinstance(env, VecEnvWrapper) and not isinstance(env, VecMonitor):
        env = env.venv
    return isinstance(env, VecMonitor) and bool(_normalizers(env))


@contextmanager
def _frozen_statistics(env: VecEnv) -> Iterator[None]:
    """Within this context no `VecNormalize` changes its statistics; afterwards each is as it was."""
    names = ("training", "returns", "old_obs", "old_reward")
    wrappers = _normalizers(env)
    kept = [{name: value for name, value in vars(wrapper).items() if name in names} for wrapper in wrappers]
    try:
        for wrapper in wrappers:
            wrapper.training = False
        yield
    finally:
        for wrapper, values in zip(wrappers, kept, strict=True):
            vars(wrapper).update(values)


def _roll_out(
    policy: Predicts,
    env: VecEnv,
    episodes: int,
    deterministic: bool,
    max_steps: int | None,
    rows: EpisodeRows | None,
) -> list[_Episode]:
    """The episodes in the order of their starts: environment i runs numbers i, i + n, ...

    A VecEnv cannot reset one of its environments. One whose episode was cut waits until its episode ends after all, or
    all that have episodes to run wait, so that the seeds of its episodes are those of a run without cuts.
    """
    n, normalizers, use_monitor = env.num_envs, _normalizers(env), not _monitor_sees_normalized(env)
    quota = np.array([(episodes + n - 1 - i) // n for i in range(n)])
    returns, lengths, numbers, waits = np.zeros(n), np.zeros(n, int), np.arange(n), np.zeros(n, bool)
    finished: dict[int, _Episode] = {}
    observations, state, starts = env.reset(), None, np.ones(n, bool)
    while (quota > 0).any():
        if waits[quota > 0].all():
            observations, starts, waits = env.reset(), np.ones(n, bool), np.zeros(n, bool)
        if rows is not None:
            rows.begin(np.flatnonzero(starts).tolist(), numbers[starts].tolist())
        actions, state = policy.predict(observations, state, starts, deterministic)
        observations, rewards, starts, infos = env.step(actions)
        rewards = normalizers[-1].get_original_reward() if normalizers else rewards
        returns, lengths = returns + rewards, lengths + 1
        cut = (lengths == max_steps) & ~starts & ~waits
        if max_steps is None and (lengths[quota > 0] == LONG_EPISODE).any():
            _warn_of_long_episodes()
        for i in np.flatnonzero(starts & ~waits | cut):
            if quota[i] > 0:
                quota[i] -= 1
                finished[int(numbers[i])] = _read_episode(returns[i], lengths[i], infos[i], use_monitor)
            numbers[i] += n
        waits = (waits | cut) & ~starts
        over = starts | waits
        returns[over], lengths[over] = 0.0, 0
    return [finished[number] for number in sorted(finished)]


def _warn_of_long_episodes() -> None:
    warnings.warn(
        f"an episode has not ended after {LONG_EPISODE} steps, and evaluation continues until it does. If the "
        "environment never ends, pass max_steps= to cut its episodes, or give it a time limit "
        "(gymnasium.make(..., max_episode_steps=...)).",
        stacklevel=4,
    )


@final
class SeededEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that seeds each episode on its own, once it has been seeded.

    Episode k after `reset(seed=...)` is a function of the seed and of k alone. Without this it depends on how much
    randomness earlier episodes used, and so on the policy.

    Several environments share one list of episodes: number `rank` of `n_envs` plays those numbered rank,
    rank + n_envs, ... The list does not depend on the number of environments.

    Args:
        env: the environment.
        rank: its number; `VecEnv.seed(s)` seeds it with s + rank.
        n_envs: number of environments that share the list.
    """

    def __init__(self, env: gym.Env[Any, Any], rank: int = 0, n_envs: int = 1) -> None:
        super().__init__(env)
        self.rank, self.n_envs = rank, n_envs
        self._seed: int | None = None
        self._episodes = 0
        self._seeds: Iterator[int] = iter(())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, with the next seed of the list."""
        if seed is not None:
            self.set_state({"seed": (seed - self.rank) % 2**31, "episodes": 0})
        if self._seed is not None:
            seed = next(self._seeds)
            self._episodes += 1
        return self.env.reset(seed=seed, options=options)

    def get_state(self) -> dict[str, int | None]:
        """The seed of the list of episodes, None if there is none, and how many of them were played."""
        return {"seed": self._seed, "episodes": self._episodes}

    def set_state(self, state: dict[str, int | None]) -> None:
        """Restores what `get_state` returned, for this wrapper alone."""
        self._seed, self._episodes = state["seed"], state["episodes"] or 0
        if self._seed is not None:
            first = self.rank + self.n_envs * self._episodes
            self._seeds = islice(_episode_seeds(self._seed), first, None, self.n_envs)


def _episode_seeds(seed: int) -> Iterator[int]:
    """The seed itself, then seeds derived from it."""
    yield seed
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**31))


def check_predicts(policy: Any) -> None:
    """Raises a TypeError unless the policy has a method `predict`."""
    if not callable(getattr(policy, "predict", None)):
        raise TypeError(f"the policy must have Stable-Baselines3's predict(), got {type(policy).__name__}")


def _copies(env: str | Callable[[], gym.Env[Any, Any]], n: int) -> VecEnv:
    """Environments in this process that share one list of episodes."""
    make = partial(make_env, env) if isinstance(env, str) else env
    return DummyVecEnv([partial(_nth, make, rank, n) for rank in range(n)])


def _nth(make: Callable[[], gym.Env[Any, Any]], rank: int, n: int) -> gym.Env[Any, Any]:
    return SeededEpisodes(make(), rank, n)


def _as_vec_env(env: Any) -> VecEnv:
    if isinstance(env, VecEnv):
        return env
    if not isinstance(env, gym.Env):
        raise TypeError(f"env must be an environment, an address such as 'Pendulum-v1', or a VecEnv, got {env!r}")
    return DummyVecEnv([lambda: SeededEpisodes(env)])


def _check_space(kind: Literal["observation", "action"], policy: Any, theirs: spaces.Space[Any]) -> None:
    """Raises a ValueError unless the policy's space fits, because actions would be cut wrongly or fail in the
    environment."""
    own = getattr(policy, f"{kind}_space", None)
    if isinstance(own, spaces.Space) and not _fits(own, theirs):
        discrete = ", which is discrete" if isinstance(theirs, spaces.Discrete) else ""
        raise ValueError(
            f"the policy was trained for {kind}s in {own}, but those of this environment are in {theirs}{discrete}. "
            "Use it in the environment that it was trained for."
        )


def _fits(own: spaces.Space[Any], theirs: spaces.Space[Any]) -> bool:
    """Whether shapes are equal; bounds may differ. Policies move the channels of an image to the front themselves."""
    if isinstance(own, spaces.Dict) and isinstance(theirs, spaces.Dict):
        return own.keys() == theirs.keys() and all(_fits(own[key], theirs[key]) for key in own)
    if isinstance(own, spaces.Box) and isinstance(theirs, spaces.Box):
        turned = (*theirs.shape[-1:], *theirs.shape[:-1]) if len(theirs.shape) == 3 else theirs.shape
        return own.shape in (theirs.shape, turned)
    return own == theirs


def _read_episode(total: float, length: int, info: dict[str, Any], use_monitor: bool) -> _Episode:
    """Return, length and success. Prefers the sums of a Monitor, because wrappers around it may change rewards."""
    monitored = info.get("episode")
    if monitored is not None and use_monitor:
        total, length = monitored["r"], monitored["l"]
    success = info.get("is_success", info.get("success"))
    return _Episode(float(total), int(length), None if success is None else float(success))
