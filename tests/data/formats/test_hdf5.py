import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from flowpolicies.data import DataFault, TransitionDataset, load_dataset


def make_columns(rows: int = 40, seed: int = 0) -> dict[str, Any]:
    """Episodes that terminate, time out, do both at once, and have one step; the file ends inside one."""
    generator = np.random.default_rng(seed)
    terminals, timeouts = np.zeros(rows, bool), np.zeros(rows, bool)
    terminals[[4, 5, 20, 30]] = True
    timeouts[[10, 11, 30]] = True
    return {
        "observations": generator.normal(size=(rows, 3)),
        "actions": generator.uniform(-1, 1, (rows, 2)),
        "rewards": generator.normal(size=rows),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def write(path: Path, columns: dict[str, Any]) -> str:
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            file[key] = column
    return f"hdf5:{path}"


def qlearning_rows(columns: dict[str, Any], max_episode_steps: int | None = None) -> list[int]:
    """The rows that D4RL's `qlearning_dataset` keeps: no row that times out, and not the last one."""
    rows, step = [], 0
    for row in range(len(columns["rewards"]) - 1):
        final = step + 1 == max_episode_steps if max_episode_steps else columns["timeouts"][row]
        if not final:
            rows.append(row)
        step = 0 if final or columns["terminals"][row] else step + 1
    return rows


def test_shifted_transitions_are_those_of_d4rl(tmp_path: Path) -> None:
    columns = make_columns()
    dataset = load_dataset(write(tmp_path / "maze.hdf5", columns))
    rows = np.array(qlearning_rows(columns))
    for key in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(dataset, key), columns[key][rows].astype(np.float32))
    np.testing.assert_array_equal(dataset.masks, ~columns["terminals"][rows])
    read = dataset.masks == 1  # Where bootstrapping stops D4RL gives the next episode's start, and we the row's own.
    following = np.where(read, rows + 1, rows)
    np.testing.assert_array_equal(dataset.next_observations, columns["observations"][following].astype(np.float32))
    ends = [rows.tolist().index(row) for row in (4, 5, 9, 20, 29, 38)]  # Rows 10, 11, 30, 39 are gone.
    np.testing.assert_array_equal(dataset.episode_ends, ends)
    assert dataset.name == "maze"
    assert dataset.provenance == {
        "name": "maze",
        "source": "hdf5",
        "file": "maze.hdf5",
        "next_observations": "shifted",
        "dropped_rows": 4,
        "rows": 40,
    }


def test_a_terminal_last_row_is_kept(tmp_path: Path) -> None:
    columns = make_columns()
    columns["terminals"][-1] = True
    dataset = load_dataset(write(tmp_path / "data.hdf5", columns))
    assert dataset.rewards[-1] == np.float32(columns["rewards"][-1])
    assert dataset.masks[-1] == 0


def test_stored_next_observations_keep_every_row(tmp_path: Path) -> None:
    columns = make_columns()
    columns["next_observations"] = np.random.default_rng(1).normal(size=(40, 3))
    address = write(tmp_path / "data.hdf5", columns | {"infos/qpos": np.zeros((40, 9)), "metadata/algorithm": "SAC"})
    dataset = load_dataset(address)
    assert isinstance(dataset.next_observations, np.ndarray)
    np.testing.assert_array_equal(dataset.next_observations, columns["next_observations"].astype(np.float32))
    np.testing.assert_array_equal(dataset.masks, ~columns["terminals"])
    np.testing.assert_array_equal(dataset.episode_ends, [4, 5, 10, 11, 20, 30, 39])
    assert dataset.provenance["next_observations"] == "stored"
    shifted = load_dataset(address, next_observations="shifted")
    del columns["next_observations"]
    assert shifted.fingerprint == load_dataset(write(tmp_path / "other.hdf5", columns)).fingerprint


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
def test_files_without_timeouts_need_the_length_of_episodes(tmp_path: Path, steps: int) -> None:
    columns = make_columns()
    del columns["timeouts"]
    address = write(tmp_path / "data.hdf5", columns)
    with pytest.raises(ValueError, match=r"has no 'timeouts'\. Pass max_episode_steps="):
        load_dataset(address)
    rows = qlearning_rows(columns, steps)
    if not rows:
        with pytest.raises(ValueError, match="has no transitions"):
            load_dataset(address, max_episode_steps=steps)
        return
    dataset = load_dataset(address, max_episode_steps=steps)
    np.testing.assert_array_equal(dataset.rewards, columns["rewards"][rows].astype(np.float32))


