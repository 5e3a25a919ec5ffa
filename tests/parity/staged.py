"""Reads recordings whose update has several stages, each with its own optimiser (`config["stages"]`).

A port says, for one algorithm, how the authors' hyperparameters, layers, draws and logged numbers are spelled here. Every
recorded weight must be read: a name that a port does not know is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final
from unittest.mock import patch

import numpy as np
import torch
from names import STAGED, recorded_name
from torch import Tensor, nn

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm, qgpo
from flowpolicies.core import Batch, Learner, Network, ReplayedNoise, UpdateSpec, View
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import Draws, LearnerState
from flowpolicies.core.types import Metrics, Tree
from flowpolicies.flows import curriculum
from flowpolicies.importing.parameters import fitted
from flowpolicies.samplers import Sampler

Recorded = Mapping[str, Any]
Widths = Mapping[str, int]

OURS = ("x", "s", "a", "cos", "sin", "level", "seen")
"""Parts of the inputs of layers, in our order: critics take [s, a], noisy networks [x, s, level]."""
PARAMETERS = {"kernel": "weight", "scale": "weight", "weight": "weight", "bias": "bias", "W": "", "value": "value"}


@final
@dataclass(frozen=True)
class Part:
    """Where the weights of one of our networks are in a recording."""

    places: tuple[str, ...]
    """The authors' network, or one place for each member of our ensemble."""
    layers: Mapping[str, str]
    """Authors' layer -> our layer."""
    inputs: Mapping[str, Widths] = field(default_factory=dict)
    """Our layer -> the parts of its input in the authors' order, and their widths."""
    factor: float = 1.0
    """What our gradient is multiplied by to be that of the authors' loss."""
    rounding: tuple[str, ...] = ()
    """Our names of parameters whose gradient is zero but for rounding; these are not compared."""


@final
@dataclass(frozen=True)
class Staged:
    """The port of one algorithm at the sizes of one recording."""

    fields: Mapping[str, Any]
    """Hyperparameters by our names."""
    parts: Mapping[str, Part]
    """Our network -> its place in the recording."""
    draws: Callable[[list[Tensor], int], Draws]
    """The recorded draws of update number `k`, in their order, as ours per stage."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Our network -> options that its Config does not offer, which were smaller when it was recorded."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Recorded loss -> our metric; several losses of the same metric are its parts, whose mean it is."""
    update_spec: Callable[[UpdateSpec], UpdateSpec] = lambda spec: spec
    """What the recorded update does, from what ours of the same number does."""
    chosen: Callable[[list[Tensor]], list[Tensor]] = lambda draws: draws
    """The recorded draws of acting as ours."""


def mlp(theirs: str, ours: str, hidden: int, output: str | None = None, step: int = 1) -> dict[str, str]:
    """Layers `theirs{0}`, `theirs{step}`, .. of an MLP with so many hidden layers, and its output."""
    names = {f"{theirs}{step * i}": f"{ours}.layers.{i}" for i in range(hidden)}
    return names | {output or f"{theirs}{step * hidden}": f"{ours}.output"}


def each(draws: Iterable[Tensor], *shape: int) -> list[Tensor]:
    """Rows of N draws per state, in row-major order, as `[B, N, A]`."""
    return [draw.reshape(*shape) for draw in draws]


def drawn(draws: list[Tensor], *, first_integer: int = 0) -> list[Tensor]:
    """Integers are counted from 0 here."""
    return [draw if draw.is_floating_point() else draw - first_integer for draw in draws]


def coin(draw: Tensor) -> Tensor:
    """More than 1/2 climbs the first critic in the authors' code, less than 1/2 here."""
    return 1 - draw


def chosen_index(draws: list[Tensor], candidates: int) -> list[Tensor]:
    """A drawn index as uniform numbers, of which the largest is at this index."""
    *chain, index = draws
    return [*chain, nn.functional.one_hot(index.squeeze(), candidates).float()]


