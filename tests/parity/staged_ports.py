"""How recordings with several stages per update are spelled here: hyperparameters, layers, draws and logged numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from flowpolicies.core import UpdateSpec
from flowpolicies.core.learner import Draws
from flowpolicies.flows import curriculum

Recorded = Mapping[str, Any]
Widths = Mapping[str, int]

OBSERVATION, ACTION = 6, 3
"""Widths of all recordings."""


@final
@dataclass(frozen=True)
class Part:
    """Where the weights of one of our networks are in a recording."""

    places: tuple[str, ...]
    """The authors' network, or one place for each member of our ensemble."""
    layers: Mapping[str, str]
    """Authors' layer -> our layer."""
    inputs: Mapping[str, Widths] = field(default_factory=dict)
    """Our layer -> the parts of its input in the authors' order, where that is not ours, with their widths."""
    negated: tuple[str, ...] = ()
    """Our layers whose weights have the opposite sign."""
    summed: int = 1
    """Number of the authors' losses of which ours is the mean; their gradients are those of the losses."""
    rounding: tuple[str, ...] = ()
    """Parameters of ours whose gradient is zero but for rounding, which therefore are not compared."""


@final
@dataclass(frozen=True)
class StagedPort:
    """One algorithm at the sizes of one recording."""

    fields: Mapping[str, Any]
    """Hyperparameters by our names."""
    parts: Mapping[str, Part]
    """Our network -> its place in the recording."""
    draws: Callable[[list[Tensor], int], Draws]
    """From the recorded draws of update number `k`, in their order, to ours per stage."""
    metrics: Mapping[str, str]
    """Recorded loss -> our metric. Where several losses have one metric, it is their mean."""
    unused: tuple[str, ...] = ()
    """Recorded numbers that we do not log."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Our network -> sizes that its Config does not offer, and that are smaller in the recording."""
    update_spec: Callable[[UpdateSpec], UpdateSpec] = lambda spec: spec
    """From what our update does to what the recorded update of the same number does."""
    acting_draws: Callable[[list[Tensor]], list[Tensor]] = lambda draws: draws
    """From the recorded draws of acting to ours."""


def mlp(theirs: str, ours: str, hidden: int, output: str | None = None, step: int = 1) -> dict[str, str]:
    """The layers of an MLP.

    Args:
        theirs: beginning of the authors' names, which end with 0, step, 2 step, ..
        ours: our name of the MLP.
        hidden: number of hidden layers.
        output: authors' name of the output layer; None: it is numbered like the others.
        step: difference of two numbers.
    """
    names = {f"{theirs}{step * i}": f"{ours}.layers.{i}" for i in range(hidden)}
    return names | {output or f"{theirs}{step * hidden}": f"{ours}.output"}


def from_one(draws: list[Tensor]) -> list[Tensor]:
    """Integers, which the authors count from 1, as counted from 0."""
    return [draw if draw.is_floating_point() else draw - 1 for draw in draws]


def idql(c: Recorded) -> StagedPort:
    hidden, blocks = len(c["critic_hidden_dims"]), range(c["actor_num_blocks"])
    block = {"LayerNorm_0": "norm", "Dense_0": "widen", "Dense_1": "narrow"}
    actor = {
        "FourierFeatures_0": "embed",
        **mlp("MLP_0/Dense_", "time", 1),
        "MLPResNet_0/Dense_0": "input",
        "MLPResNet_0/Dense_1": "output",
        **{f"MLPResNet_0/MLPResNetBlock_{i}/{a}": f"blocks.{i}.{b}" for i in blocks for a, b in block.items()},
    }

    def draws(theirs: list[Tensor], k: int) -> Draws:
        level, eps, *kept = theirs
        return [[torch.stack(kept, 1).float(), level, eps], [], []]

    return StagedPort(
        fields={
            "actor_hidden_dims": [c["actor_hidden_dim"] for _ in blocks],
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
            "actor_diffusion": Part(("actor",), actor),
            "value": Part(
                ("value",), {"MLP_0/LayerNorm_0": "norm"} | mlp("MLP_0/Dense_", "net", hidden, "OutputVDense")
            ),
            "critic": Part(("critic/VmapStateActionValue_0",), mlp("MLP_0/Dense_", "net", hidden, "Dense_0")),
        },
        draws=draws,
        metrics={
            "actor_loss": "actor/loss",
            "value_loss": "value/loss",
            "critic_loss": "critic/loss",
            "v_mean": "value/v_mean",
            "q_mean": "critic/q_mean",
        },
        options={"actor_diffusion": {"time_dim": c["time_dim"], "time_hidden_dims": (2 * c["time_dim"],) * 2}},
    )


