"""Reads one recording, and builds our networks, weights and batch from it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ports import PORTS, Port, port_of, recorded_name
from torch import Tensor, nn

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.core import Batch, Learner, ReplayedNoise, View
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.core.types import Tree
from flowpolicies.networks import MLP

LAYERS = (
    (r"Dense_(\d+)/kernel", r"layers.\1.weight"),
    (r"Dense_(\d+)/bias", r"layers.\1.bias"),
    (r"LayerNorm_(\d+)/scale", r"norms.\1.weight"),
    (r"LayerNorm_(\d+)/bias", r"norms.\1.bias"),
)
HEADS = {"mean_net": "mean", "OutputDenseMean": "mean", "log_std_net": "log_std", "OutputDenseLogStd": "log_std"}
"""Recorded name of a distribution's head -> ours."""

WHOLE = {"FourierFeatures_0": "embed.frequencies"}
"""Recorded modules of a single parameter -> our name of it."""


class Recording:
    """One `.npz` of golden numbers, seen through our names."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config: dict[str, Any] = json.loads(bytes(self.arrays.pop("config")).decode())
        self.name = recorded_name(path.stem)
        if self.name not in PORTS:
            raise LookupError(f"{path.name} was recorded from {self.name!r}, for which there is no algorithm here yet")
        self.port: Port = port_of(self.name, self.config)
        self.algorithm: type[OfflineAlgorithm] = get_algorithm(self.port.algorithm)
        self.cfg = self.algorithm.Config(**self._hyperparameters())
        self.tau, self.gamma = self.config["tau"], self.config["discount"]
        self.batch = self._batch()
        self.action_dim = self.batch.actions.shape[-1]
        self.specs = self.cfg.networks(self.tau)
        observation_dim = self.batch.observations.shape[-1]
        self.modules: dict[str, nn.Module] = {
            name: spec.factory(observation_dim, self.action_dim) for name, spec in self.specs.items()
        }

    def _hyperparameters(self) -> dict[str, Any]:
        fields = [field.name for field in dataclasses.fields(self.algorithm.Config) if field.name != "encoder"]
        values = {name: self.config[name] for name in fields if name in self.config}
        values |= {
            ours: self.config[theirs] for ours, theirs in self.port.hyperparameters.items() if theirs in self.config
        }
        values |= self.port.derived({**self.config, "recorded_ensemble": self._ensemble()})
        values = self._hidden_dims() | values
        if self.config.get("action_chunking"):
            values["horizon"] = self.config["horizon_length"]
        return {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in fields
        }

    def _ensemble(self) -> int:
        """Members of the recorded critic (RQL's is called value), by the leading axis of its weights."""
        kernels = [a for key, a in self.arrays.items() if re.match(r"param/(critic|value)/.*/Dense_0/kernel", key)]
        return max((kernel.shape[0] for kernel in kernels if kernel.ndim == 3), default=2)

    def _hidden_dims(self) -> dict[str, tuple[int, ...]]:
        """The recorded widths, read from the weights: not every config names them."""
        widths: dict[str, dict[int, int]] = {"value_hidden_dims": {}, "actor_hidden_dims": {}}
        for key, array in self.arrays.items():
            found = re.match(r"param/(?!target_)(\w+)/(\w+)/Dense_(\d+)/bias", key)
            if found:
                kind = "value_hidden_dims" if found[2] == "value_net" else "actor_hidden_dims"
                widths[kind][int(found[3])] = array.shape[-1]
        return {kind: tuple(dims[i] for i in sorted(dims))[:-1] for kind, dims in widths.items() if dims}

    def _batch(self) -> Batch:
        """A plain batch, or the last element of a chunked one."""
        get = {
            key.removeprefix("batch/"): torch.from_numpy(a)
            for key, a in self.arrays.items()
            if key.startswith("batch/")
        }
        if get["rewards"].ndim == 2 and "valid" not in get:
            return self._time_major_batch(get)
        horizon = 1
        if get["actions"].ndim == 3:
            horizon = get["actions"].shape[1]
            last = ("next_observations", "rewards", "masks", "valid")
            get |= {key: get[key][:, -1] for key in last}
            chunked = self.config.get("action_chunking", True)  # Without chunks the return is that of H steps.
            get["actions"] = get["actions"].flatten(1) if chunked else get["actions"][:, 0]
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
            action_mask=torch.ones_like(get["actions"]),
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

    def tree(self, prefix: str, target: bool = False) -> Tree:
        """Recorded tensors `prefix/<network>/...` under our names: the target copies, or the trained ones."""
        trees: Tree = {}
        for key, array in self.arrays.items():
            if not key.startswith(f"{prefix}/"):
                continue
            network, path = key.removeprefix(f"{prefix}/").split("/", 1)
            if network.startswith("target_") != target:
                continue
            network = network.removeprefix("target_")
            ours = self.port.networks.get(network, network)
            name = self._parameter(ours, path)
            if name.startswith("log_std.") and not hasattr(self.modules.get(ours), "log_std"):
                continue  # A distribution of which the algorithm uses the mean only.
            trees.setdefault(ours, {})[name] = torch.from_numpy(array.copy())
        return trees

    def _parameter(self, network: str, path: str) -> str:
        """Our name of a recorded parameter. The names of inner modules vary, so that of our MLP is what counts."""
        inner, _, name = path.partition("/")
        if inner in WHOLE:
            return WHOLE[inner]
        if inner in HEADS:
            head = "net.output" if HEADS[inner] == "mean" and self._deterministic(network) else HEADS[inner]
            return f"{head}.{name}".replace("kernel", "weight")
        for pattern, replacement in LAYERS:
            name = re.sub(pattern, replacement, name)
        children = self.modules[network].named_children() if network in self.modules else ()
        parts = [(part, module) for part, module in children if isinstance(module, MLP)]
        if parts:
            numbered = re.fullmatch(r"MLP_(\d+)", inner)
            part, module = parts[int(numbered[1]) if numbered else 0]
            return f"{part}.{name}".replace(f"layers.{len(module.layers)}.", "output.")
        return name or inner

    def _deterministic(self, network: str) -> bool:
        """Whether our module has no head for the mean: the output of its MLP takes that place."""
        return network in self.modules and not hasattr(self.modules[network], "mean")

    def weights(self, prefix: str, target: bool = False) -> Tree:
        """`tree`, reshaped to our modules' parameters and in their order.

        Raises:
            KeyError: if a parameter of ours was not recorded, or the other way round.
        """
        recorded = self.tree(prefix, target)
        wanted = [name for name, spec in self.specs.items() if not target or spec.target_rate is not None]
        trees: Tree = {}
        for name in wanted:
            shapes = {key: p.shape for key, p in self.modules[name].named_parameters()}
            if shapes.keys() != recorded[name].keys():
                raise KeyError(f"{name}: recorded {sorted(recorded[name])}, ours {sorted(shapes)}")
            trees[name] = {key: recorded[name][key].reshape(shape) for key, shape in shapes.items()}
        return trees

    def gradients(self) -> Tree:
        """The recorded gradients; entries that were all zero are left out."""
        return self.tree("grad")

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

    def sampled(self) -> tuple[Tensor, Tensor]:
        """Our actions at the recorded observations with the recorded draws, and the recorded actions."""
        weights, slow = self.weights("param"), self.weights("param", target=True)
        view = View.of(self.modules, weights | {name: slow[name] for name in self.algorithm.act_with})
        observations = torch.from_numpy(self.arrays["sample/observations"])
        noise = ReplayedNoise(self.action_dim, self.draws("sample_draw"))
        sampler = self.cfg.explorer() or self.cfg.sampler()  # Recorded while exploring.
        actions = sampler(view, observations, noise)
        return actions, torch.from_numpy(self.arrays["sample/actions"]).reshape(actions.shape)

    def losses(self) -> Mapping[str, float]:
        """Recorded scalars, without what they count for rows that are not valid (`Port.invalid_rows`)."""
        scalars = {key.removeprefix("loss/"): float(a) for key, a in self.arrays.items() if key.startswith("loss/")}
        invalid = 1 - float(self.batch.valid.mean())
        counted = self.port.invalid_rows(self.config)
        return {key: value - counted.get(key, 0.0) * invalid for key, value in scalars.items()}