def idql(c: Recorded) -> Staged:
    blocks = [f"MLPResNet_0/MLPResNetBlock_{i}" for i in range(c["actor_num_blocks"])]
    inner = {"Dense_0": "widen", "Dense_1": "narrow", "LayerNorm_0": "norm"}
    actor = {f"{block}/{a}": f"blocks.{i}.{b}" for i, block in enumerate(blocks) for a, b in inner.items()}
    ends = {"FourierFeatures_0": "embed", "MLPResNet_0/Dense_0": "input", "MLPResNet_0/Dense_1": "output"}
    hidden = len(c["critic_hidden_dims"])
    q = mlp("MLP_0/Dense_", "net", hidden, "Dense_0")

    def draws(theirs: list[Tensor], k: int) -> Draws:
        level, eps, *kept = theirs
        return [[torch.stack(kept, 1).float(), level, eps], [], []]

    return Staged(
        fields={
            "actor_hidden_dims": (c["actor_hidden_dim"],) * len(blocks),
            "actor_layer_norm": c["actor_layer_norm"],
            "value_hidden_dims": c["critic_hidden_dims"],
            "ensemble": c["num_qs"],
            "expectile": c["critic_hyperparam"],
            "dropout": c["actor_dropout_rate"],
            "ema": 1 - c["actor_tau"],
            "decay_updates": c["decay_steps"],
            "num_samples": c["N"],
            "diffusion_steps": c["T"],
            "beta_schedule": c["beta_schedule"],
        },
        parts={
            "actor_diffusion": Part(("actor",), actor | ends | mlp("MLP_0/Dense_", "time", 1)),
            "value": Part(("value",), {"MLP_0/LayerNorm_0": "norm", **mlp("MLP_0/Dense_", "net", hidden, "OutputVDense")}),
            "critic": Part(("critic/VmapStateActionValue_0",), q),
        },
        draws=draws,
        options={"actor_diffusion": {"time_dim": c["time_dim"], "time_hidden_dims": (2 * c["time_dim"],) * 2}},
        metrics={
            "actor_loss": "actor/loss",
            "value_loss": "value/loss",
            "critic_loss": "critic/loss",
            "v_mean": "value/v_mean",
            "q_mean": "critic/q_mean",
        },
    )


def backpropagated(c: Recorded, actor: str, fields: Mapping[str, Any], draws: Callable[..., Draws]) -> Staged:
    """Diffusion-QL and CAC, which share their networks."""
    hidden = len(c["hidden_dims"])
    level = {"model/time_mlp/1": "time.layers.0", "model/time_mlp/3": "time.output"}
    body = mlp("model/mid_layer/", "net", hidden, "model/final_layer", step=2)
    return Staged(
        fields={
            "actor_hidden_dims": c["hidden_dims"],
            "value_hidden_dims": c["hidden_dims"],
            "clip_grad_norm": c["grad_norm"],
            "critic_learning_rate": c["critic_lr"],
            "eta": c["eta"],
            "max_q_backup": c["max_q_backup"],
            "ema": c["ema_decay"],
            "ema_every": c["update_ema_every"],
            "ema_start": c["step_start_ema"],
            "num_samples": c["candidates"],
            **fields,
        },
        parts={
            "critic": Part(("critic/q1_model", "critic/q2_model"), mlp("", "net", hidden, step=2)),
            actor: Part(
                ("actor",),
                level | body,
                {"time.layers.0": {"sin": 8, "cos": 8}, "net.layers.0": {"x": c["action_dim"], "level": 16, "s": 6}},
            ),
        },
        draws=draws,
        metrics={
            "bc_loss": "actor/bc_loss",
            "ql_loss": "actor/q_loss",
            "actor_loss": "actor/loss",
            "critic_loss": "critic/loss",
        },
        chosen=partial(chosen_index, candidates=c["candidates"]),
    )


