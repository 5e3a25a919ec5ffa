"""Stable-Baselines3's `policy_kwargs`, translated into hyperparameters and networks of this package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from gymnasium.spaces import Dict, Space
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import Tensor, nn

from flowpolicies.core import Network
from flowpolicies.messages import did_you_mean
from flowpolicies.networks import ENCODERS, Activation
from flowpolicies.policies import FlowPolicy
from flowpolicies.shell.config import PolicyConfig
from flowpolicies.spaces.layout import observation_layout

ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.GELU: "gelu", nn.Mish: "mish", nn.ReLU: "relu", nn.SiLU: "silu"}
"""Activation modules of torch, and the names of the same functions in this package."""

ELSEWHERE = {
    "optimizer_class": "all networks are trained with Adam; set learning_rate",
    "optimizer_kwargs": "Adam has its default betas and eps; set learning_rate, clip_grad_norm or weight_decay",
    "share_features_extractor": "each network has an encoder of its own",
    "normalize_images": "images are uint8 and divided by 255",
    "use_sde": "there is no state-dependent exploration; pass action_noise",
    "log_std_init": "it is part of the published algorithm",
    "use_expln": "there is no state-dependent exploration; pass action_noise",
    "clip_mean": "it is part of the published algorithm",
    "squash_output": "actions are always scaled to the bounds of the action space",
    "ortho_init": "the initialisation is part of the published algorithm",
}
"""Arguments of Stable-Baselines3's policies without a counterpart, and what to do instead."""


EXTRACTORS = {"CnnPolicy": NatureCNN, "MultiInputPolicy": CombinedExtractor}
"""Features extractors that policies of Stable-Baselines3 have unless another is given."""


class PolicyArguments(NamedTuple):
    """What `policy_kwargs` mean here."""

    hyperparameters: dict[str, Any]
    """Fields of the Config that they imply."""
    activation: Activation | None
    """Activation of all networks; None: that of the algorithm."""
    own: dict[str, Any]
    """Arguments of FlowPolicy itself."""


