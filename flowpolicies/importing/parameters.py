"""Weights of the authors' networks under our names, and the sizes that follow from their shapes.

Weights are arrays by `<network>/<module>/<layer>/<parameter>`, such as `critic/value_net/Dense_0/kernel`, as flax names
them: `Dense_i/kernel` is `[in, out]`, and ensembles have a leading axis of their members. The name of a slow copy is
that of its network after `target_`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from flowpolicies.core.types import Tree
from flowpolicies.importing.ports import Port
from flowpolicies.networks import MLP

Arrays = Mapping[str, np.ndarray]

SLOW = "target_"
"""Beginning of the names of slow copies."""

LAYERS = (
    (r"Dense_(\d+)/kernel", r"layers.\1.weight"),
    (r"Dense_(\d+)/bias", r"layers.\1.bias"),
    (r"LayerNorm_(\d+)/scale", r"norms.\1.weight"),
    (r"LayerNorm_(\d+)/bias", r"norms.\1.bias"),
)
HEADS = {"mean_net": "mean", "OutputDenseMean": "mean", "log_std_net": "log_std", "OutputDenseLogStd": "log_std"}
"""Authors' name of a distribution's head -> ours."""

WHOLE = {"FourierFeatures_0": "embed.frequencies"}
"""Authors' modules of a single parameter -> our name of it."""

CRITICS = r"(critic|value)/.*/"


def hyperparameters(port: Port, config: type[Any], recorded: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """The values of a config's fields: the authors' hyperparameters, and sizes of networks that these do not name.

    Args:
        port: the translation.
        config: the `Config` of the algorithm.
        recorded: the authors' hyperparameters by their names.
        arrays: the weights.
    """
    names = [field.name for field in dataclasses.fields(config) if field.name != "encoder"]
    values = {name: recorded[name] for name in names if name in recorded}
    values |= {ours: recorded[theirs] for ours, theirs in port.hyperparameters.items() if theirs in recorded}
    values |= port.derived(
        {**recorded, "recorded_ensemble": ensemble_size(arrays), "recorded_inputs": input_widths(arrays)}
    )
    values = sizes(arrays) | values
    if recorded.get("action_chunking"):
        values["horizon"] = recorded["horizon_length"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in names}


def ensemble_size(arrays: Arrays) -> int:
    """Number of critics, by the leading axis of their weights; RQL's critic is called value."""
    kernels = [array for key, array in arrays.items() if re.match(f"{CRITICS}Dense_0/kernel", key)]
    return max((kernel.shape[0] if kernel.ndim == 3 else 1 for kernel in kernels), default=2)


def input_widths(arrays: Arrays) -> dict[str, int]:
    """Width of the input of each network's MLP, the last one if it has several."""
    kernels = sorted(key for key in arrays if key.endswith("/Dense_0/kernel"))
    return {key.partition("/")[0]: arrays[key].shape[-2] for key in kernels}


def output_widths(arrays: Arrays) -> dict[str, int]:
    """Width of the output of each network, which is that of its mean for a distribution."""
    widths = {network: dims[-1] for (network, _), dims in sorted(_widths(arrays).items())}
    heads = {key.split("/")[0]: a for key, a in arrays.items() if re.search("/(mean_net|OutputDenseMean)/bias$", key)}
    return widths | {network: head.shape[-1] for network, head in heads.items()}


def sizes(arrays: Arrays) -> dict[str, Any]:
    """Hidden widths, LayerNorm and number of critics, as far as the shapes tell them."""
    found: dict[str, Any] = {"ensemble": ensemble_size(arrays)}
    distributions = {key.split("/")[0] for key in arrays if key.split("/")[1] in HEADS}
    for (network, module), dims in sorted(_widths(arrays).items()):
        if not network.startswith(SLOW):
            kind = "value" if module == "value_net" else "actor"
            found[f"{kind}_hidden_dims"] = dims if network in distributions else dims[:-1]
            found[f"{kind}_layer_norm"] = f"{network}/{module}/LayerNorm_0/scale" in arrays
    return found


def _widths(arrays: Arrays) -> dict[tuple[str, str], tuple[int, ...]]:
    """Widths of the layers of each MLP, by network and module."""
    widths: dict[tuple[str, str], dict[int, int]] = {}
    for key, array in arrays.items():
        if found := re.fullmatch(r"(\w+)/(\w+)/Dense_(\d+)/bias", key):
            widths.setdefault((found[1], found[2]), {})[int(found[3])] = array.shape[-1]
    return {key: tuple(dims[i] for i in sorted(dims)) for key, dims in widths.items()}


def renamed(arrays: Arrays, port: Port, modules: Mapping[str, nn.Module], *, slow: bool = False) -> Tree:
    """Tensors by our names of networks and parameters: the trained weights, or those of the slow copies.

    Args:
        arrays: the weights, or others of the same names, such as gradients.
        port: the translation.
        modules: our networks by name; networks that are not among them keep the authors' names of their parameters.
        slow: whether the slow copies are asked for.
    """
    tree: Tree = {}
    for key, array in arrays.items():
        network, path = key.split("/", 1)
        if network.startswith(SLOW) != slow:
            continue
        network = network.removeprefix(SLOW)
        ours = port.networks.get(network, network)
        name = _parameter(path, modules.get(ours))
        if name.startswith("log_std.") and not hasattr(modules.get(ours), "log_std"):
            continue  # A distribution of which the algorithm uses the mean only.
        tree.setdefault(ours, {})[name] = torch.from_numpy(array.copy())
    return tree


def _parameter(path: str, module: nn.Module | None) -> str:
    """Our name of a parameter. The names of inner modules vary, so that of our MLP is what counts."""
    inner, _, name = path.partition("/")
    if inner in WHOLE:
        return WHOLE[inner]
    if inner in HEADS:
        # Where our module has no head for the mean, the output of its MLP takes that place.
        deterministic = module is not None and not hasattr(module, "mean")
        head = "net.output" if HEADS[inner] == "mean" and deterministic else HEADS[inner]
        return f"{head}.{name}".replace("kernel", "weight")
    for pattern, replacement in LAYERS:
        name = re.sub(pattern, replacement, name)
    children = () if module is None else module.named_children()
    parts = [(part, child) for part, child in children if isinstance(child, MLP)]
    if parts:
        numbered = re.fullmatch(r"MLP_(\d+)", inner)
        part, mlp = parts[int(numbered[1]) if numbered else 0]
        return f"{part}.{name}".replace(f"layers.{len(mlp.layers)}.", "output.")
    return name or inner


def fitted(tree: Tree, modules: Mapping[str, nn.Module]) -> Tree:
    """Tensors of `renamed` in the shapes of our parameters and in their order.

    Raises:
        ValueError: if a parameter is missing, has another number of values, or is not one of our network.
    """
    found: Tree = {}
    for network, module in modules.items():
        shapes = {key: p.shape for key, p in module.named_parameters()}
        theirs = tree.get(network, {})
        if shapes.keys() != theirs.keys():
            missing, extra = sorted(shapes.keys() - theirs.keys()), sorted(theirs.keys() - shapes.keys())
            raise ValueError(
                f"{network} lacks {missing or 'nothing'}, and has {extra or 'nothing'} beside our parameters"
            )
        for key, shape in shapes.items():
            if theirs[key].numel() != shape.numel():
                raise ValueError(f"{network}.{key} has the shape {list(theirs[key].shape)}, ours {list(shape)}")
        found[network] = {key: theirs[key].reshape(shape) for key, shape in shapes.items()}
    return found