def diffusion_ql(c: Recorded) -> Staged:
    chain = c["n_timesteps"] + 1

    def draws(theirs: list[Tensor], k: int) -> Draws:
        shape = (-1, 10, 3) if c["max_q_backup"] else theirs[0].shape
        return [each(theirs[:chain], *shape), [*theirs[chain:-1], coin(theirs[-1])]]

    return backpropagated(
        c,
        "actor_diffusion",
        {"diffusion_steps": c["n_timesteps"], "beta_schedule": c["beta_schedule"]},
        draws,
    )


def cac(c: Recorded) -> Staged:
    chain, period = c["n_timesteps"], c["curriculum_iterations_multi"]

    def draws(theirs: list[Tensor], k: int) -> Draws:
        *acted, heads, z, n = theirs[chain:]
        uniform = (n + 0.5) / (curriculum(torch.tensor(float(k)), period) - 1)
        shape = (-1, 10, 3) if c["max_q_backup"] else theirs[0].shape
        return [each(theirs[:chain], *shape), [uniform, z, *acted, coin(heads)]]

    fields = {"consistency_steps": c["n_timesteps"], "q_norm": c["q_norm"], "curriculum_steps": period}
    return backpropagated(c, "actor_onestep", fields, draws)


def bdpo(c: Recorded) -> Staged:
    q, net = c["critic"], c["diffusion"]
    hidden, steps, d = len(q["hidden_dims"]), net["steps"], net["time_dim"]
    noise = mlp("MLP_0/Dense_", "time", 1) | mlp("noise_predictor/Dense_", "net", len(net["mlp_hidden_dims"]))
    body = mlp("backbone/Dense_", "net", hidden, "Dense_0")
    norms = {f"backbone/LayerNorm_{i}": f"net.norms.{i}" for i in range(hidden)}
    behavior = ["behavior"]

    def draws(theirs: list[Tensor], k: int) -> Draws:
        values = drawn(theirs, first_integer=1)
        return [values] if len(theirs) == 2 else [values[: steps + 4], values[steps + 4 :]]

    eps = Part((), noise, {"net.layers.0": {"x": c["action_dim"], "level": d, "s": 6}})
    return Staged(
        fields={
            "actor_hidden_dims": net["mlp_hidden_dims"],
            "value_hidden_dims": q["hidden_dims"],
            "value_layer_norm": q["layer_norm"],
            "ensemble": q["ensemble_size"],
            "rho": q["rho"],
            "eta": q["eta"],
            "next_samples": q["num_samples"],
            "max_q_backup": q["maxQ"],
            "num_samples": c["eval_samples"],
            "temperature": c["temperature"],
            "pretrain_steps": 0,
            "actor_warmup": c["warmup_steps"],
            "actor_every": q["update_ratio"],
            "actor_learning_rate": net["actor"]["lr"],
            "behavior_learning_rate": net["behavior"]["lr"],
            "decay_updates": q["lr_decay_steps"],
            "clip_grad_norm": q["clip_grad_norm"],
            "diffusion_steps": steps,
            "beta_schedule": net["noise_schedule"],
        },
        parts={
            "actor_slow": replace(eps, places=("behavior",)),
            "actor_diffusion": replace(eps, places=("actor",)),
            "critic": Part(("q0/base",), body),
            "inner_value": Part(
                ("vt/base",),
                body | norms | mlp("MLP_0/Dense_", "time", 1),
                {"net.layers.0": {"s": 6, "x": c["action_dim"], "level": d}},
            ),
        },
        draws=draws,
        options={
            "actor_slow": {"time_dim": d, "time_hidden_dims": (d, d)},
            "actor_diffusion": {"time_dim": d, "time_hidden_dims": (d, d)},
            "inner_value": {"time_dim": d, "time_hidden_dims": (2 * d, d)},
        },
        metrics={
            "ddpm_loss": "behavior/loss",
            "actor_loss": "actor/loss",
            "q0_loss": "critic/loss",
            "vt_loss": "inner_value/loss",
            "q0_mean": "critic/q_mean",
            "q0_penalty": "critic/kl",
        },
        # Our first update after the pretraining also sets the actor to the behaviour, which was not recorded.
        update_spec=lambda spec: spec._replace(copy_weights=()),
    )