def _backpropagated(
    c: Recorded,
    actor: str,
    fields: Mapping[str, Any],
    chain: int,
    actor_draws: Callable[[list[Tensor], int], list[Tensor]],
) -> StagedPort:
    """Diffusion-QL and CAC.

    Args:
        c: the recorded config.
        actor: our name of the actor.
        fields: hyperparameters of one of the two.
        chain: number of draws of one action.
        actor_draws: from the recorded draws of the actor's stage in update number `k` to ours.
    """
    hidden, levels = len(c["hidden_dims"]), {"model/time_mlp/1": "time.layers.0", "model/time_mlp/3": "time.output"}
    body = mlp("model/mid_layer/", "net", hidden, "model/final_layer", step=2)
    inputs = {"time.layers.0": {"sin": 8, "cos": 8}, "net.layers.0": {"x": ACTION, "level": 16, "s": OBSERVATION}}

    def draws(theirs: list[Tensor], k: int) -> Draws:
        rows = (-1, 10, ACTION) if c["max_q_backup"] else (-1, ACTION)
        return [[draw.reshape(rows) for draw in theirs[:chain]], actor_draws(theirs[chain:], k)]

    def acting_draws(theirs: list[Tensor]) -> list[Tensor]:
        """The drawn index as uniform numbers, of which the largest is at this index."""
        *action, index = theirs
        return [*action, F.one_hot(index.squeeze(), c["candidates"]).float()]

    return StagedPort(
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
            actor: Part(("actor",), levels | body, inputs),
        },
        draws=draws,
        metrics={
            "critic_loss": "critic/loss",
            "actor_loss": "actor/loss",
            "bc_loss": "actor/bc_loss",
            "ql_loss": "actor/q_loss",
        },
        acting_draws=acting_draws,
    )


def other_side(coin: Tensor) -> Tensor:
    """More than 1/2 climbs the first critic in the authors' code, less than 1/2 here."""
    return 1 - coin


def diffusion_ql(c: Recorded) -> StagedPort:
    fields = {"diffusion_steps": c["n_timesteps"], "beta_schedule": c["beta_schedule"]}

    def actor_draws(theirs: list[Tensor], k: int) -> list[Tensor]:
        *others, coin = theirs
        return [*others, other_side(coin)]

    return _backpropagated(c, "actor_diffusion", fields, c["n_timesteps"] + 1, actor_draws)


def cac(c: Recorded) -> StagedPort:
    period = c["curriculum_iterations_multi"]
    fields = {"consistency_steps": c["n_timesteps"], "q_norm": c["q_norm"], "curriculum_steps": period}

    def actor_draws(theirs: list[Tensor], k: int) -> list[Tensor]:
        *action, coin, z, n = theirs
        uniform = (n + 0.5) / (curriculum(torch.tensor(float(k)), period) - 1)
        return [uniform, z, *action, other_side(coin)]

    return _backpropagated(c, "actor_onestep", fields, c["n_timesteps"], actor_draws)


def bdpo(c: Recorded) -> StagedPort:
    q, net = c["critic"], c["diffusion"]
    hidden, level = len(q["hidden_dims"]), net["time_dim"]
    layers = mlp("MLP_0/Dense_", "time", 1) | mlp("noise_predictor/Dense_", "net", len(net["mlp_hidden_dims"]))
    noise = Part((), layers, {"net.layers.0": {"x": ACTION, "level": level, "s": OBSERVATION}})
    body = mlp("backbone/Dense_", "net", hidden, "Dense_0")
    norms = {f"backbone/LayerNorm_{i}": f"net.norms.{i}" for i in range(hidden)}
    critics = net["steps"] + 4

    def draws(theirs: list[Tensor], k: int) -> Draws:
        """Those of the critics, and those of actor and behaviour if it trains them; or those of the pretraining."""
        stages = (from_one(theirs[:critics]), from_one(theirs[critics:]))
        return [stage for stage in stages if stage]

    return StagedPort(
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
            "diffusion_steps": net["steps"],
            "beta_schedule": net["noise_schedule"],
        },
        parts={
            "actor_slow": replace(noise, places=("behavior",)),
            "actor_diffusion": replace(noise, places=("actor",)),
            "critic": Part(("q0/base",), body),
            "inner_value": Part(
                ("vt/base",),
                mlp("MLP_0/Dense_", "time", 1) | body | norms,
                {"net.layers.0": {"s": OBSERVATION, "x": ACTION, "level": level}},
            ),
        },
        draws=draws,
        metrics={
            "ddpm_loss": "behavior/loss",
            "actor_loss": "actor/loss",
            "q0_loss": "critic/loss",
            "q0_mean": "critic/q_mean",
            "q0_penalty": "critic/kl",
            "vt_loss": "inner_value/loss",
        },
        unused=("eta", "reward", "vt_mean", "vt_std", "vt_penalty"),
        options={
            "actor_slow": {"time_dim": level, "time_hidden_dims": (level, level)},
            "actor_diffusion": {"time_dim": level, "time_hidden_dims": (level, level)},
            "inner_value": {"time_dim": level, "time_hidden_dims": (2 * level, level)},
        },
        # Our first update after the pretraining sets the actor to the behaviour, which was not recorded.
        update_spec=lambda spec: spec._replace(copy_weights=()),
    )


