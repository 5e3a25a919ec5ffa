"""Reads one recording, and builds our networks, weights and batch from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from names import port_of
from ports import Replayed
from torch import Tensor, nn

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.core import Batch, Learner, ReplayedNoise, UpdateSpec, View
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.core.types import Tree
from flowpolicies.importing.parameters import fitted, hyperparameters, renamed
from flowpolicies.importing.ports import Port

EVALUATES = {"sample": True, "sample_explore": False}
"""Prefix of a recorded sampler -> whether the networks in `act_with` are slow copies, as in evaluation."""


class Update(NamedTuple):
    """One of several consecutive updates."""

    spec: UpdateSpec
    batch: Batch
    draws: list[Tensor]
    losses: Mapping[str, float]


class Recording:
    """One `.npz` of golden numbers, seen through our names."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config: dict[str, Any] = json.loads(bytes(self.arrays.pop("config")).decode())
        port = port_of(path.stem)
        if port is None:
            raise LookupError(f"{path.name} has no port, or several stages: see tests/parity/names.py")
        self.port: Replayed = port
        self.translation: Port = self.port.port
        self.algorithm: type[OfflineAlgorithm] = get_algorithm(self.translation.algorithm)
        self.cfg = self.algorithm.Config(
            **hyperparameters(self.translation, self.algorithm.Config, self.config, self.below("param"))
        )
        self.tau, self.gamma = self.config["tau"], self.config["discount"]
        self.batch = self._batch("batch")
        self.action_dim = self.batch.actions.shape[-1]
        self.specs = self.cfg.networks(self.tau)
        observation_dim = self.batch.observations.shape[-1]
        self.modules: dict[str, nn.Module] = {
            name: spec.factory(observation_dim, self.action_dim) for name, spec in self.specs.items()
        }

    def _batch(self, prefix: str) -> Batch:
        """A plain batch, or the last element of a chunked one."""
        get = {name: torch.from_numpy(a) for name, a in self.below(prefix).items()}
        if get["rewards"].ndim == 2 and "valid" not in get:
            return self._time_major_batch(get)
        horizon, mask = 1, torch.ones_like(get["actions"])
        if get["actions"].ndim == 3:
            horizon = get["actions"].shape[1]
            mask = mask * get["valid"].unsqueeze(-1)
            last = ("next_observations", "rewards", "masks", "valid")
            get |= {key: get[key][:, -1] for key in last}
            chunked = self.config.get("action_chunking", True)  # Without chunks the return is that of H steps.
            get["actions"], mask = (a.flatten(1) if chunked else a[:, 0] for a in (get["actions"], mask))
        ones = torch.ones_like(get["rewards"])
        return Batch(
            observations=get["observations"],
            actions=get["actions"],
            next_observations=get["next_observations"],
            next_actions=get["next_actions"]
            if horizon == 1 and "next_actions" in get
            else torch.zeros_like(get["actions"]),
            rewards=get["rewards"],
            discounts=self.gamma**horizon * get["masks"],
            valid=get.get("valid", ones),
            action_mask=mask,
        )

    def _time_major_batch(self, get: Mapping[str, Tensor]) -> Batch:
        """Fields `[h + 1, B, ...]`, from which the recorded loss makes the rest."""
        horizon = len(get["rewards"]) - 1
        past = get["terminals"].roll(1, 0)
        past[0] = 0
        powers = self.gamma ** torch.arange(horizon).unsqueeze(-1)
        actions = get["actions"][:horizon]
        return Batch(
            observations=get["observations"][0],
            actions=actions.movedim(0, 1).flatten(1),
            next_observations=get["observations"][horizon],
            next_actions=torch.zeros_like(actions.movedim(0, 1).flatten(1)),
            rewards=(powers * (1 - past[:horizon]) * get["rewards"][:horizon]).sum(0),
            discounts=self.gamma**horizon * get["masks"][horizon - 1],
            valid=(past.sum(0) <= 1).float(),
            action_mask=(1 - past[:horizon]).T.repeat_interleave(actions.shape[-1], -1),
        )

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """Recorded arrays `prefix/<network>/...` without the prefix."""
        return {key.removeprefix(f"{prefix}/"): a for key, a in self.arrays.items() if key.startswith(f"{prefix}/")}

    def weights(self, prefix: str, target: bool = False) -> Tree:
        """Recorded tensors `prefix/<network>/...` under our names, reshaped to our modules' parameters: the target
        copies, or the trained ones.

        Raises:
            ValueError: if a parameter of ours was not recorded, or the other way round.
        """
        wanted = [name for name, spec in self.specs.items() if not target or spec.target_rate is not None]
        recorded = renamed(self.below(prefix), self.translation, self.modules, slow=target)
        return fitted(recorded, {name: self.modules[name] for name in wanted})

    def gradients(self) -> Tree:
        """The recorded gradients; entries that were all zero are left out."""
        return renamed(self.below("grad"), self.translation, self.modules)

    def draws(self, prefix: str) -> list[Tensor]:
        """Recorded draws in order. TensorFlow Probability draws a diagonal normal with its event axis in front."""
        keys = sorted(key for key in self.arrays if key.startswith(f"{prefix}/"))
        values = {key: torch.from_numpy(self.arrays[key].copy()) for key in keys}
        values |= {key: value - self.port.first_integer for key, value in values.items() if key.endswith(".randint")}
        return [value.movedim(0, -1) if "_normal_jax" in key else value for key, value in values.items()]

    def learner(self, clipped: bool = True) -> Learner:
        """The public learner with the algorithm's own loss terms. Gradients were recorded before they were clipped."""
        return Learner(
            self.modules,
            self.specs,
            self.algorithm.losses,
            self.cfg,
            action_dim=self.action_dim,
            clip_grad_norm=self.cfg.clip_grad_norm if clipped else None,
        )

    def state(self) -> LearnerState:
        """Weights before the update, with zero moments."""
        params = self.weights("param")
        return LearnerState(params, self.weights("param", target=True), initial_moments(params))

    def updates(self) -> list[Update]:
        """Consecutive updates from `param` with fresh moments, in order; empty if none were recorded."""
        numbers = sorted({int(key.split("/")[1]) for key in self.arrays if re.match(r"multi/\d+/", key)})
        assert numbers == list(range(min(numbers, default=0), max(numbers, default=-1) + 1))  # From 0, or from 1.
        return [
            Update(
                self.cfg.update_spec(step),
                self._batch(f"multi/{number}/batch"),
                self.draws(f"multi/{number}/draw"),
                self.scalars(f"multi/{number}/loss"),
            )
            for step, number in enumerate(numbers)
        ]

    def samplers(self) -> list[str]:
        """Prefixes of the recorded samplers, each with its `..._draw/`."""
        return sorted({key.split("/")[0] for key in self.arrays if re.match("sample(_.*)?/actions", key)})

    def sampled(self, prefix: str) -> tuple[Tensor, Tensor]:
        """Our actions at the recorded observations with the recorded draws, and the recorded actions."""
        weights, slow = self.weights("param"), self.weights("param", target=True)
        acting = {name: slow[name] for name in self.algorithm.act_with} if EVALUATES[prefix] else {}
        view = View.of(self.modules, weights | acting)
        observations = torch.from_numpy(self.arrays.get(f"{prefix}/observations", self.arrays["sample/observations"]))
        noise = ReplayedNoise(self.action_dim, self.draws(f"{prefix}_draw"))
        sampler = self.cfg.explorer() or self.cfg.sampler()  # Recorded while exploring.
        actions = sampler(view, observations, noise)
        return actions, torch.from_numpy(self.arrays[f"{prefix}/actions"]).reshape(actions.shape)

    def scalars(self, prefix: str) -> dict[str, float]:
        """Recorded scalars `prefix/...`."""
        return {name: float(a) for name, a in self.below(prefix).items()}

    def losses(self) -> Mapping[str, float]:
        """Recorded scalars, without what they count for rows that are not valid (`Port.invalid_rows`)."""
        invalid = 1 - float(self.batch.valid.mean())
        counted = self.port.invalid_rows(self.config)
        return {key: value - counted.get(key, 0.0) * invalid for key, value in self.scalars("loss").items()}