def qgpo_port(c: Recorded) -> Staged:
    a, d = c["action_dim"], c["condition_dim"]
    widths, hidden, energy = c["actor_hidden_dims"], len(c["value_hidden_dims"]), len(c["energy_hidden_dims"])
    down = {f"down_block{i + 1}": f"down.{i}" for i in range(len(widths))}
    up = {f"up_block{len(widths) - i}": f"up.{i}" for i in range(len(widths) - 1)}
    inner = {"time_mlp/1": "condition", "dense1/0": "entry", "dense2/0": "output", "modify_x": "skip"}
    blocks = {
        f"{theirs}/{layer}": f"{ours}.{name}"
        for theirs, ours in {**down, **up, "middle1": "bottom"}.items()
        for layer, name in inner.items()
        if not (name == "skip" and ours.startswith(("up", "bottom")))
    }
    level = {"embed/0": "embed", "embed/1": "time"}
    mixed = {"pre_sort_condition/0/dense": "observe", "sort_t/0": "mix.layers.0", "sort_t/2": "mix.output"}
    rows = len(widths)

    def draws(theirs: list[Tensor], k: int) -> Draws:
        u, z, *noise = theirs
        return [[u, z], [], noise]

    del rows
    return Staged(
        fields={
            "actor_hidden_dims": widths,
            "value_hidden_dims": c["value_hidden_dims"],
            "energy_hidden_dims": c["energy_hidden_dims"],
            "alpha": c["alpha"],
            "q_alpha": c["q_alpha"],
            "guidance_scale": c["guidance_scale"],
            "num_samples": c["M"],
            "solver_steps": c["diffusion_steps"],
            "support_steps": c["diffusion_steps"],
            "actor_learning_rate": c["actor_lr"],
        },
        parts={
            "actor_diffusion": Part(
                ("actor",),
                level | mixed | blocks | {"last": "output"},
                {"time": {"sin": 16, "cos": 16}, "mix.layers.0": {"seen": 32, "level": 32}},
                factor=1.0,
            ),
            "critic": Part(("critic/q1", "critic/q2"), mlp("", "net", hidden, step=2), {"net.layers.0": {"a": a, "s": 6}}),
            "inner_value": Part(
                ("energy",),
                {"embed/0": "embed", "embed/1": "time.output"} | mlp("qt/", "net", energy, step=2),
                {"time.output": {"sin": 16, "cos": 16}, "net.layers.0": {"x": a, "level": 32, "s": 6}},
                rounding=("net.output.bias",),
            ),
        },
        draws=draws,
        options={"actor_diffusion": {"condition_dim": d}},
        metrics={"behaviour": "behavior/loss", "critic": "critic/loss", "energy": "energy/loss"},
        update_spec=lambda spec: UpdateSpec((("behavior",), ("critic",), ("energy",)), targets_first=False),
    )


