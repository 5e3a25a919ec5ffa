"""Functions that work alike on one array and on a dict of arrays, such as observations of a Box and of a Dict space.

Such a value is called a tree here, and its arrays are its leaves. The leaves may be of any type but a mapping: NumPy
arrays, tensors, shapes or lists of column names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy.typing as npt

Array = npt.NDArray[Any]
"""An array of any data type."""

Leaf = TypeVar("Leaf")
Result = TypeVar("Result")


def tree_map(
    function: Callable[..., Result], tree: Leaf | Mapping[str, Leaf], *others: Any
) -> Result | dict[str, Result]:
    """The results of `function` for each leaf, in a tree of the same structure.

    Args:
        function: takes one leaf of each tree.
        tree: one value, or a mapping from names to values.
        *others: further trees, which must have the structure of the first one.

    Raises:
        ValueError: if the keys of the trees differ, or only some of the trees are mappings.
    """
    keys = _keys(tree)
    for other in others:
        if _keys(other) != keys:
            raise ValueError(f"cannot combine {_described(tree)} with {_described(other)}: pass trees of equal keys.")
    if not isinstance(tree, Mapping):
        return function(tree, *others)
    return {key: function(value, *(other[key] for other in others)) for key, value in tree.items()}


def leaves(tree: Leaf | Mapping[str, Leaf]) -> list[Leaf]:
    """The values of a mapping in its order, or the one value itself."""
    return list(tree.values()) if isinstance(tree, Mapping) else [tree]


def named_leaves(name: str, tree: Leaf | Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The leaves by names for messages and files: "NAME/KEY" for each key of a mapping, or "NAME" for one value."""
    return {f"{name}/{key}": leaf for key, leaf in tree.items()} if isinstance(tree, Mapping) else {name: tree}


def nested(named: Mapping[str, Leaf]) -> dict[str, Any]:
    """The trees by name from their `named_leaves`: the values of "NAME/KEY" become one dict, which is called "NAME"."""
    trees: dict[str, Any] = {}
    for full_name, leaf in named.items():
        name, _, key = full_name.partition("/")
        trees[name] = {**trees.get(name, {}), key: leaf} if key else leaf
    return trees


def leaf_at(tree: Leaf | Mapping[str, Leaf], key: str | None) -> Leaf:
    """The leaf of a mapping at `key`, or the one value itself if `key` is None.

    Raises:
        ValueError: if a key is given for one value, or None for a mapping.
        KeyError: if the mapping does not have the key.
    """
    if isinstance(tree, Mapping) and key is not None:
        return tree[key]
    if isinstance(tree, Mapping) or key is not None:
        raise ValueError(
            f"{_described(tree)} has no leaf at {key!r}. Pass a key for a mapping, and None for one value."
        )
    return tree


def take(tree: Any, rows: Any) -> Any:
    """The rows of each leaf.

    Args:
        tree: an array or a tensor `[N, ...]`, or a mapping of them.
        rows: row numbers, a mask `[N]`, or a slice.
    """
    return tree_map(lambda leaf: leaf[rows], tree)


def _keys(tree: Any) -> set[str] | None:
    return set(tree) if isinstance(tree, Mapping) else None


def _described(tree: Any) -> str:
    return f"a mapping with the keys {sorted(tree)}" if isinstance(tree, Mapping) else f"one {type(tree).__name__}"
