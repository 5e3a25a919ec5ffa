"""The policy class: everything that acting needs, without anything of training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from flowpolicies.artifacts import reading
from flowpolicies.choices import require_device
from flowpolicies.containers import name_of
from flowpolicies.core import GeneratorNoise, Network, Noise, ReplayedNoise, View, ZeroNoise
from flowpolicies.core.matmul import fast_matmul, widest
from flowpolicies.networks import ObservationEncoder
from flowpolicies.policies.building import build_network, limited
from flowpolicies.policies.declaration import policy_from_json
from flowpolicies.policies.episodes import EpisodeRows, batch_size, starts_of
from flowpolicies.policies.policy_file import read_policy, write_policy
from flowpolicies.policies.pretrained import PretrainedPolicy
from flowpolicies.policies.serialization import encoder_to_json, network_to_json, sampler_to_json
from flowpolicies.samplers import Sampler, candidates
from flowpolicies.spaces.batches import as_batch
from flowpolicies.spaces.json import space_to_json
from flowpolicies.spaces.layout import as_tensor, check_action_space, check_channels_first, flatten_tensors
from flowpolicies.tree import leaves, take, tree_map

Observation = np.ndarray | dict[str, np.ndarray]
State = tuple[np.ndarray, ...]

_NETWORKS = ". The networks are in policy.networks, by name, and their slow copies in policy.targets."
INSTEAD = {
    **dict.fromkeys(("actor", "actor_target", "critic", "critic_target", "q_net", "value_net"), _NETWORKS),
    "optimizer": ". The learner has its state; to train by hand, make torch.optim.Adam(policy.parameters()).",
}
"""What to use instead of attributes that other policies of Stable-Baselines3 have."""


@final
class FlowPolicy(PretrainedPolicy):
    """Named networks and a sampler, behind Stable-Baselines3's policy contract.

    `policy.sampler` and `policy.explorer` may be replaced at any time by any sampler whose networks the policy has.

    Args:
        observation_space: a Box, Discrete, MultiDiscrete or MultiBinary space, or a Dict of these. Images are uint8
            with their channels first. Networks see categories as one-hot vectors.
        action_space: a Box with finite bounds, symmetric or not.
        lr_schedule: not used; Stable-Baselines3 passes it.
        networks: the declaration of each network.
        sampler: how actions are sampled from the networks.
        explorer: how actions are sampled while exploring; None: as in `sampler`.
        act_with, explore_with: networks whose slow copy acts, in evaluation and while exploring, and not the network.
        horizon: length of an action chunk; the networks' actions are `horizon` primitive actions, time-major.
        execute: number of actions of a chunk that are executed before planning again; None: all.
        encoder: name of the image encoder; each network has its own instance.
        scaled: whether networks see the numbers of an observation, not pixels and categories, as `set_scaling` says.
        reward_factor: what rewards were multiplied by in training; values of critics are in units of such rewards.
        seed: seed of the generator of acting; None: from the operating system.

    Raises:
        ValueError: for another space, or images with their channels last.

    Examples:
        >>> from flowpolicies import FlowPolicy
        >>> from flowpolicies.samplers import Integrate
        >>> policy = FlowPolicy.from_pretrained("flowpolicies/pointmaze-medium-qflow")
        >>> policy.sampler = Integrate(steps=20)  # another sampler of the same networks
        >>> action, state = policy.predict(policy.observation_space.sample())
    """

    action_space: spaces.Box
    _anchor: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Any = None,
        *,
        networks: Mapping[str, Network],
        sampler: Sampler,
        explorer: Sampler | None = None,
        act_with: Sequence[str] = (),
        explore_with: Sequence[str] = (),
        horizon: int = 1,
        execute: int | None = None,
        encoder: str = "impala_small",
        scaled: bool = False,
        reward_factor: float = 1.0,
        seed: int | None = None,
    ) -> None:
        check_channels_first(observation_space)
        super().__init__(observation_space, check_action_space(action_space, "FlowPolicy"), squash_output=True)
        self.specs, self.sampler, self.explorer = dict(networks), sampler, explorer
        self.act_with, self.explore_with = tuple(act_with), tuple(explore_with)
        self.horizon, self.execute, self.encoder = horizon, execute or horizon, encoder
        self.scaled, self.reward_factor = scaled, reward_factor
        self.chunk_dim = horizon * int(np.prod(self.action_space.shape))
        self.networks = nn.ModuleDict(
            {n: build_network(spec, observation_space, encoder, self.chunk_dim, scaled) for n, spec in networks.items()}
        )
        slow = {name: self.networks[name] for name, spec in networks.items() if spec.target_rate is not None}
        self.targets = nn.ModuleDict({name: copy.deepcopy(module) for name, module in slow.items()})
        self.targets.requires_grad_(False)
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self._width = widest(self.networks.parameters())
        self.generator = torch.Generator()
        self._episodes: EpisodeRows | None = None
        self.seed(seed)

    def set_scaling(self, center: Any, factor: Any) -> None:
        """Makes all networks see (number - center) * factor instead of each number of an observation.

        Args:
            center, factor: arrays `[C]` for the numbers of a flat observation that are neither pixels nor categories,
                in its order. Without a call they are 0 and 1.

        Raises:
            ValueError: if the policy was not built with `scaled`.
        """
        if not self.scaled:
            raise ValueError("build the policy with scaled=True to scale its observations.")
        center, factor = (torch.as_tensor(array, dtype=torch.float32, device=self.device) for array in (center, factor))
        for module in self.modules():
            if isinstance(module, ObservationEncoder):
                module.set_scaling(center, factor)

    @property
    def device(self) -> torch.device:
        """Where the weights are: that of a buffer that moves with them, as to look for a parameter takes 10 us."""
        return self._anchor.device

    def seed(self, seed: int | None) -> None:
        """Seeds the generator that acting draws from."""
        self.generator = torch.Generator(device=self.device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    def view(self, explore: bool = False) -> View:
        """The networks for samplers, with the slow copies of `act_with`, or of `explore_with` when exploring."""
        slow = self.explore_with if explore else self.act_with
        return View.of({n: self.targets[n] if n in slow else module for n, module in self.networks.items()})

    def noise(self, deterministic: bool = False) -> Noise:
        """The noise that acting draws from; with `deterministic`, flows start at zero noise."""
        if deterministic:
            return ZeroNoise(self.chunk_dim, self.device)
        if self.generator.device.type != self.device.type:
            self.generator = torch.Generator(device=self.device).manual_seed(self.generator.initial_seed())
        return GeneratorNoise(self.chunk_dim, self.generator)

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """The first action of a new plan, `[N, A]` in [-1, 1]."""
        return self._plan(observation, self.noise(deterministic))[:, 0]

    def _plan(self, observation: Tensor | dict[str, Tensor], noise: Noise, explore: bool = False) -> Tensor:
        flat = flatten_tensors(self.observation_space, observation)
        sampler = (self.explorer or self.sampler) if explore else self.sampler
        with torch.no_grad(), fast_matmul(len(flat) * candidates(sampler), self._width):
            chunks = sampler(self.view(explore), flat, noise)
        return chunks.reshape(len(flat), self.horizon, -1)

    def _plan_rows(self, observations: Any, n: int, rows: Sequence[int], deterministic: bool, explore: bool) -> Tensor:
        """Plans for some of n observations, `[len(rows), H, A]`."""
        if self._episodes is not None and len(self._episodes) == n and not explore:
            return self._episodes.plan(self._plan, observations, rows, self.chunk_dim, deterministic)
        asked = observations if len(rows) == n else take(observations, torch.as_tensor(rows, device=self.device))
        return self._plan(asked, self.noise(deterministic), explore)

    @contextmanager
    def in_episodes(self, seed: int, n: int) -> Iterator[EpisodeRows]:
        """Within this context `predict` acts in n episodes at once, in each as if it were the only one.

        `begin` of what it returns says which episode begins in which row. The actions of an episode then depend on
        `seed` and its number alone, to the last bit. Batches of another size than n are not concerned.
        """
        size = batch_size(self.specs, self.sampler, self.encoder, self.observation_space)
        self._episodes = EpisodeRows(seed, n, size)
        try:
            yield self._episodes
        finally:
            self._episodes = None

    def predict(
        self,
        observation: Observation,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        explore: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Actions in the units of the action space.

        With chunks, `state` carries the open-loop queue of each environment: pass what the last call returned, and
        `episode_start`, as `stable_baselines3.common.evaluation.evaluate_policy` does. Without `state` every call
        plans afresh and returns the first action.

        Args:
            observation: one observation, or a batch of N.
            state: (queue `[N, H, *action_shape]`, position `[N]`), or None.
            episode_start: `[N]`, where a new episode begins and the queue is dropped; one flag for one observation.
            deterministic: start the flow at zero noise. The papers' protocol samples.
            explore: act with `explorer`, and with the slow copies of `explore_with` instead of those of `act_with`.

        Returns:
            Actions `[N, *action_shape]` (no N for one observation), and the new state (None without chunks).

        Raises:
            ValueError: if gymnasium's (observation, info) is passed, keys or shapes do not fit the space, pixels are
                not integers from 0 to 255, or `state` or `episode_start` belong to another number of environments.
        """
        self._stop_training()
        if isinstance(observation, tuple):
            raise ValueError(
                "predict() takes an observation, got a tuple: gymnasium's env.reset() returns (observation, info). "
                "Pass the first of the two."
            )
        tensor, vectorized = self.obs_to_tensor(observation)
        n = len(leaves(tensor)[0])
        starts = starts_of(episode_start, n)
        if n and (state is None or self.horizon == 1):  # The usual case, without the way through the queue.
            queue = self._to_space(self._plan_rows(tensor, n, range(n), deterministic, explore))
            actions, position = queue[:, 0], np.zeros(n, int)
        else:
            queue, position = self._queue(state, n)
            if rows := np.flatnonzero((position >= self.execute) | starts).tolist():
                queue[rows] = self._to_space(self._plan_rows(tensor, n, rows, deterministic, explore))
                position[rows] = 0
            actions = queue[np.arange(n), position]
        new_state = (queue, position + 1) if self.horizon > 1 else None
        return (actions if vectorized else actions[0]), new_state

    def plan_from(self, observation: Observation, noise: np.ndarray) -> np.ndarray:
        """The action chunks made from a given noise, `[N, H, *action_shape]`, in units of the action space.

        Args:
            observation: a batch of N observations.
            noise: where the flow starts, `[N, H * A]`. A sampler that draws anything else raises an error.
        """
        self._stop_training()
        tensor, _ = self.obs_to_tensor(observation)
        start = torch.as_tensor(noise, dtype=torch.float32, device=self.device)
        return self._to_space(self._plan(tensor, ReplayedNoise(self.chunk_dim, [start])))

    def _stop_training(self) -> None:
        """Leaves the training mode. All modules are walked only if a network is in it: the walk takes longer than a
        small network."""
        if self.training or any(network.training for network in self.networks.values()):
            self.set_training_mode(False)

    def _queue(self, state: State | None, n: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (n, self.horizon, *self.action_space.shape)
        if state is None or self.horizon == 1:
            return np.zeros(shape, self.action_space.dtype), np.full(n, self.execute)
        queue, position = np.array(state[0]), np.array(state[1])
        if queue.shape != shape or position.shape != (n,):
            raise ValueError(
                f"state holds chunks of shape {queue.shape}, but {n} observations of this policy need {shape}. "
                "Pass the state that predict() returned for the same environments, or None to plan afresh."
            )
        return queue, position

    def _to_space(self, chunks: Tensor) -> np.ndarray:
        scaled = chunks.float().cpu().numpy().reshape(-1, self.horizon, *self.action_space.shape)
        low, high = self.action_space.low, self.action_space.high
        actions = (low + 0.5 * (scaled + 1.0) * (high - low)).clip(low, high)
        return actions.astype(self.action_space.dtype, copy=False)

    def obs_to_tensor(self, observation: Observation) -> tuple[Any, bool]:
        """A batch `[N, *shape]` of tensors, in a dict for a Dict space, and whether the observation was a batch.

        Raises:
            ValueError: as `predict`.
        """
        batch, is_batch = as_batch(self.observation_space, observation)
        return tree_map(lambda array: as_tensor(array).to(self.device), batch), is_batch

    def is_vectorized_observation(self, observation: Observation) -> bool:
        """Whether the observation is a batch of observations.

        Raises:
            ValueError: if it is neither a batch nor one observation of the space.
        """
        return as_batch(self.observation_space, observation)[1]

    def extract_features(self, obs: Any, features_extractor: Any = None) -> NoReturn:
        """Not supported: there is no features extractor that the networks share.

        Raises:
            NotImplementedError: always; the message names what to use instead.
        """
        raise NotImplementedError(
            "FlowPolicy has no features extractor: each network encodes images and categories itself. Call a network, "
            "for example policy.view().critic(observations, actions) with flat observations, or its encoder: "
            "policy.networks['critic'].encoder(observations)."
        )

    def make_features_extractor(self) -> NoReturn:
        """Not supported, see `extract_features`."""
        self.extract_features(None)

    def __getattr__(self, name: str) -> Any:
        """As in `torch.nn.Module`; for what only other policies have, the error says what to use instead."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            raise AttributeError(f"{error}{INSTEAD.get(name, '')}") from None

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the state of the generator instead of the generator, so that a copy acts the
        same and shares nothing with its original."""
        return {**self.__dict__, "generator": (self.generator.device, self.generator.get_state())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        device, drawn = state["generator"]
        generator = torch.Generator(device=device)
        generator.set_state(drawn)
        super().__setstate__({**state, "generator": generator})  # type: ignore[no-untyped-call]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        spaces_and_acting = ("observation_space", "action_space", "sampler", "explorer", "act_with", "explore_with")
        same = (*spaces_and_acting, "horizon", "execute", "encoder", "scaled", "reward_factor")
        return {"networks": self.specs, **{name: getattr(self, name) for name in same}}

    def check_savable(self) -> None:
        """Raises what `save` would raise for the networks and samplers, without writing anything.

        Raises:
            TypeError: if the factory of a network is not a class with options of plain data, or a sampler is not a
                dataclass of plain data.
        """
        self.declaration()

    def declaration(self) -> dict[str, Any]:
        """Everything that a policy file holds besides the weights, as JSON data.

        Raises:
            TypeError: as `check_savable`.
        """
        return {
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "networks": {name: network_to_json(name, spec) for name, spec in self.specs.items()},
            "sampler": sampler_to_json(self.sampler),
            "explorer": None if self.explorer is None else sampler_to_json(self.explorer),
            "act_with": list(self.act_with),
            "explore_with": list(self.explore_with),
            "horizon": self.horizon,
            "execute": self.execute,
            "encoder": encoder_to_json(self.encoder),
            "scaled": self.scaled,
            "reward_factor": self.reward_factor,
        }

    def save(self, path: str | Path | BinaryIO) -> None:
        """Writes weights and declaration in the safetensors format, without pickle.

        Networks and samplers of other packages are written with the name of their package.

        Args:
            path: a path, whose file is replaced atomically, or a binary file object.

        Raises:
            TypeError: as `check_savable`.
        """
        write_policy(path, self.declaration(), self.state_dict())

    @classmethod
    def load(cls, path: str | Path | BinaryIO, device: torch.device | str = "auto") -> FlowPolicy:
        """Reads what `save` wrote. Nothing in the file is executed.

        Raises:
            FileNotFoundError: if there is no such file.
            ArtifactError: if it is not a policy file or is damaged; if it declares numbers beyond their bounds, or
                networks that its weights do not fit; or if it needs a network, sampler or encoder that is not
                registered here (the message names its package).
            ImportError: if the package of one of them cannot be imported.
        """
        target = get_device(require_device(device))
        config, weights = read_policy(path, target)
        with reading(name_of(path)):
            declared = policy_from_json(config, weights)
            with limited(sum(tensor.numel() for tensor in weights.values())):
                policy = cls(**declared)
            policy.load_state_dict(weights)
            return policy.to(target)
