"""Reads recordings whose update has several stages, each with an optimiser of its own (`config["stages"]`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final
from unittest.mock import patch

import numpy as np
import torch
from names import STAGED, recorded_name
from staged_ports import PORTS, Part, Widths
from torch import Tensor

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.core import Batch, Learner, Network, ReplayedNoise, UpdateSpec, View
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.core.types import Metrics, Tree
from flowpolicies.importing.parameters import SLOW, fitted
from flowpolicies.samplers import Sampler

OURS = ("x", "s", "a", "cos", "sin", "level", "seen")
"""Parts of the inputs of layers in our order: critics take [s, a], noise predictions [x, s, level]."""
PARAMETERS = {
    "kernel": "weight",
    "scale": "weight",
    "weight": "weight",
    "bias": "bias",
    "W": "weight",
    "value": "value",
}
"""Authors' name of a parameter -> ours. Linear layers of torch have a `weight`, which is `[out, in]`."""


class Update(NamedTuple):
    """What one update did."""

    metrics: Metrics
    """Our metrics."""
    gradients: Tree
    """The gradient of each network before it was clipped, at the moment of its step."""


@final
class StagedRecording:
    """One `.npz` of golden numbers, seen through our names."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config: dict[str, Any] = json.loads(bytes(self.arrays.pop("config")).decode())
        self.algorithm: type[OfflineAlgorithm] = get_algorithm(STAGED[recorded_name(path.stem)])
        self.port = PORTS[self.algorithm.name](self.config)
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in self.port.fields.items()}
        self.cfg = self.algorithm.Config(**fields)
        common = self.config if "discount" in self.config else self.config["critic"]  # BDPO has them there.
        self.gamma: float = common["discount"]
        tau = next(common[name] for name in ("tau", "ema_tau", "ema") if name in common)
        self.specs: dict[str, Network] = {
            name: replace(spec, factory=partial(spec.factory, **self.port.options.get(name, {})))
            for name, spec in self.cfg.networks(tau).items()
        }
        sizes = (self.arrays[f"batch/{name}"].shape[-1] for name in ("observations", "actions"))
        observation_dim, self.action_dim = sizes
        self.modules = {name: spec.factory(observation_dim, self.action_dim) for name, spec in self.specs.items()}
        for name, recorded in self._recorded("param").items():
            for key, constant in self.modules[name].named_buffers():
                constant.copy_(recorded.get(key, constant))

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Recorded arrays `prefix/...` without the prefix, in order."""
        keys = sorted(key for key in self.arrays if key.startswith(f"{prefix}/"))
        return {key.removeprefix(f"{prefix}/"): torch.from_numpy(self.arrays[key].copy()) for key in keys}

    def _recorded(self, prefix: str, slow: str = "") -> Tree:
        """Recorded tensors `prefix/<network>/...` by our names.

        Args:
            prefix: beginning of the names.
            slow: beginning of the names of networks: "", or `SLOW` for the slow copies.
        """
        arrays, found = self.below(prefix), {}
        for name, part in self.port.parts.items():
            members = [_by_our_names(arrays, f"{slow}{place}", part) for place in part.places]
            single = len(members) == 1
            tree = {key: members[0][key] if single else torch.stack([m[key] for m in members]) for key in members[0]}
            found |= {name: tree} if tree else {}
        return found

    def unread(self, prefix: str) -> list[str]:
        """Recorded weights `prefix/...` that the port does not know."""
        places = [
            (f"{slow}{place}", part)
            for part in self.port.parts.values()
            for place in part.places
            for slow in ("", SLOW)
        ]
        known = {"/".join(filter(None, (place, layer))) for place, part in places for layer in part.layers}
        return [key for key in self.below(prefix) if key.rpartition("/")[0] not in known]

    def weights(self, prefix: str, slow: str = "") -> Tree:
        """Recorded weights of networks by our names: the trained ones, or with `SLOW` the slow copies.

        Raises:
            ValueError: if a parameter of a recorded network is missing.
        """
        recorded = self._recorded(prefix, slow)
        modules = {name: self.modules[name] for name in self.specs if name in recorded}
        constants = {name: dict(module.named_buffers()) for name, module in modules.items()}
        trained = {n: {k: v for k, v in recorded[n].items() if k not in constants[n]} for n in modules}
        return fitted(trained, modules)

    def gradients(self) -> Tree:
        """Recorded gradients of our losses, without those that are zero but for rounding."""
        return {
            name: {
                key: gradient / self.port.parts[name].summed
                for key, gradient in tree.items()
                if key not in self.port.parts[name].rounding
            }
            for name, tree in self._recorded("grad").items()
        }

    def losses(self, prefix: str = "") -> dict[str, float]:
        """Recorded scalars `[prefix/]loss/...` by their own names, without those of parts of the algorithm."""
        scalars = self.below(f"{prefix}loss")
        return {
            key.rpartition("/")[2].removeprefix("loss_").removeprefix("misc_"): float(scalar)
            for key, scalar in scalars.items()
        }

    def batch(self, prefix: str = "") -> Batch:
        """The batch `[prefix/]batch/...`."""
        get = self.below(f"{prefix}batch")
        return Batch(
            observations=get["observations"],
            actions=get["actions"],
            next_observations=get["next_observations"],
            next_actions=torch.zeros_like(get["actions"]),
            rewards=get["rewards"],
            discounts=self.gamma * get["masks"],
            valid=torch.ones_like(get["rewards"]),
            action_mask=torch.ones_like(get["actions"]),
        )

    def update_spec(self, number: int) -> UpdateSpec:
        """What update `number` does."""
        return self.port.update_spec(self.cfg.update_spec(number))

    def state(self) -> LearnerState:
        """Weights before the update, with zero moments."""
        params = self.weights("param")
        return LearnerState(params, self.weights("param", SLOW), initial_moments(params))

    def update(
        self, state: LearnerState, number: int, draws: str = "draw", prefix: str = "", spec: UpdateSpec | None = None
    ) -> Update:
        """One update in place by the public learner with the algorithm's own loss terms.

        Args:
            state: weights and moments.
            number: number of the update, which schedules depend on.
            draws: name of its draws.
            prefix: beginning of the names of batch and draws, such as `multi/0/`.
            spec: what it does, if not `update_spec(number)`.
        """
        batch, spec = self.batch(prefix), spec or self.update_spec(number)
        learner, found = self._learner(self.specs, self.cfg.clip_grad_norm), {}
        free = {name: replace(network, clip_grad_norm=None) for name, network in self.specs.items()}
        clipped, unclipped = learner.gradients, self._learner(free, None).gradients

        def watched(*inputs: Any) -> tuple[Tree, Metrics]:
            found.update(unclipped(*inputs)[0])
            return clipped(*inputs)

        with self._stored_support(prefix, batch), patch.object(learner, "gradients", watched):
            ours = self.port.draws(list(self.below(f"{prefix}{draws}").values()), number)
            asked = learner.draws(state, batch, spec, [torch.Generator()])
            assert [len(stage) for stage in ours] == [len(stage) for stage in asked], "other draws than recorded"
            metrics = learner.update(state, batch, ours, spec, torch.tensor(self.config["lr"]))
        return Update(metrics, found)

    def _learner(self, specs: Mapping[str, Network], clip: float | None) -> Learner:
        terms = self.algorithm.losses
        return Learner(self.modules, specs, terms, self.cfg, action_dim=self.action_dim, clip_grad_norm=clip)

    @contextmanager
    def _stored_support(self, prefix: str, batch: Batch) -> Iterator[None]:
        """QGPO's actions of the behaviour, which the authors store, in place of those that we sample."""
        stored = self.below(f"{prefix}batch")
        if "fake_a" not in stored:
            yield
            return

        def support(nets: Any, observations: Tensor, *_: Any) -> Tensor:
            return stored["fake_a" if torch.equal(observations, batch.observations) else "fake_a_"]

        with patch("flowpolicies.algorithms.qgpo.sample_support", support):
            yield

    def acted(self, sampler: Sampler, name: str) -> tuple[Tensor, Tensor]:
        """Our actions at the observations `name/observations` with the draws `name_draw/...`, and the recorded ones."""
        slow = {k: v for k, v in self.weights("param", SLOW).items() if k in self.algorithm.act_with}
        view = View.of(self.modules, self.weights("param") | slow)
        draws = self.port.acting_draws(list(self.below(f"{name}_draw").values()))
        recorded = self.below(name)
        actions = sampler(view, recorded["observations"], ReplayedNoise(self.action_dim, draws))
        return actions, recorded["actions"].reshape(actions.shape)


def _by_our_names(arrays: Mapping[str, Tensor], place: str, part: Part) -> dict[str, Tensor]:
    """The tensors below a place, by our names of the parameters of a network."""
    found = {}
    for theirs, ours in part.layers.items():
        for kind, parameter in PARAMETERS.items():
            tensor = arrays.get("/".join(filter(None, (place, theirs, kind))))
            if tensor is None:
                continue
            if kind == "weight" and tensor.ndim == 2:
                tensor = tensor.mT
            if parameter == "weight" and ours in part.inputs:
                tensor = _in_our_order(tensor, part.inputs[ours])
            name = "frequencies" if ours == "embed" else parameter
            found[".".join(filter(None, (ours, name)))] = -tensor if ours in part.negated else tensor
    return found


def _in_our_order(weight: Tensor, theirs: Widths) -> Tensor:
    """A weight `[.., in, out]` of the authors' input as one of ours."""
    rows = dict(zip(theirs, weight.split(list(theirs.values()), -2), strict=True))
    return torch.cat([rows[name] for name in OURS if name in rows], -2)
