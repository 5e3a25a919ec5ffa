"""The runs that are trained together: which seeds and values of hyperparameters, and whether they can be."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.core import Network
from flowpolicies.messages import did_you_mean
from flowpolicies.shell.config import PolicyConfig, current_names
from flowpolicies.shell.fields import NonNegativeInt, check_value, hints_of
from flowpolicies.shell.hyperparameters import SB3Hyperparameters

IN_BATCHES = ("gamma",)
"""Hyperparameters of Stable-Baselines3 that only batches depend on, so that they may differ between the runs."""

ONCE = {
    "clip_grad_norm": "the optimiser clips all runs of a process to the same norm",
    "learning_rate": "the optimiser has one learning rate for all runs of a process",
    "tau": "the target copies of all runs of a process move at the same rate",
}
"""Numbers that are read once per update -> why they are the same in all runs."""


class Variant(NamedTuple):
    """One of the runs that are trained together."""

    seed: int
    """Seed of the run."""
    values: dict[str, float]
    """Swept hyperparameters -> their values in this run."""
    hyperparameters: PolicyConfig
    """Hyperparameters of the algorithm with these values."""
    sb3_hyperparameters: SB3Hyperparameters
    """Hyperparameters of Stable-Baselines3 with these values."""

    @property
    def group(self) -> Path:
        """Folder of the runs with these values, in the common folder: `guidance_lambda=0.5`, or "." without any."""
        return Path(*(f"{name}={value:g}" for name, value in self.values.items()))

    @property
    def path(self) -> Path:
        """Folder of the run, in the common folder: `seed0`, or `guidance_lambda=0.5/seed0`."""
        return self.group / f"seed{self.seed}"


def make_variants(
    algorithm: type[OfflineAlgorithm],
    hyperparameters: PolicyConfig,
    sb3_hyperparameters: SB3Hyperparameters,
    seeds: Iterable[int],
    sweep: Mapping[str, Sequence[float]],
) -> list[Variant]:
    """All combinations of seeds and swept values, the seeds of one value next to each other.

    Raises:
        ValueError: for no seed, a seed or value that is given twice, a value that is not valid, and a hyperparameter
            that must be the same in all runs of a process; the error says why.
        TypeError: for an unknown hyperparameter, and a value that is not a number.
    """
    if not (seeds := list(seeds)):
        raise ValueError("seeds is empty: give at least one, such as seeds=range(8) or --seeds 0 1 2 3.")
    for seed in seeds:
        check_value("a seed", NonNegativeInt, seed)
    _check_distinct("seeds", seeds)
    swept = {name: _numbers(name, values) for name, values in current_names(algorithm.Config, sweep).items()}
    found = []
    for values in itertools.product(*swept.values()):
        chosen = dict(zip(swept, values, strict=True))
        own: Any = {name: value for name, value in chosen.items() if _is_own(algorithm, name)}
        common: Any = {name: value for name, value in chosen.items() if name not in own}
        config = dataclasses.replace(hyperparameters, **own)  # Which checks the values.
        sb3 = dataclasses.replace(sb3_hyperparameters, **common)
        found += [Variant(int(seed), chosen, config, sb3) for seed in seeds]
    _check_structure([variant.hyperparameters for variant in found], list(swept))
    if len(paths := {variant.path for variant in found}) < len(found):
        raise ValueError(f"two values have the same first six digits, and so the same folder: {sorted(paths)}.")
    return found


def _is_own(algorithm: type[OfflineAlgorithm], name: str) -> bool:
    """Whether a hyperparameter that may be swept belongs to the algorithm's Config, and not to Stable-Baselines3.

    Raises:
        TypeError: for an unknown hyperparameter.
        ValueError: for one that must be the same in all runs of a process.
    """
    own, common = hints_of(algorithm.Config), hints_of(SB3Hyperparameters)
    names = [field.name for cls in (algorithm.Config, SB3Hyperparameters) for field in dataclasses.fields(cls)]
    if name not in names:
        raise TypeError(f"{algorithm.__name__} has no hyperparameter {name!r} to sweep.{did_you_mean(name, names)}")
    if name in IN_BATCHES:
        return False
    reason = ONCE.get(name) or _reason_of_type(own[name] if name in own else common[name])
    if reason:
        raise cannot_be_swept(name, reason)
    return True


def cannot_be_swept(name: str, reason: str) -> ValueError:
    """The error for a hyperparameter that must be the same in all runs of a process."""
    flag = name.replace("_", "-")
    return ValueError(
        f"{name} cannot be swept, because all runs of a process compute the same on other numbers, and {reason}. "
        f"Train each value in a process of its own: --{flag} VALUE --run-dir DIR, with --seeds if you like."
    )


def _reason_of_type(hint: Any) -> str:
    """Why a field of this type cannot be swept; "" if it can be."""
    options = (hint, *get_args(hint))
    kinds = {*options, *(inner for option in options for inner in get_args(option))}
    if float in kinds:
        return ""
    if int in kinds and tuple[int, ...] not in kinds:
        return "it is a whole number, which decides the size of tensors or the number of steps"
    return "it is not a number but decides what is computed"


def _numbers(name: str, values: Iterable[Any]) -> list[float]:
    """Values of a hyperparameter as numbers, all distinct."""
    given = [values] if isinstance(values, Real | str) else list(values)
    if not given:
        raise ValueError(f"the sweep of {name} has no values: give at least one, such as --sweep {name} 0.5 1 2.")
    for value in given:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"the sweep of {name} takes numbers, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"the sweep of {name} takes finite numbers, got {value}")
    _check_distinct(f"the sweep of {name}", given)
    return [float(value) for value in given]


def _check_distinct(what: str, values: Sequence[Any]) -> None:
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        named = ", ".join(str(int(value) if isinstance(value, Integral) else value) for value in twice)
        raise ValueError(f"{what}: {named} is given twice. Give each value once.")


def _check_structure(configs: Sequence[PolicyConfig], names: Sequence[str]) -> None:
    """Raises a ValueError for a swept field that decides more than numbers in a loss."""
    first = configs[0]
    for name in names:
        if not hasattr(first, name):
            continue
        for value in {getattr(config, name) for config in configs}:
            other = dataclasses.replace(first, **{name: value})
            if reason := _difference(first, other):
                raise cannot_be_swept(name, reason)


def _difference(one: PolicyConfig, other: PolicyConfig) -> str:
    """What two configs decide differently, in words; "" if only numbers in losses and samplers differ."""
    for name, before in one.networks(1.0).items():
        after = other.networks(1.0)[name]
        if dataclasses.replace(before, factory=after.factory) != after:
            return f"the optimiser reads it for the network {name}, once for all runs"
        if not _same_but_weights(before, after):
            return f"the network {name} is built from it"
    for method in ("sampler", "explorer"):
        if _shape(getattr(one, method)()) != _shape(getattr(other, method)()):
            return "it selects how the policy acts, for some of the values"
    if any(one.update_spec(step) != other.update_spec(step) for step in (0, 10**9)):
        return "it selects what an update does, for some of the values"
    return ""


def _shape(sampler: Any) -> Any:
    """Type and fields of a sampler and those inside it, without the values of its numbers."""
    if not dataclasses.is_dataclass(sampler):
        return None if isinstance(sampler, float) else sampler
    return type(sampler), [_shape(getattr(sampler, field.name)) for field in dataclasses.fields(sampler)]


def _same_but_weights(a: Network, b: Network) -> bool:
    """Whether two declarations build the same network, apart from its initial weights."""
    factories = [n.factory if isinstance(n.factory, partial) else partial(n.factory) for n in (a, b)]
    one, other = ((factory.func, factory.args, factory.keywords) for factory in factories)
    if one == other:
        return True
    with torch.device("meta"):
        return _same_structure(*(factory(4, 2) for factory in factories))


def _same_structure(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules have the same attributes, apart from the values of tensors."""
    weights = ("_parameters", "_buffers", "_modules")
    plain = [{key: value for key, value in vars(module).items() if key not in weights} for module in (a, b)]
    shapes = [{key: tensor.shape for key, tensor in module.named_parameters()} for module in (a, b)]
    parts = [list(module.named_children()) for module in (a, b)]
    return (
        (type(a), plain[0], shapes[0]) == (type(b), plain[1], shapes[1])
        and [name for name, _ in parts[0]] == [name for name, _ in parts[1]]
        and all(_same_structure(one, other) for (_, one), (_, other) in zip(*parts, strict=True))
    )
