import numpy as np
import pytest
import torch

from flowpolicies.tree import leaf_at, leaves, named_leaves, nested, take, tree_map

ARRAY = np.arange(6).reshape(3, 2)
DICT = {"b": ARRAY, "a": ARRAY + 10}


def test_a_map_keeps_the_structure_and_the_order_of_keys() -> None:
    assert tree_map(len, ARRAY) == 3
    assert tree_map(np.ndim, DICT) == {"b": 2, "a": 2}
    assert list(tree_map(np.ndim, DICT)) == ["b", "a"]


def test_a_map_over_several_trees_passes_the_leaves_of_equal_keys() -> None:
    other = {"a": 1, "b": 2}
    assert tree_map(lambda x, y, z: (int(x.max()), y, z), DICT, other, other) == {"b": (5, 2, 2), "a": (15, 1, 1)}
    np.testing.assert_array_equal(tree_map(lambda *parts: np.concatenate(parts), ARRAY, ARRAY), [*ARRAY, *ARRAY])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            DICT,
            {"a": ARRAY},
            r"a mapping with the keys \['a', 'b'\] with a mapping with the keys \['a'\]",
        ),
        (DICT, ARRAY, "a mapping with the keys .* with one ndarray: pass trees of equal keys"),
        (ARRAY, DICT, "cannot combine one ndarray with a mapping"),
    ],
)
def test_trees_of_different_structure_are_refused(first: object, second: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tree_map(lambda x, y: x, first, second)


def test_leaves_of_one_array_and_of_a_dict() -> None:
    assert leaves(ARRAY)[0] is ARRAY
    assert len(leaves(ARRAY)) == 1
    assert [leaf is DICT[key] for leaf, key in zip(leaves(DICT), "ba", strict=True)] == [True, True]


def test_nested_undoes_named_leaves() -> None:
    named = {**named_leaves("observations", DICT), **named_leaves("actions", ARRAY)}
    assert list(named) == ["observations/b", "observations/a", "actions"]
    assert nested(named) == {"observations": DICT, "actions": ARRAY}


def test_a_key_of_a_space_may_contain_a_slash() -> None:
    assert nested(named_leaves("observations", {"goal/position": 1})) == {"observations": {"goal/position": 1}}


def test_the_leaf_at_a_key() -> None:
    assert leaf_at(DICT, "a") is DICT["a"]
    assert leaf_at(ARRAY, None) is ARRAY
    with pytest.raises(ValueError, match="one ndarray has no leaf at 'a'"):
        leaf_at(ARRAY, "a")
    with pytest.raises(ValueError, match=r"the keys .* has no leaf at None"):
        leaf_at(DICT, None)


def test_rows_of_arrays_and_tensors() -> None:
    np.testing.assert_array_equal(take(ARRAY, np.array([2, 0])), [[4, 5], [0, 1]])
    np.testing.assert_array_equal(take(DICT, slice(1))["a"], [[10, 11]])
    assert take({"a": torch.arange(3)}, torch.tensor([True, False, True]))["a"].tolist() == [0, 2]
