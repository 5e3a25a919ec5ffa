"""Addresses: what belongs to the path, what is an option, and which values an option may have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from flowpolicies import FQL, evaluate
from flowpolicies.data import TransitionDataset, load_dataset, make_env, open_writer, register_source, write_memmap
from flowpolicies.data.addresses import address_of, as_switch, join_options, split_options
from flowpolicies.data.sources import SOURCES
from flowpolicies.training import TrainSettings, make_vec_env

NAMES = [
    "a,b.npz",
    "run,seed=3.npz",
    "a=b.npz",
    "a:b.npz",
    "with space.npz",
    "100%.npz",
    "größe-数据.npz",
    "~tilde.npz",
    "C:\\data.npz",
    "quote'\".npz",
    "a.npz,min_length=9",
]


def make(rows: int = 6) -> TransitionDataset:
    rng = np.random.default_rng(0)
    ends = np.arange(rows) % 3 == 2
    ends[0] = True  # Trajectories of 1, 2, 3, 3, ... steps.
    return TransitionDataset.from_arrays(
        rng.normal(size=(rows, 2)), np.zeros((rows, 1)), np.ones(rows), rng.normal(size=(rows, 2)),
        terminations=np.zeros(rows), truncations=ends,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_file_can_be_an_address(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = make()
    saved.save(tmp_path / "plain.npz").rename(tmp_path / name)
    for address in (f"npz:{name}", f"npz:{tmp_path}/{name}"):
        assert load_dataset(address).fingerprint == saved.fingerprint
        with pytest.warns(UserWarning, match="drops 1 of 3 trajectories, which have 1 of 6 transitions"):
            assert load_dataset(f"{address},min_length=2").num_episodes == 2
    if name.endswith(".npz"):
        assert load_dataset(Path(name)).fingerprint == saved.fingerprint


@pytest.mark.parametrize("source", ["npz", "hdf5", "sb3", "memmap"])
def test_what_follows_a_path_and_is_no_option_is_named(source: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.touch()
    with pytest.raises(ValueError, match=r"',Min=5' after the path '.*data' is not an option\. Options are written"):
        load_dataset(f"{source}:{path},Min=5")
    with pytest.raises(ValueError, match=r"',min_length' after the path '.*data' is not an option"):
        load_dataset(f"{source}:{path},min_length")
    with pytest.raises(ValueError, match="has the option 'storage' twice"):
        load_dataset(f"{source}:{path},storage=ram,storage=ram")


def test_options_are_joined_as_they_are_split() -> None:
    options: dict[str, Any] = {"data_dir": "/a, b=c", "n": 3, "word": "5", "flag": True, "quote": '"', "none": None}
    address = join_options("minari:x/y-v0", options)
    assert split_options(address) == ("minari:x/y-v0", options)
    assert split_options("minari:x/y-v0, n=3") == ("minari:x/y-v0", {"n": 3})


def test_paths_decide_the_source_by_their_ending(tmp_path: Path) -> None:
    saved = make()
    saved.save(tmp_path / "a,b=1.npz")
    write_memmap(tmp_path / "folder", saved)
    assert load_dataset(tmp_path / "a,b=1.npz").fingerprint == saved.fingerprint
    assert load_dataset(tmp_path / "folder").fingerprint == saved.fingerprint
    assert [address_of(Path(name)) for name in ("x.h5", "x.HDF5", "x.pkl")] == ["hdf5:x.h5", "hdf5:x.HDF5", "sb3:x.pkl"]
    with pytest.raises(ValueError, match=r"does not say which kind of dataset it is \(known endings: .npz"):
        load_dataset(tmp_path / "data.csv")
    (tmp_path / "buffer.pkl").touch()
    with pytest.raises(ValueError, match="is a pickle, and reading a pickle runs whatever"):
        load_dataset(tmp_path / "buffer.pkl")
    with pytest.raises(FileNotFoundError, match="no dataset in"):
        load_dataset(tmp_path)
    model = FQL(dataset=tmp_path / "a,b=1.npz", actor_hidden_dims=(8,), value_hidden_dims=(8,), device="cpu")
    model.learn_offline(1)
    with pytest.raises(TypeError, match="dataset must be a TransitionDataset or an address"):
        FQL(dataset=3, device="cpu")


@pytest.mark.parametrize("address", ["data.npz", "C:\\data.npz", "C:/data.npz"])
def test_text_that_looks_like_a_path_says_what_to_write(address: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # The text is compared below.
        load_dataset(address)
    assert f"It looks like a path: write 'npz:{address}'." in str(error.value)


@pytest.mark.parametrize("value", ["no", "off", "None", "none", "True", "0", "0.0", "1", "", "yes"])
def test_switches_are_true_or_false(value: str, tmp_path: Path) -> None:
    make().save(tmp_path / "data.npz")
    (tmp_path / "buffer.pkl").write_bytes(b"")
    for address in (f"sb3:{tmp_path}/buffer.pkl,trust={value}", f"npz:{tmp_path}/data.npz,compact={value}"):
        with pytest.raises(ValueError, match=r"(trust|compact) is .*, and must be true or false\.$"):
            load_dataset(address)
    with pytest.raises(ValueError, match="trust is 'no', and must be true or false"):
        load_dataset(f"sb3:{tmp_path}/buffer.pkl", trust="no")
    with pytest.raises(ValueError, match="overwrite is 1, and must be true or false"):
        open_writer(f"npz:{tmp_path}/new.npz", overwrite=1)  # type: ignore[arg-type]
    assert as_switch("x", np.bool_(True)) is True


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "true", "five", '"3"'])
def test_the_smallest_length_is_a_number_of_steps(value: str, tmp_path: Path) -> None:
    make().save(tmp_path / "data.npz")
    with pytest.raises(ValueError, match=r"min_length is .*, and must be a whole number of steps, at least 1"):
        load_dataset(f"npz:{tmp_path}/data.npz,min_length={value}")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"envs_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MineForAddresses-v0', entry_point='gymnasium.envs.classic_control:PendulumEnv',"
        " max_episode_steps=5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_an_id_may_name_the_module_that_registers_it(module: str) -> None:
    address = f"{module}:MineForAddresses-v0"
    assert make_env(address).spec.max_episode_steps == 5
    assert make_env(f"{address},max_episode_steps=3").spec.max_episode_steps == 3
    make_vec_env(address).close()
    data = TransitionDataset.from_arrays(
        np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4), np.zeros((4, 3)), terminations=np.zeros(4),
        action_space=gymnasium.spaces.Box(-2, 2, (1,)),
    )  # fmt: skip
    model = FQL(dataset=data, actor_hidden_dims=(8,), value_hidden_dims=(8,), device="cpu")
    assert len(evaluate(model, address, 2)) == 2
    with pytest.raises(ValueError, match=r"no environment '.*:MineForAddresse-v0'"):
        make_env(f"{module}:MineForAddresse-v0")
    with pytest.raises(ValueError, match=r"If 'nowhere_to_be_found:X-v0' is an id of Gymnasium, the module"):
        make_env("nowhere_to_be_found:X-v0")


def test_a_source_wins_over_a_module_of_its_name(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str) -> Any:
        raise ValueError(f"no world '{name}'.")

    gymnasium.make(f"{module}:MineForAddresses-v0")
    monkeypatch.setattr(SOURCES["environments"], "declared", dict(SOURCES["environments"].declared))
    register_source(module, make_env=make)
    with pytest.raises(ValueError, match=rf"no world .* '{module}:' names the environment source '{module}', not the"):
        make_env(f"{module}:MineForAddresses-v0")
    assert module in sys.modules


def test_runs_on_datasets_that_end_alike_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [TrainSettings(dataset=f"minari:D4RL/{kind}/human-v2").folder("fql").name for kind in ("pen", "door")]
    assert names == ["fql-D4RL-pen-human-v2-seed0", "fql-D4RL-door-human-v2-seed0"]
    old = Path("runs/fql-human-v2-seed0")
    old.mkdir(parents=True)
    (old / "config.json").write_text('{"dataset": {"address": "minari:D4RL/pen/human-v2"}}')
    again = [
        TrainSettings(dataset=f"minari:D4RL/{kind}/human-v2", resume=True).folder("fql") for kind in ("pen", "door")
    ]
    assert again == [old, Path("runs/fql-D4RL-door-human-v2-seed0")]  # Runs of older versions can be continued.