@pytest.mark.parametrize("stored", [False, True])
def test_terminals_inside(tmp_path: Path, stored: bool) -> None:
    columns = make_columns()
    if stored:
        columns["next_observations"] = np.roll(columns["observations"], -1, axis=0)
    dataset = load_dataset(write(tmp_path / "data.hdf5", columns), terminals="inside")
    rows = np.arange(40) if stored else np.setdiff1d(np.arange(39), [10, 11, 30])
    np.testing.assert_array_equal(dataset.masks, ~columns["terminals"][rows])
    np.testing.assert_array_equal(rows[dataset.episode_ends], [10, 11, 30, 39] if stored else [9, 29, 38])
    following = columns["observations"][(rows + 1) % 40].astype(np.float32)
    np.testing.assert_array_equal(dataset.next_observations, following)


def test_terminals_inside_do_not_restart_the_count_of_steps(tmp_path: Path) -> None:
    columns = make_columns()
    del columns["timeouts"]
    address = write(tmp_path / "data.hdf5", columns)
    dataset = load_dataset(address, terminals="inside", max_episode_steps=10)
    np.testing.assert_array_equal(dataset.episode_lengths, [9, 9, 9, 9])
    with pytest.raises(ValueError, match=r"unknown terminals 'within' \(known: ends, inside\)"):
        load_dataset(address, terminals="within")


def test_actions_are_clipped_on_request(tmp_path: Path) -> None:
    columns = make_columns()
    columns["actions"] *= 3
    address = write(tmp_path / "data.hdf5", columns)
    dataset = load_dataset(f"{address},clip_actions=true")
    assert dataset.action_space == Box(-1, 1, (2,), np.float32)
    limit = 1 - 1e-5
    rows = qlearning_rows(columns)
    np.testing.assert_allclose(dataset.actions, np.clip(columns["actions"][rows], -limit, limit), rtol=1e-6)
    wide = load_dataset(address, clip_actions=True, action_space=Box(-2, 2, (2,), np.float32))
    assert np.abs(wide.actions).max() == np.float32(2 * limit)
    assert wide.provenance["action_margin"] == 1e-5
    for space in (Box(-1, 1, (3,)), Box(-np.inf, np.inf, (2,))):
        with pytest.raises(ValueError, match=r"actions of shape \(2,\) cannot be clipped to Box"):
            load_dataset(address, clip_actions=True, action_space=space)


def test_one_number_per_row_may_have_a_dimension_of_its_own(tmp_path: Path) -> None:
    columns = make_columns()
    plain = load_dataset(write(tmp_path / "data.hdf5", columns))
    columns |= {key: columns[key][:, None] for key in ("rewards", "terminals", "timeouts")}
    assert load_dataset(write(tmp_path / "other.hdf5", columns)).fingerprint == plain.fingerprint


