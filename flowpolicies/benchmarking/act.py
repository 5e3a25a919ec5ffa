"""Time from an observation to an action, beside a policy in JAX and Stable-Baselines3's SAC."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, final

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from torch import Tensor

from flowpolicies.core import Network
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.policies import FlowPolicy
from flowpolicies.samplers import BestOfN, Guided, Integrate, OneStep, Sampler, candidates

OBSERVATION_DIM, ACTION_DIM = 40, 5
CHUNK = 0.03
"""Seconds for which a variant acts before the next one has its turn."""

Act = Callable[[], object]
"""Acts once."""


@final
@dataclass(frozen=True)
class Acting:
    """What acts, and in how many observations at once."""

    sampler: Sampler
    """Sampler of the policy of flowpolicies."""
    width: int = 512
    """Units of each hidden layer of every network."""
    depth: int = 4
    """Number of hidden layers of every network."""
    observations: int = 1
    """Number of observations; one is passed as in a loop over an environment, without an axis of them."""
    jax: Mapping[str, Any] = field(default_factory=dict)
    """Options of the transcription in JAX."""
    target: float | None = None
    """Largest wanted median in milliseconds; None: it is here for comparison."""


CASES: Mapping[str, Acting] = {
    "flow": Acting(Integrate(), jax={"steps": 10}, target=0.75),
    "one_step": Acting(OneStep(), target=0.15),
    "guided": Acting(Guided(), jax={"steps": 10, "beta": 1.0}, target=5.0),
    "best_of_32": Acting(BestOfN(score="min"), jax={"steps": 10, "n": 32}, target=5.0),
    "batch_of_64": Acting(Integrate(), observations=64, jax={"steps": 10}, target=7.0),
    "small_flow": Acting(Integrate(), width=128, depth=2, jax={"steps": 10}, target=0.16),
}
"""Name of a row -> what is measured. Networks of 4x512 units and ten steps are the papers'."""


def measure_act(
    algorithms: Sequence[str] = (), *, seconds: float = 3.0, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Milliseconds of one action. In each row, ours, JAX and SAC of the same size take turns.

    Args:
        algorithms: names of rows of `CASES`; (): all.
        seconds: time to measure each row.
        say: called with a line for each row.

    Returns:
        Plain data: the sizes; by row and variant the median, the 99th percentile and the minimum, and the target; and
        as `outside` what `predict` needs outside of the networks.

    Raises:
        KeyError: for a row that there is not.
    """
    if unknown := [name for name in algorithms if name not in CASES]:
        raise KeyError(f"there is no row {', '.join(map(repr, unknown))} (there are: {', '.join(CASES)}).")
    rows: dict[str, Any] = {}
    make_act = _jax(say)
    for name in algorithms or CASES:
        case = CASES[name]
        found = _interleaved(dict(_variants(case, make_act)), seconds)
        rows[name] = {**found, "target_p50_ms": case.target}
        say(_line(name, found, case.target))
    found = _interleaved({"predict": _outside()}, seconds)
    say(_line("outside the networks", found, 0.06))
    sizes = {"observation_dim": OBSERVATION_DIM, "action_dim": ACTION_DIM, "threads": torch.get_num_threads()}
    return {**sizes, "results": rows, "outside": {**found["predict"], "target_p50_ms": 0.06}}


def _jax(say: Callable[[str], None]) -> Callable[..., Any] | None:
    """The function that makes a policy in JAX; None, and a line, where there is no JAX or no checkout."""
    try:
        importlib.import_module("flowpolicies.benchmarking.jax_peers").load_peers()
        make: Callable[..., Any] = importlib.import_module("peers.act").make_act
    except ImportError as error:
        say(f"without JAX: {error}")
        return None
    return make


def _space() -> tuple[spaces.Box, spaces.Box]:
    observations = spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float32)
    return observations, spaces.Box(-1, 1, (ACTION_DIM,), np.float32)


def _policy(sampler: Sampler, width: int, depth: int) -> FlowPolicy:
    dims = (width,) * depth
    networks = {
        "critic": Network(partial(Critic, hidden_dims=dims)),
        "actor_flow": Network(partial(VelocityField, hidden_dims=dims)),
        "actor_onestep": Network(partial(VelocityField, hidden_dims=dims, time_embedding="none")),
    }
    return FlowPolicy(*_space(), networks=networks, sampler=sampler, seed=0)


def _variants(case: Acting, make_act: Callable[..., Any] | None) -> Iterator[tuple[str, Act]]:
    """Name -> function that acts once, on the same observations and, in JAX, with the same weights."""
    batch = np.random.default_rng(0).standard_normal((case.observations, OBSERVATION_DIM), np.float32)
    given = batch[0] if case.observations == 1 else batch
    policy = _policy(case.sampler, case.width, case.depth)
    yield "flowpolicies", partial(policy.predict, given)
    if make_act is not None:
        tree = {
            name: {key: tensor.numpy(force=True) for key, tensor in network.state_dict().items()}
            for name, network in policy.networks.items()
        }
        kind = type(case.sampler).__name__
        yield "jax", partial(make_act(kind, tree, ACTION_DIM, draws=candidates(case.sampler), **case.jax), batch)
    kwargs = {"net_arch": [case.width] * case.depth}
    sac = SAC("MlpPolicy", _Spaces(), buffer_size=1, policy_kwargs=kwargs, device="cpu", seed=0)
    yield "sb3_sac", partial(sac.predict, given)


@final
class _Spaces(gym.Env[Any, Any]):
    """The spaces that a model of Stable-Baselines3 is made for."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = _space()

    def step(self, action: Any) -> NoReturn:
        raise NotImplementedError


def _outside() -> Act:
    """`predict` of a policy whose sampler computes nothing."""
    actions = torch.zeros(1, ACTION_DIM)

    def nothing(nets: Any, observations: Tensor, noise: Any) -> Tensor:
        return actions

    return partial(_policy(nothing, 32, 2).predict, np.zeros(OBSERVATION_DIM, np.float32))


def _interleaved(variants: Mapping[str, Act], seconds: float) -> dict[str, dict[str, float]]:
    """Times of single calls. The variants take turns, so that a change in the speed of the machine affects all."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for act in variants.values():
        act()  # Compiles, or fills caches.
        act()
    end = time.perf_counter() + seconds * len(variants)
    while time.perf_counter() < end:
        for name, act in variants.items():
            times[name] += _times(act)
    return {name: _summary(np.array(each)) for name, each in times.items()}


def _times(act: Act) -> list[float]:
    """Milliseconds of calls during one turn, of which the first is not counted: it finds the caches of another one."""
    act()
    found: list[float] = []
    while sum(found) < 1e3 * CHUNK:
        start = time.perf_counter()
        act()
        found.append(1e3 * (time.perf_counter() - start))
    return found


def _summary(times: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(times, [0, 50, 99])
    return {"p50_ms": round(middle, 4), "p99_ms": round(high, 4), "min_ms": round(low, 4), "calls": len(times)}


def _line(name: str, found: Mapping[str, Mapping[str, float]], target: float | None) -> str:
    cells = [
        f"{variant} {row['p50_ms']:.3f} / {row['p99_ms']:.3f} (min {row['min_ms']:.3f})"
        for variant, row in found.items()
    ]
    return f"{name:20s} p50 / p99 ms: {', '.join(cells)}" + ("" if target is None else f"; target {target}")
