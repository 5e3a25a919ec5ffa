"""Good artifacts of every kind, small, which the cases are mutations of."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import h5py
import numpy as np
from authors import write_checkpoint
from stable_baselines3.common.buffers import ReplayBuffer
from tiny import pendulum_data, tiny

from flowpolicies import FQL, RQL, QFlow, TransitionDataset
from flowpolicies.data.formats.memmap import write_memmap
from flowpolicies.data.sources import save_dataset
from flowpolicies.training import SB3Hyperparameters, TrainSettings, train

SAVED = Path(__file__).parents[2] / "saved"


class Tree(NamedTuple):
    """The files of an artifact; that of a single file has the name of the file only."""

    name: str
    files: dict[str, bytes]

    @staticmethod
    def read(path: Path) -> Tree:
        if path.is_file():
            return Tree(path.name, {path.name: path.read_bytes()})
        inner = sorted(file for file in path.rglob("*") if file.is_file())
        return Tree(path.name, {f"{path.name}/{file.relative_to(path)}": file.read_bytes() for file in inner})

    def write(self, folder: Path) -> Path:
        """Writes the files below a folder, and returns the path of the artifact."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.name


Seeds = dict[str, list[Tree]]


def walk_data(rows: int = 60) -> TransitionDataset:
    """Two episodes in Pendulum's spaces, in which each next observation is the observation of the following row."""
    rng, env, half = np.random.default_rng(0), gym.make("Pendulum-v1"), rows // 2
    states = rng.uniform(-1, 1, (2, half + 1, 3)).astype(np.float32)
    return TransitionDataset.from_arrays(
        states[:, :-1].reshape(rows, 3),
        rng.uniform(-2, 2, (rows, 1)).astype(np.float32),
        rng.normal(size=rows),
        states[:, 1:].reshape(rows, 3),
        terminations=np.zeros(rows, bool),
        truncations=np.arange(rows) % half == half - 1,
        observation_space=env.observation_space,
        action_space=env.action_space,
    )


def dict_data() -> TransitionDataset:
    """Random transitions with a dictionary of observations."""
    rng, rows = np.random.default_rng(1), 40
    space = gym.spaces.Dict({"goal": gym.spaces.Box(-1, 1, (2,)), "position": gym.spaces.Box(-1, 1, (3,))})
    now, later = (
        {key: rng.uniform(-1, 1, (rows, *box.shape)).astype(np.float32) for key, box in space.items()} for _ in range(2)
    )
    return TransitionDataset.from_arrays(
        now,
        rng.uniform(-1, 1, (rows, 2)),
        rng.normal(size=rows),
        later,
        terminations=np.arange(rows) % 20 == 19,
        observation_space=space,
        action_space=gym.spaces.Box(-1, 1, (2,)),
    )


def image_data() -> TransitionDataset:
    """Random images."""
    rng, rows = np.random.default_rng(2), 12
    images = rng.integers(0, 256, (2, rows, 3, 16, 16)).astype(np.uint8)
    actions = rng.uniform(-1, 1, (rows, 2))
    return TransitionDataset.from_arrays(
        images[0], actions, np.zeros(rows), images[1], terminations=np.arange(rows) == rows - 1
    )


def run_folder(folder: Path) -> Path:
    """A finished run with an offline and an online phase, and all of its files."""
    sizes = FQL.Config(actor_hidden_dims=(8, 8), value_hidden_dims=(8, 8), flow_steps=2)
    data = pendulum_data(100).save(folder / "run-data.npz")
    settings: dict[str, Any] = {"dataset": f"npz:{data}", "env": "Pendulum-v1", "steps": 6, "online_steps": 40}
    settings |= {"eval_episodes": 1, "eval_every": 0, "checkpoint_every": 3, "log_every": 2, "device": "cpu"}
    options = SB3Hyperparameters(batch_size=8, learning_starts=10, buffer_size=100)
    return train(FQL, sizes, TrainSettings(run_dir=folder / "run", **settings), options).path


def write_hdf5(path: Path, *, dictionary: bool = False) -> Path:
    """A file in D4RL's layout."""
    rng, rows = np.random.default_rng(3), 40
    with h5py.File(path, "w") as file:
        names = ("observations/a", "observations/b") if dictionary else ("observations",)
        for name in names:
            file.create_dataset(name, data=rng.normal(size=(rows, 3)).astype(np.float32), compression="gzip")
        file["actions"] = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
        file["rewards"] = rng.normal(size=rows).astype(np.float32)
        file["terminals"] = np.arange(rows) % 20 == 19
        file["timeouts"] = np.arange(rows) % 10 == 9
    return path


def write_replay_buffer(path: Path) -> Path:
    """A pickled replay buffer of Stable-Baselines3."""
    space = gym.spaces.Box(-1, 1, (3,))
    buffer, observation = ReplayBuffer(20, space, gym.spaces.Box(-1, 1, (2,))), np.zeros(3, np.float32)
    for _ in range(10):
        buffer.add(observation, observation, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])
    path.write_bytes(pickle.dumps(buffer))
    return path


def make(folder: Path) -> Seeds:
    """Writes all of them below a folder, and reads their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    models = [
        tiny(cls, dataset=data, **options)
        for cls, data, options in (
            (FQL, pendulum_data(100), {}),
            (RQL, pendulum_data(100), {"horizon": 3}),
            (QFlow, dict_data(), {}),
        )
    ]
    for number, model in enumerate(models):
        model.learn_offline(1)
        model.policy.save(folder / f"policy{number}.safetensors")
        model.save(folder / f"model{number}.zip")
    datasets = (walk_data(), dict_data(), image_data())
    for number, dataset in enumerate(datasets):
        dataset.save(folder / f"data{number}.npz")
        write_memmap(folder / f"memmap{number}", dataset.compact() if number == 0 else dataset)
    minari = save_dataset(walk_data(), "minari:fuzz/mine-v0", data_dir=folder / "minari", env="Pendulum-v1")
    pretrained = folder / "pretrained"
    models[0].policy.save_pretrained(pretrained)
    (folder / "flax").mkdir(exist_ok=True)
    finished = run_folder(folder)
    unfinished = folder / "unfinished"
    shutil.copytree(finished, unfinished)
    for name in ("policy.safetensors", "model.zip", "learning_curve.png"):
        (unfinished / name).unlink()
    paths: dict[str, list[Path]] = {
        "policy": [*folder.glob("policy*.safetensors"), *SAVED.glob("*.safetensors")],
        "model": [*folder.glob("model*.zip"), SAVED / "flow.zip"],
        "run": [finished, unfinished],
        "checkpoint": [unfinished],
        "npz": sorted(folder.glob("data*.npz")),
        "hdf5": [write_hdf5(folder / "flat.hdf5"), write_hdf5(folder / "dict.hdf5", dictionary=True)],
        "memmap": sorted(path for path in folder.glob("memmap*") if path.is_dir()),
        "minari": [folder / "minari"],
        "pickle": [write_replay_buffer(folder / "buffer.pkl")],
        "pretrained": [pretrained],
        "flax": [write_checkpoint(folder / "flax", "fql_a").parent],
    }
    assert minari.exists()
    return {kind: [Tree.read(path) for path in sorted(found)] for kind, found in paths.items()}