def test_dict_observations_and_spaces(tmp_path: Path) -> None:
    columns = make_columns()
    image = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), np.uint8)
    del columns["observations"]
    address = write(
        tmp_path / "data.hdf5", columns | {"observations/image": image, "observations/state": np.ones((40, 1))}
    )
    dataset = load_dataset(address, action_space=Box(-2, 2, (2,), np.float32), name="robot", provenance={"by": "hand"})
    assert isinstance(dataset.observation_space, Dict)
    assert isinstance(dataset.observations, dict)
    assert dataset.observations["image"].dtype == np.uint8
    np.testing.assert_array_equal(dataset.observations["image"], image[qlearning_rows(make_columns())])
    assert dataset.action_space == Box(-2, 2, (2,), np.float32)
    assert (dataset.name, dataset.provenance["by"]) == ("robot", "hand")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observations": None},
            r"lacks \['observations'\] \(it holds \['actions', 'rewards', 'terminals', 'timeouts'\]\)",
        ),
        ({"terminals": None, "terminal": np.zeros(40)}, r"lacks \['terminals'\] .*Did you mean 'terminal'\?"),
        ({"actions": None, "episode_0/actions": np.zeros(3)}, r"looks like the data of a Minari dataset.*minari:NAME"),
        ({"actions": np.zeros((39, 2))}, r"has 40 terminals, but these shapes: \{'actions': \(39, 2\)\}"),
        ({"timeouts": np.zeros(39)}, r"has 40 terminals, but these shapes: \{'timeouts': \(39,\)\}"),
        ({"rewards": 3.0}, r"has 40 terminals, but these shapes: \{'rewards': \(\)\}"),
        ({"timeouts": np.full(40, 0.5)}, r"dataset 'data': timeouts must be 0 or 1, but row 0 has 0\.5"),
        ({"rewards": np.zeros((40, 2))}, r"rewards have shape \(36, 2\), expected \(36,\)"),
        ({"actions": [b"left"] * 40}, r"data\.hdf5', actions: it holds .*, not numbers"),
        ({"actions": np.full((40, 2), 3.0)}, r"actions range from 3 to 3, so their bounds cannot be guessed"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    columns = {key: column for key, column in (make_columns() | changes).items() if column is not None}
    with pytest.raises(ValueError, match=message):
        load_dataset(write(tmp_path / "data.hdf5", columns))


def test_the_episode_and_step_of_a_fault_are_named(tmp_path: Path) -> None:
    columns = make_columns()
    columns["actions"][13] = [0, 1.5]
    address = write(tmp_path / "data.hdf5", columns)
    with pytest.raises(DataFault, match=r"first in row 11 \(episode 3, step 1\)"):
        load_dataset(address, action_space=Box(-1, 1, (2,)))
    with pytest.raises(DataFault, match=r"first beyond \[-1, 1\] in row 11 \(episode 3, step 1\)"):
        load_dataset(address)


def test_actions_that_look_discrete_are_refused(tmp_path: Path) -> None:
    address = write(tmp_path / "data.hdf5", make_columns() | {"actions": np.ones((40, 2), int)})
    for options in ({}, {"clip_actions": True}):
        with pytest.raises(DataFault, match=r"dataset 'data': actions are int64, and look like discrete actions"):
            load_dataset(address, **options)
    assert load_dataset(address, action_space=Box(-1, 1, (2,))).actions.min() == 1


def test_other_and_cut_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "data.hdf5", make_columns(4000))
    content = (tmp_path / "data.hdf5").read_bytes()
    (tmp_path / "half.hdf5").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(ValueError, match=r"half\.hdf5': .*truncated.*If it is only a part of the file"):
        load_dataset(f"hdf5:{tmp_path}/half.hdf5")
    with pytest.raises(ValueError, match=r"text\.hdf5': it is not an HDF5 file"):
        load_dataset(f"hdf5:{tmp_path}/text.hdf5")
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*dta\.hdf5'\. Did you mean '.*data\.hdf5'\?"):
        load_dataset(f"hdf5:{tmp_path}/dta.hdf5")
    with pytest.raises(FileNotFoundError, match=r"is a folder\. Give the path of an HDF5 file"):
        load_dataset(f"hdf5:{tmp_path}")


def test_wrong_options_are_explained(tmp_path: Path) -> None:
    address = write(tmp_path / "data.hdf5", make_columns())
    with pytest.raises(ValueError, match=r"unknown next_observations 'shift' \(known: stored, shifted\)"):
        load_dataset(address, next_observations="shift")
    with pytest.raises(ValueError, match=r"lacks \['next_observations'\]"):
        load_dataset(address, next_observations="stored")
    with pytest.raises(ValueError, match=r"says itself where episodes time out: load it without max_episode_steps"):
        load_dataset(address, max_episode_steps=5)


def test_without_h5py_the_line_to_type_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = write(tmp_path / "data.hdf5", make_columns())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'Install it: pip install "flowpolicies\[hdf5\]"'):
        load_dataset(address)


def test_a_round_trip_through_npz(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path / "data.hdf5", make_columns()))
    assert TransitionDataset.load(dataset.to_npz(tmp_path / "data.npz")).fingerprint == dataset.fingerprint


@pytest.mark.parametrize("key", ["terminals", "timeouts"])
def test_flags_with_a_second_axis_are_refused(tmp_path: Path, key: str) -> None:
    columns = make_columns()
    address = write(tmp_path / "data.hdf5", {**columns, key: np.tile(columns[key][:, None], 2)})
    with pytest.raises(ValueError, match=rf"{key} have shape \(40, 2\), expected one number per row"):
        load_dataset(address)
