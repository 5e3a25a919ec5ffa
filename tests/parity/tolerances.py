"""How closely a port must agree with a recording; the tolerances are those of the README of the recordings."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from flowpolicies.core.types import Tree

LOSS = 1e-5
"""Relative error of losses."""
GRADIENT = 1e-4
"""Error of a gradient, relative to the largest entry of the tensor."""
ACTION = 1e-5
"""Absolute error of actions."""
WEIGHT = 2e-5
"""Absolute error of weights after an update."""
ISOLATED, SHARE = 6.1e-4, 0.005
"""Largest error of single weights, and the share of a network's weights that may have it: Adam's first step is a sign
where a gradient is near zero."""


def assert_gradients(ours: Tree, theirs: Tree, left_out: Mapping[str, Collection[str]] | None = None) -> None:
    """Compares gradients of parameters; those of ours that were not recorded must be zero.

    Args:
        ours: our gradients.
        theirs: the recorded ones.
        left_out: parameters of networks that are not compared.
    """
    assert set(theirs) <= set(ours)
    assert any(ours.values())
    for name, tree in ours.items():
        assert set(theirs.get(name, {})) <= set(tree), name
        for key in set(tree) - set((left_out or {}).get(name, ())):
            expected = theirs.get(name, {}).get(key, torch.zeros(())).reshape(-1).expand(tree[key].numel())
            scale = max(float(expected.abs().max()), 1e-8)
            error = float((tree[key].reshape(-1) - expected).abs().max())
            assert error <= GRADIENT * scale, f"gradient of {name}.{key}: error {error:.2e}, largest entry {scale:.2e}"


def assert_weights(ours: Tree, theirs: Tree, left_out: Mapping[str, Collection[str]] | None = None) -> None:
    """Compares weights of the same networks.

    Args:
        ours: our weights.
        theirs: the recorded ones.
        left_out: parameters of networks that are not compared.
    """
    assert ours.keys() == theirs.keys()
    for name, tree in ours.items():
        skipped = (left_out or {}).get(name, ())
        errors = [(p - theirs[name][key]).abs().flatten() for key, p in tree.items() if key not in skipped]
        error = torch.cat(errors)
        assert float(error.max()) <= ISOLATED, f"{name}: largest error {float(error.max()):.2e}"
        share = float((error > WEIGHT).float().mean())
        assert share <= SHARE, f"{name}: {100 * share:.2f} % of the weights differ by more than {WEIGHT}"
