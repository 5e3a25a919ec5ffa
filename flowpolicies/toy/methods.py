"""The coefficient of each algorithm that weighs data against values, and models for the 2D experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import nn

from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.config import BackpropagatedConfig, PolicyConfig
from flowpolicies.shell.policy_kwargs import with_activation
from flowpolicies.shell.registry import get_algorithm
from flowpolicies.toy.datasets import BOX, as_transitions, draw_points
from flowpolicies.toy.settings import Coefficient, Size, ToyCell, ToySettings

SCALE = 0.02
"""Standard deviation of the initial weights in the size of the paper."""


class Weight(NamedTuple):
    """The hyperparameter of an algorithm that is swept."""

    field: str
    """Name of the field of its Config."""
    clone: float
    """Value at which the policy clones the data."""
    power: int = 0
    """Exponent of the unit of length in the coefficient. Networks see points divided by `BOX`, so a coefficient in the
    units of the box is multiplied by `BOX ** power`: 2 for the weight of a squared distance against values, and for
    the inverse weight of a gradient of values in a velocity; -2 for the weight of such a gradient."""

    def value(self, coefficient: Coefficient) -> float:
        """Value of the field for a coefficient in the units of the box, or for behaviour cloning."""
        return self.clone if isinstance(coefficient, str) else coefficient * BOX**self.power


LARGE = 1e4
"""Value of the weight of the data at which the weight of the values is as good as 0."""

COEFFICIENTS: Mapping[str, Weight] = {
    "qflow": Weight("guidance_lambda", LARGE, 2),
    "qflow_bptt": Weight("alpha", LARGE, 2),
    "fql": Weight("alpha", LARGE, 2),
    "fbrac": Weight("alpha", LARGE, 2),
    "rql": Weight("alpha", LARGE, 2),
    "tfql": Weight("alpha", LARGE, 2),
    "rebrac": Weight("alpha_actor", LARGE, 2),
    "rebrac_qam": Weight("alpha_actor", LARGE, 2),
    "qam_f": Weight("alpha", LARGE, 2),
    "iql_ddpgbc": Weight("alpha", LARGE),
    "dac": Weight("alpha", LARGE),
    "dac_d4rl": Weight("eta", LARGE),
    "qsm": Weight("alpha", LARGE),
    "bdpo": Weight("eta", LARGE),
    "qfql": Weight("beta", 0.0, -2),
    "qam": Weight("inv_temp", 0.0),
    "qam_e": Weight("inv_temp", 0.0),
    "bam": Weight("inv_temp", 0.0),
    "cgql": Weight("guidance_coef", 0.0),
    "cgql_m": Weight("guidance_coef", 0.0),
    "cgql_l": Weight("guidance_coef", 0.0),
    "fawac": Weight("inv_temp", 0.0),
    "iql": Weight("alpha", 0.0),
    "qgpo": Weight("guidance_scale", 0.0),
    "qipo": Weight("beta", 0.0),
    "qipo_full": Weight("beta", 0.0),
    "diffusion_ql": Weight("eta", 0.0),
    "cac": Weight("eta", 0.0),
}
"""Name of an algorithm -> what is swept. Algorithms that have no such weight, as BC and those that choose among
candidates, are not here."""


def coefficient_of(method: str) -> Weight:
    """What is swept of an algorithm.

    Raises:
        ValueError: if it has no coefficient.
    """
    if method not in COEFFICIENTS:
        raise ValueError(
            f"{method} has no coefficient that weighs data against values, so it cannot be swept. Leave it out of "
            "--methods, or pass --coefficients without a value: then each method has its default hyperparameters. "
            f"Those with a coefficient are {', '.join(sorted(COEFFICIENTS))}."
        )
    return COEFFICIENTS[method]


def check_methods(settings: ToySettings) -> None:
    """Raises a ValueError for an unknown algorithm, or one that has no coefficient although some are given."""
    for method in settings.methods:
        get_algorithm(method)
        if settings.coefficients:
            coefficient_of(method)


def make_model(cell: ToyCell, settings: ToySettings) -> OfflineAlgorithm:
    """A model with the data of a cell, in the size of the settings: ReLU networks, one critic without LayerNorm, and
    target copies that are the weights of the update before."""
    algorithm, size = get_algorithm(cell.method), settings.size(cell.dataset)
    wanted = hyperparameters(size, full=settings.full)
    if issubclass(algorithm.Config, BackpropagatedConfig):
        wanted["ensemble"] = 2  # Each critic scales the gradient of the other.
    known = {field.name for field in fields(algorithm.Config)}
    given = {name: value for name, value in wanted.items() if name in known}
    if cell.coefficient != "default":
        swept = coefficient_of(cell.method)
        given[swept.field] = swept.value(cell.coefficient)
    model = algorithm(
        env=None,
        dataset=as_transitions(
            draw_points(cell.dataset), cell.dataset, steps=2 if algorithm.windows == "episodes" else 1
        ),
        batch_size=size.batch_size,
        tau=1.0,
        learning_rate=3e-4 if settings.full else 1e-3,
        seed=cell.seed,
        device=settings.device,
        policy_kwargs={"activation_fn": nn.ReLU} if _can_be_relu(algorithm.Config(**given)) else {},
        **given,
    )
    if settings.full:
        _initialize(model, cell.seed)
    return model


def _can_be_relu(config: PolicyConfig) -> bool:
    """Whether the activation of the networks can be chosen; QGPO's network, for example, has one of its own."""
    try:
        with_activation(config.networks(tau=1.0), "relu")
    except ValueError:
        return False
    return True


def hyperparameters(size: Size, *, full: bool) -> dict[str, Any]:
    """Fields of configs, of which each algorithm takes those that it has."""
    policy = (*(size.width,) * 4, size.width // 2) if full else (size.width,) * 4
    values = (size.width // 2,) * 4 if full else (size.width,) * 4
    return {
        "actor_hidden_dims": policy,
        "value_hidden_dims": values,
        "value_layer_norm": False,
        "ensemble": 1,
        "rho": 0.0,
        "horizon": 1,
        "flow_steps": size.flow_steps,
    }


def _initialize(model: OfflineAlgorithm, seed: int) -> None:
    """Draws the weights from N(0, 0.02^2), with biases 0, as the paper does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.policy.networks.named_parameters():
            if name.endswith("bias"):
                weights.zero_()
            else:
                weights.copy_(torch.randn(weights.shape, generator=generator) * SCALE)