def dac_d4rl(c: Recorded) -> Staged:
    a, hidden = c["action_dim"], len(c["hidden_dims"])
    layers = mlp("MLP_0/Dense_", "time", 1) | mlp("MLP_1/Dense_", "net", hidden)

    def draws(theirs: list[Tensor], k: int) -> Draws:
        chain = c["T"] + 1
        return [each(theirs[:chain], -1, c["num_q_samples"], a), drawn(theirs[chain:], first_integer=1)]

    return Staged(
        fields={
            "actor_hidden_dims": c["hidden_dims"],
            "value_hidden_dims": c["hidden_dims"],
            "ensemble": c["num_qs"],
            "rho": c["rho"],
            "eta": c["eta"],
            "eta_lr": c["eta_lr"],
            "threshold": c["bc_threshold"],
            "next_samples": c["num_q_samples"],
            "max_q_backup": c["maxQ"],
            "num_samples": c["num_action_samples"],
            "critic_learning_rate": c["critic_lr"],
            "decay_updates": c["lr_decay_steps"],
            "clip_grad_norm": c["clip_grad_norm"],
            "ema_every": c["update_ema_every"],
            "ema_start": c["step_start_ema"],
            "diffusion_steps": c["T"],
            "beta_schedule": c["beta_schedule"],
        },
        parts={
            "critic": Part(("critic/VmapQNet_0",), mlp("MLP_0/Dense_", "net", hidden)),
            "actor_diffusion": Part(("actor",), layers, {"net.layers.0": {"s": 6, "x": a, "level": 32}}),
            "temperature": Part(("eta",), {"": ""}),
        },
        draws=draws,
        options={"actor_diffusion": {"time_dim": c["time_dim"]}},
        metrics={
            "critic_loss": "critic/loss",
            "qs": "critic/q_mean",
            "actor_loss": "actor/loss",
            "bc_loss": "actor/bc_loss",
            "guidance_loss": "actor/guidance",
            "Q_norm": "actor/q_size",
        },
    )


def qsm_online(c: Recorded) -> Staged:
    hidden = len(c["critic_hidden_dims"])
    level = {"FourierFeatures_0": "embed", **mlp("MLP_0/Dense_", "time", 1)}

    def draws(theirs: list[Tensor], k: int) -> Draws:
        return [theirs[:-2], theirs[-2:]]

    return Staged(
        fields={
            "actor_hidden_dims": c["actor_hidden_dims"],
            "value_hidden_dims": c["critic_hidden_dims"],
            "inv_temp": c["M_q"],
            "time_dim": c["time_dim"],
            "actor_decay_updates": c["decay_steps"],
            "diffusion_steps": c["T"],
            "beta_schedule": c["beta_schedule"],
        },
        parts={
            "critic": Part(("critic_1", "critic_2"), mlp("MLP_0/Dense_", "net", hidden, "Dense_0"), factor=2.0),
            "actor_diffusion": Part(("actor",), level | mlp("MLP_1/Dense_", "net", len(c["actor_hidden_dims"]))),
        },
        draws=draws,
        options={"actor_diffusion": {"time_hidden_dims": c["time_hidden_dims"]}},
        metrics={
            "c_loss_mean_1": "critic/loss",
            "c_loss_mean_2": "critic/loss",
            "q_mean_1": "critic/q_mean",
            "q_mean_2": "critic/q_mean",
            "actor_loss_mean": "actor/loss",
            "critic_jacobian_mag": "actor/q_gradient",
        },
    )


PORTS: Mapping[str, Callable[[Recorded], Staged]] = {
    "bdpo": bdpo,
    "cac": cac,
    "dac_d4rl": dac_d4rl,
    "diffusion_ql": diffusion_ql,
    "idql": idql,
    "qgpo": qgpo_port,
    "qsm_online": qsm_online,
}
"""Name of the algorithm -> its port."""