def with_extractor(policy: Any, policy_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """`policy_kwargs`, where `features_extractor_kwargs` alone are of the extractor that Stable-Baselines3's policy of
    that name has: `NatureCNN` of "CnnPolicy", `CombinedExtractor` of "MultiInputPolicy"."""
    given = dict(policy_kwargs or {})
    if given.get("features_extractor_kwargs") and isinstance(policy, str) and policy in EXTRACTORS:
        given.setdefault("features_extractor_class", EXTRACTORS[policy])
    return given


def translate(policy_kwargs: Mapping[str, Any], config: type[PolicyConfig], who: str) -> PolicyArguments:
    """Translates Stable-Baselines3's `policy_kwargs`.

    `net_arch` becomes `actor_hidden_dims` and `value_hidden_dims`, `n_critics` becomes `ensemble`, `activation_fn` the
    activation of all networks, and `features_extractor_class` the encoder of observations.

    Args:
        policy_kwargs: what the user gave.
        config: Config of the algorithm.
        who: class name of the algorithm, for errors.

    Raises:
        TypeError: for an argument without a counterpart, with what to do instead.
        ValueError: for a value without a counterpart.
    """
    given, known = dict(policy_kwargs), {field.name for field in fields(config)}
    implied: dict[str, Any] = {}
    if (net_arch := given.pop("net_arch", None)) is not None:
        implied |= {name: sizes for name, sizes in _hidden_dims(net_arch).items() if name in known}
    if (n_critics := given.pop("n_critics", None)) is not None:
        if "ensemble" not in known:
            raise TypeError(f"policy_kwargs has 'n_critics', but {who} has no critics. Leave it out.")
        implied["ensemble"] = n_critics
    activation = _activation(given.pop("activation_fn", None))
    extractor, options = given.pop("features_extractor_class", None), given.pop("features_extractor_kwargs", None)
    if extractor in (FlattenExtractor, CombinedExtractor) and not options:
        extractor = None  # Vectors are concatenated, which is what these do.
    if extractor is not None:
        implied["encoder"] = _encoder(extractor, options or {})
    elif options:
        raise ValueError(
            "policy_kwargs has features_extractor_kwargs without features_extractor_class, which is implied by "
            f"{' and '.join(EXTRACTORS)} only: give both. The image encoder is the "
            f"hyperparameter encoder= of {who} ({', '.join(ENCODERS.names())})."
        )
    own = set(signature(FlowPolicy).parameters)
    for name in given:
        if name in ELSEWHERE:
            raise TypeError(f"policy_kwargs has {name!r}, which {who} does not take: {ELSEWHERE[name]}.")
        if name not in own:
            hint = f" Pass it to {who} itself: {who}({name}=...)." if name in known else did_you_mean(name, own | known)
            raise TypeError(
                f"policy_kwargs has {name!r}, which {who} does not take. Sizes of networks are hyperparameters: "
                f"actor_hidden_dims, value_hidden_dims, or net_arch in policy_kwargs.{hint}"
            )
    return PolicyArguments(implied, activation, given)


def check_not_twice(implied: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises a ValueError for a hyperparameter that is given beside `policy_kwargs`, which say something else."""
    for name in implied.keys() & given.keys():
        if implied[name] != given[name]:
            raise ValueError(
                f"{name}={given[name]!r} was given, and policy_kwargs imply {name}={implied[name]!r}. Give only one."
            )


def _hidden_dims(net_arch: Any) -> dict[str, tuple[int, ...]]:
    if isinstance(net_arch, Mapping):
        unknown = set(net_arch) - {"pi", "qf", "vf"}
        if unknown:
            raise ValueError(f"net_arch has the keys {sorted(unknown)}; it may have 'pi' (actors) and 'qf' (critics).")
        sizes = {"actor_hidden_dims": net_arch.get("pi"), "value_hidden_dims": net_arch.get("qf", net_arch.get("vf"))}
        return {name: tuple(layers) for name, layers in sizes.items() if layers is not None}
    return {"actor_hidden_dims": tuple(net_arch), "value_hidden_dims": tuple(net_arch)}


def _activation(module: Any) -> Activation | None:
    if module is None:
        return None
    if module not in ACTIVATIONS:
        names = ", ".join(f"torch.nn.{cls.__name__}" for cls in ACTIVATIONS)
        raise ValueError(f"activation_fn must be one of {names}, got {getattr(module, '__name__', module)}.")
    return ACTIVATIONS[module]


def with_activation(networks: Mapping[str, Network], activation: Activation | None) -> dict[str, Network]:
    """The networks with another activation; None: unchanged.

    Raises:
        ValueError: for a network whose hidden layers have a fixed activation.
    """
    if activation is None:
        return dict(networks)
    changed = {}
    for name, network in networks.items():
        factory = network.factory if isinstance(network.factory, partial) else partial(network.factory)
        options = _options(factory.func)
        if "hidden_dims" not in options:  # A single number, such as a temperature.
            changed[name] = network
        elif "activation" not in options:
            raise ValueError(
                f"policy_kwargs has activation_fn, but the network '{name}' ({factory.func.__name__}) has a fixed "
                "activation, which is part of the published algorithm. Leave activation_fn out."
            )
        else:
            made = partial(factory.func, *factory.args, **{**factory.keywords, "activation": activation})
            changed[name] = replace(network, factory=made)
    return changed


def _options(cls: Any) -> set[str]:
    """Names of the constructor's arguments, those that it passes on to its parents included."""
    parents = [parent for parent in getattr(cls, "__mro__", [cls]) if parent not in (nn.Module, object)]
    return {name for parent in parents for name in signature(parent).parameters}


class ExtractorEncoder(nn.Module):
    """A feature extractor of Stable-Baselines3 as the encoder of whole observations: flat `[*, O]` -> `[*, F]`.

    The extractor sees observations as in Stable-Baselines3: images divided by 255, categories as one-hot vectors.

    Args:
        space: observation space of the policy.
        extractor: subclass of `BaseFeaturesExtractor`.
        options: keyword arguments of the extractor.
    """

    def __init__(self, space: Space[Any], extractor: Any, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.space, self.layout = space, observation_layout(space)
        self.extractor = extractor(space, **options)
        self.out_dim = int(self.extractor.features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        rows = observations.reshape(-1, observations.shape[-1])
        columns = torch.split(rows, [math.prod(entry.shape) for entry in self.layout], -1)
        parts = {entry.key: c.reshape(-1, *entry.shape) for entry, c in zip(self.layout, columns, strict=True)}
        shaped: Any = parts if isinstance(self.space, Dict) else parts[self.layout[0].key]
        features: Tensor = self.extractor(preprocess_obs(shaped, self.space))
        return features.reshape(*observations.shape[:-1], self.out_dim)


def _encoder(extractor: Any, options: Mapping[str, Any]) -> str:
    """Name of the encoder that wraps the extractor, which is declared now if it is new."""
    text = "-".join(f"{key}.{value}" for key, value in sorted(options.items()))
    described = "-".join(filter(None, ["sb3", extractor.__module__, extractor.__qualname__, text]))
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in described)
    factory = partial(ExtractorEncoder, extractor=extractor, options=dict(options))
    factory.encodes_observations = True  # type: ignore[attr-defined]  # FlowPolicy asks for it.
    ENCODERS.declared[name] = factory  # Declared anew, so that a class that was edited in a notebook is the new one.
    return name