def qgpo(c: Recorded) -> StagedPort:
    widths, hidden, level = c["actor_hidden_dims"], len(c["value_hidden_dims"]), {"sin": 16, "cos": 16}
    blocks = {f"down_block{i + 1}": f"down.{i}" for i in range(len(widths))}
    blocks |= {"middle1": "bottom"} | {f"up_block{len(widths) - i}": f"up.{i}" for i in range(len(widths) - 1)}
    block = {"dense1/0": "entry", "time_mlp/1": "condition", "dense2/0": "output"}
    actor = {
        "embed/0": "embed",
        "embed/1": "time",
        "pre_sort_condition/0/dense": "observe",
        "sort_t/0": "mix.layers.0",
        "sort_t/2": "mix.output",
        **{f"{a}/{x}": f"{b}.{y}" for a, b in blocks.items() for x, y in block.items()},
        **{f"{a}/modify_x": f"{b}.skip" for a, b in blocks.items() if b.startswith("down")},
        "last": "output",
    }

    def draws(theirs: list[Tensor], k: int) -> Draws:
        """The critic has none, since both sets of actions are given."""
        return [theirs[:2], [], theirs[2:]]

    return StagedPort(
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
                actor,
                {"time": level, "mix.layers.0": {"seen": 32, "level": 32}},
                negated=("output",),  # Theirs predicts minus the noise.
            ),
            "critic": Part(
                ("critic/q1", "critic/q2"),
                mlp("", "net", hidden, step=2),
                {"net.layers.0": {"a": ACTION, "s": OBSERVATION}},
            ),
            "inner_value": Part(
                ("energy",),
                {"embed/0": "embed", "embed/1": "time.output"}
                | mlp("qt/", "net", len(c["energy_hidden_dims"]), step=2),
                {"time.output": level, "net.layers.0": {"x": ACTION, "level": 32, "s": OBSERVATION}},
                rounding=("net.output.bias",),
            ),
        },
        draws=draws,
        metrics={"behaviour": "behavior/loss", "critic": "critic/loss", "energy": "energy/loss"},
        options={"actor_diffusion": {"condition_dim": c["condition_dim"]}},
        # We train the behaviour alone and then leave it as it is; the recorded update trains all three.
        update_spec=lambda spec: UpdateSpec((("behavior",), ("critic",), ("energy",)), targets_first=False),
    )


def dac_d4rl(c: Recorded) -> StagedPort:
    hidden, chain = len(c["hidden_dims"]), c["T"] + 1
    actor = mlp("MLP_0/Dense_", "time", 1) | mlp("MLP_1/Dense_", "net", hidden)

    def draws(theirs: list[Tensor], k: int) -> Draws:
        rows = (-1, c["num_q_samples"], ACTION)
        return [[draw.reshape(rows) for draw in theirs[:chain]], from_one(theirs[chain:])]

    return StagedPort(
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
            "actor_diffusion": Part(("actor",), actor, {"net.layers.0": {"s": OBSERVATION, "x": ACTION, "level": 32}}),
            "temperature": Part(("eta",), {"": ""}),
        },
        draws=draws,
        metrics={
            "critic_loss": "critic/loss",
            "qs": "critic/q_mean",
            "actor_loss": "actor/loss",
            "bc_loss": "actor/bc_loss",
            "guidance_loss": "actor/guidance",
            "Q_norm": "actor/q_size",
        },
        unused=("Q_grad_abs",),
        options={"actor_diffusion": {"time_dim": c["time_dim"]}},
    )


def qsm_online(c: Recorded) -> StagedPort:
    hidden = len(c["critic_hidden_dims"])
    actor = {"FourierFeatures_0": "embed", **mlp("MLP_0/Dense_", "time", 1)}
    return StagedPort(
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
            "critic": Part(("critic_1", "critic_2"), mlp("MLP_0/Dense_", "net", hidden, "Dense_0"), summed=2),
            "actor_diffusion": Part(("actor",), actor | mlp("MLP_1/Dense_", "net", len(c["actor_hidden_dims"]))),
        },
        draws=lambda theirs, k: [theirs[:-2], theirs[-2:]],
        metrics={
            "c_loss_mean_1": "critic/loss",
            "c_loss_mean_2": "critic/loss",
            "q_mean_1": "critic/q_mean",
            "q_mean_2": "critic/q_mean",
            "actor_loss_mean": "actor/loss",
        },
        unused=("target_q_mean", "critic_jacobian_mag"),
        options={"actor_diffusion": {"time_hidden_dims": c["time_hidden_dims"]}},
    )


PORTS: Mapping[str, Callable[[Recorded], StagedPort]] = {
    "bdpo": bdpo,
    "cac": cac,
    "dac_d4rl": dac_d4rl,
    "diffusion_ql": diffusion_ql,
    "idql": idql,
    "qgpo": qgpo,
    "qsm_online": qsm_online,
}
"""Name of an algorithm here -> its port for a recorded config."""