@final
class StagedRecording:
    """One recording through our names."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config: dict[str, Any] = json.loads(bytes(self.arrays.pop("config")).decode())
        name = STAGED[recorded_name(path.stem)]
        self.algorithm: type[OfflineAlgorithm] = get_algorithm(name)
        self.port = PORTS[name](self.config)
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in self.port.fields.items()}
        self.cfg = self.algorithm.Config(**fields)
        critic = self.config.get("critic", {})
        tau = self.config.get("tau", self.config.get("ema_tau", critic.get("ema")))
        self.gamma = self.config.get("discount", critic.get("discount"))
        self.action_dim = self.config["action_dim"]
        self.specs: dict[str, Network] = {
            network: replace(spec, factory=partial(spec.factory, **self.port.options.get(network, {})))
            for network, spec in self.cfg.networks(tau).items()
        }
        observation_dim = self.arrays["batch/observations"].shape[-1]
        self.modules = {name: spec.factory(observation_dim, self.action_dim) for name, spec in self.specs.items()}
        self._load_constants()

    def _load_constants(self) -> None:
        """Copies what is not trained, such as frozen frequencies, into our modules."""
        weights, _ = self._read("param", slow=False)
        for name, module in self.modules.items():
            for key, buffer in module.named_buffers():
                if key in weights[name]:
                    buffer.copy_(weights[name][key].reshape(buffer.shape))

    def _read(self, prefix: str, *, slow: bool) -> tuple[Tree, set[str]]:
        """Recorded tensors by our names, and the keys that were read."""
        tree, used = {}, set()
        for name, part in self.port.parts.items():
            members = []
            for place in part.places:
                start = f"{prefix}/{'target_' if slow else ''}{place}"
                found, keys = self._layers(start, part)
                members.append(found)
                used |= keys
            if members[0]:
                tree[name] = {
                    key: members[0][key] if len(members) == 1 else torch.stack([member[key] for member in members])
                    for key in members[0]
                }
        return tree, used

    def _layers(self, start: str, part: Part) -> tuple[dict[str, Tensor], set[str]]:
        found, used = {}, set()
        for theirs, ours in part.layers.items():
            for kind, parameter in PARAMETERS.items():
                key = "/".join(filter(None, (start, theirs, kind)))
                if key not in self.arrays:
                    continue
                value = torch.from_numpy(self.arrays[key].copy())
                value = value.mT if kind == "weight" and value.ndim == 2 else value
                if parameter == "weight" and ours in part.inputs:
                    value = in_our_order(value, part.inputs[ours])
                name = "frequencies" if ours == "embed" else parameter
                found[".".join(filter(None, (ours, name)))] = value
                used.add(key)
        return found, used

    def weights(self, prefix: str, *, slow: bool = False) -> Tree:
        """Recorded weights `prefix/...`: the slow copies, or the trained ones.

        Raises:
            ValueError: if a parameter of ours was not recorded.
        """
        recorded, _ = self._read(prefix, slow=slow)
        wanted = {name for name, spec in self.specs.items() if not slow or spec.target_rate is not None}
        parameters = {
            name: {key: recorded[name][key] for key, _ in self.modules[name].named_parameters()} for name in wanted
        }
        return fitted(parameters, {name: self.modules[name] for name in self.specs if name in wanted})

    def unread(self, prefix: str) -> set[str]:
        """Recorded weights that the port does not know."""
        read = self._read(prefix, slow=False)[1] | self._read(prefix, slow=True)[1]
        return {key for key in self.arrays if key.startswith(f"{prefix}/")} - read

    def gradients(self) -> Tree:
        """The recorded gradients by our names."""
        tree, _ = self._read("grad", slow=False)
        return tree

    def batch(self, prefix: str = "") -> Batch:
        """The batch `prefix/batch/...`."""
        start = f"{prefix}batch/"
        get = {k.removeprefix(start): torch.from_numpy(v.copy()) for k, v in self.arrays.items() if k.startswith(start)}
        ones = torch.ones_like(get["rewards"])
        return Batch(
            observations=get["observations"],
            actions=get["actions"],
            next_observations=get["next_observations"],
            next_actions=torch.zeros_like(get["actions"]),
            rewards=get["rewards"],
            discounts=self.gamma * get["masks"],
            valid=ones,
            action_mask=torch.ones_like(get["actions"]),
        )

    def recorded_draws(self, prefix: str) -> list[Tensor]:
        """Draws in the order in which the authors' code made them."""
        keys = sorted(key for key in self.arrays if key.startswith(f"{prefix}/"))
        return [torch.from_numpy(self.arrays[key].copy()) for key in keys]

    def draws(self, prefix: str, k: int = 0) -> Draws:
        """The draws of update number `k` as ours."""
        return self.port.draws(self.recorded_draws(prefix), k)

    def update_spec(self, k: int) -> UpdateSpec:
        """What update number `k` does."""
        return self.port.update_spec(self.cfg.update_spec(k))

    def learner(self, clipped: bool = True) -> Learner:
        """The public learner with the algorithm's own loss terms. Gradients were recorded before they were clipped."""
        specs = self.specs if clipped else {n: replace(spec, clip_grad_norm=None) for n, spec in self.specs.items()}
        clip = self.cfg.clip_grad_norm if clipped else None
        return Learner(
            self.modules, specs, self.algorithm.losses, self.cfg, action_dim=self.action_dim, clip_grad_norm=clip
        )

    def state(self) -> LearnerState:
        """Weights before the update, with zero moments."""
        params = self.weights("param")
        return LearnerState(params, self.weights("param", slow=True), initial_moments(params))

    def update(self, state: LearnerState, prefix: str, draws: str, k: int) -> tuple[Metrics, Tree]:
        """One update in place: its metrics, and the gradient of each network before its clip at the moment of its
        step.

        Args:
            prefix: beginning of the names of the batch, such as `multi/0/`.
            draws: name of the draws.
            k: number of the update.
        """
        learner, unclipped = self.learner(), self.learner(clipped=False)
        clip, found = learner.gradients, {}

        def watched(*inputs: Any) -> tuple[Tree, Metrics]:
            found.update(unclipped.gradients(*inputs)[0])
            return clip(*inputs)

        rate = torch.tensor(self.config["lr"])
        with ExitStack() as stack:
            stack.enter_context(patch.object(learner, "gradients", watched))
            self._support(stack, prefix)
            spec = self.update_spec(k)
            metrics = learner.update(state, self.batch(prefix), self.draws(f"{prefix}{draws}", k), spec, rate)
        return metrics, found

    def _support(self, stack: ExitStack, prefix: str) -> None:
        """QGPO's samples of the behaviour, which the authors store, in place of ours."""
        if f"{prefix}batch/fake_a" not in self.arrays:
            return
        batch = self.batch(prefix)
        here, there = (torch.from_numpy(self.arrays[f"{prefix}batch/{name}"]) for name in ("fake_a", "fake_a_"))

        def stored(nets: Any, observations: Tensor, *_: Any) -> Tensor:
            return here if torch.equal(observations, batch.observations) else there

        stack.enter_context(patch.object(qgpo, "sample_support", stored))

    def losses(self, prefix: str) -> dict[str, float]:
        """Recorded scalars `prefix/loss/...` by their last names."""
        start = f"{prefix}loss/"
        scalars = {k.removeprefix(start): float(v) for k, v in self.arrays.items() if k.startswith(start)}
        return {key.split("/")[-1].removeprefix("loss_").removeprefix("misc_"): v for key, v in scalars.items()}

    def view(self) -> View:
        """The networks with which the policy acts, at the recorded weights."""
        weights, slow = self.weights("param"), self.weights("param", slow=True)
        return View.of(self.modules, weights | {name: slow[name] for name in self.algorithm.act_with if name in slow})

    def actions(self, sampler: Sampler, name: str) -> tuple[Tensor, Tensor]:
        """Our actions at the recorded observations `name/observations` with the draws `name_draw/...`, and the
        recorded ones."""
        draws = self.port.chosen(self.recorded_draws(f"{name}_draw"))
        observations = torch.from_numpy(self.arrays[f"{name}/observations"])
        actions = sampler(self.view(), observations, ReplayedNoise(self.action_dim, draws))
        return actions, torch.from_numpy(self.arrays[f"{name}/actions"]).reshape(actions.shape)


def in_our_order(weight: Tensor, theirs: Widths) -> Tensor:
    """Rows of a weight `[.., in, out]` in the order of our inputs."""
    rows = dict(zip(theirs, weight.split(list(theirs.values()), -2), strict=True))
    return torch.cat([rows[name] for name in OURS if name in rows], -2)
