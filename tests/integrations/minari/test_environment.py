from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box
from minari_worlds import Forgetful, GoalWorld, Halved
from stable_baselines3.common.env_checker import check_env

from flowpolicies import evaluate
from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import list_sources, load_dataset, make_env
from flowpolicies.training import TrainSettings
from flowpolicies_minari import MinariEnv, load
from flowpolicies_minari.specs import read_spec, unmet_requirements


def change(root: Path, name: str, key: str = "env_spec", **values: Any) -> None:
    """Change the specification in the metadata; None removes a key."""
    path = root / name / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    spec = json.loads(metadata["env_spec"]) | values
    metadata[key] = json.dumps({name: value for name, value in spec.items() if value is not None})
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("env", ["Pendulum-v1", "MinariWorld-v0", "MinariDictWorld-v0", "MinariTupleWorld-v0"])
def test_environment_and_data_agree(record: Any, train: Any, env: str) -> None:
    record("w-v0", env, 2)
    dataset, made = load_dataset("minari:w-v0"), make_env("minari:w-v0")
    assert isinstance(made, MinariEnv)
    assert made.observation_space == dataset.observation_space
    assert made.action_space == dataset.action_space
    observation, _ = made.reset(seed=0)
    arrays = observation if isinstance(observation, dict) else {"": observation}
    for key, value in arrays.items():
        stored = dataset.observations[key] if key else dataset.observations
        np.testing.assert_array_equal(value, stored[0])  # The first episode was collected with this seed.
        assert value.dtype == stored.dtype
    rewards = [float(made.step(action)[1]) for action in dataset.actions[: dataset.episode_ends[0] + 1]]
    np.testing.assert_allclose(rewards, dataset.rewards[: len(rewards)], rtol=1e-6)
    if env != "MinariTupleWorld-v0":  # Its image is smaller than what Stable-Baselines3 accepts.
        check_env(made, warn=False)
        found = evaluate(train(dataset), make_env("minari:w-v0"), 2, seed=0)
        assert (found.successes is None) == (env == "Pendulum-v1")


def test_images_train_and_evaluate(record: Any) -> None:
    from flowpolicies import BC

    record("w-v0", "MinariImageWorld-v0", 2, jpeg_encoding=False)
    sizes = {"actor_hidden_dims": (8,), "batch_size": 4, "flow_steps": 2, "device": "cpu"}
    model = BC(env=make_env("minari:w-v0"), dataset=load("w-v0"), **sizes)
    model.learn_offline(1)
    assert len(model.evaluate(episodes=1)) == 1


def test_success_is_reported_as_sb3_expects(record: Any) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    env = make_env("minari:w-v0")
    env.reset(seed=0)
    infos = []
    for _ in range(9):
        *_, terminated, truncated, info = env.step(np.array([1.0, 1.0]))
        infos.append(info["is_success"])
        if terminated or truncated:
            break
    assert terminated
    assert infos == [False] * (len(infos) - 1) + [True]


def test_options_reach_the_environment(record: Any) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    env = make_env("minari:w-v0", max_episode_steps=2, scale=0.0)
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(2)] == [False, True]
    assert env.unwrapped.scale == 0


@pytest.mark.parametrize(
    "extra", [{"autoreset": True}, {"apply_api_compatibility": None, "autoreset": False, "new_thing": [1]}]
)
def test_keys_of_other_gymnasiums_are_dropped(record: Any, root: Path, extra: dict[str, Any]) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change(root, "w-v0", **{"order_enforce": False, "kwargs": {"scale": 0.5}, **extra})
    with pytest.raises((ValueError, TypeError)):
        minari.load_dataset("w-v0").recover_environment()
    env = make_env("minari:w-v0")
    assert env.unwrapped.scale == 0.5


def test_wrappers_that_can_be_rebuilt_stay(record: Any) -> None:
    record("w-v0", Forgetful(Halved(gym.make("MinariWorld-v0"), divisor=4.0)), 1)
    with pytest.raises(ValueError, match="cannot be recreated"):
        minari.load_dataset("w-v0").recover_environment()
    with pytest.raises(
        ArtifactError, match=r"wrapper 'Halved' of dataset 'w-v0' \(minari_worlds:Halved\) is not one of"
    ):
        make_env("minari:w-v0")
    with pytest.warns(UserWarning, match=r"wrappers of its environment cannot be rebuilt and are left out: Forgetful"):
        env = make_env("minari:w-v0,trust=true")
    assert env.get_wrapper_attr("divisor") == 4
    dataset = load("w-v0")
    env.reset(seed=0)
    assert env.step(dataset.actions[0])[1] == pytest.approx(dataset.rewards[0])


def test_wrappers_that_moved_are_found(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    moved = {"name": "ClipAction", "entry_point": "gymnasium.wrappers.old_place:ClipAction", "kwargs": {}}
    gone = {"name": "Gone", "entry_point": "gymnasium.wrappers.old_place:Gone", "kwargs": {}}
    change(root, "w-v0", additional_wrappers=[moved])
    assert isinstance(make_env("minari:w-v0").env, gym.wrappers.ClipAction)
    change(root, "w-v0", additional_wrappers=[moved, gone])
    with pytest.raises(ArtifactError, match="wrapper 'Gone' of dataset 'w-v0'"):
        make_env("minari:w-v0")
    with pytest.warns(UserWarning, match="left out: Gone"):
        env = make_env("minari:w-v0", trust=True)
    assert isinstance(env.env, gym.wrappers.ClipAction)


@pytest.mark.parametrize("place", ["os:system", "subprocess:Popen", "minari_worlds:Witness.reset"])
@pytest.mark.parametrize("trust", [False, True])
def test_nothing_but_environments_is_called(record: Any, root: Path, tmp_path: Path, place: str, trust: bool) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    command = f"touch {tmp_path}/evil"
    arguments = {"args": command, "shell": True} if place == "subprocess:Popen" else {"command": command}
    change(root, "w-v0", id="Evil-v0", entry_point=place, kwargs=arguments)
    with pytest.raises((ValueError, ImportError), match="'Evil-v0'"):
        make_env("minari:w-v0", trust=trust)
    evil = {"name": "X", "entry_point": place, "kwargs": arguments}
    change(root, "w-v0", id="MinariWorld-v0", entry_point=None, kwargs={}, additional_wrappers=[evil])
    if trust:
        with pytest.warns(UserWarning, match="left out: X"):
            make_env("minari:w-v0", trust=True)
    else:
        with pytest.raises(ArtifactError, match=rf"wrapper 'X' of dataset 'w-v0' \({place}\) is not one of"):
            make_env("minari:w-v0")
    assert not (tmp_path / "evil").exists()


def test_an_environment_that_is_not_installed(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1, requirements=["robots>=2"])
    change(root, "w-v0", id="Robot-v0", entry_point="robots.envs:Robot")
    message = r"environment 'Robot-v0' of dataset 'w-v0' is not installed .*pip install robots>=2"
    with pytest.raises(ImportError, match=message):
        make_env("minari:w-v0", trust=True)
    change(root, "w-v0", id="Robot-v0", entry_point="minari_worlds:Robot")
    with pytest.raises(ImportError, match="is not registered, and minari_worlds:Robot cannot be imported"):
        make_env("minari:w-v0", trust=True)


def test_a_class_that_is_not_registered(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change(root, "w-v0", id="Unregistered-v0")
    with pytest.raises(ArtifactError, match=r"'Unregistered-v0' .* is not registered .*minari:w-v0,trust=true"):
        make_env("minari:w-v0")
    assert make_env("minari:w-v0", trust=True).unwrapped.scale == 1


def test_unmet_requirements_are_said(record: Any) -> None:
    assert list(unmet_requirements(["numpy>=1", "not a requirement!"])) == []
    assert next(unmet_requirements(["numpy<1"])).startswith("it requires numpy<1, but version ")
    record("w-v0", "MinariWorld-v0", 1, requirements=["numpy<1", "robots"])
    with pytest.warns(UserWarning, match="robots, which is not installed"), pytest.warns(UserWarning, match="numpy<1"):
        make_env("minari:w-v0")


@pytest.mark.parametrize(("old", "new"), [("Hopper-v2", "Hopper-v5"), ("HalfCheetah-v3", "HalfCheetah-v5")])
def test_old_mujoco_becomes_version_5(old: str, new: str) -> None:
    text = json.dumps({"id": old, "entry_point": "gym.envs.mujoco:X", "max_episode_steps": 7, "autoreset": False})
    with pytest.warns(UserWarning, match=rf"collected in {old}.* {new} is used instead.* scores are not comparable"):
        spec = read_spec(text, "w")
    assert (spec.id, spec.max_episode_steps, spec.entry_point) == (new, 7, gym.spec(new).entry_point)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_spec(json.dumps({"id": new, "entry_point": "gymnasium.envs.mujoco:X"}), "w").id == new


def test_a_replacement_with_other_observations_is_refused(write: Any, episode: Any, root: Path) -> None:
    pytest.importorskip("mujoco")
    observations, actions = np.zeros((5, 111), np.float32), np.zeros((4, 8), np.float32)
    spaces = (Box(-np.inf, np.inf, (111,), np.float32), Box(-1, 1, (8,), np.float32))
    write("ant-v0", [episode(4, observations=observations, actions=actions)], *spaces, env="Ant-v5")
    change(root, "ant-v0", id="Ant-v2", kwargs={})
    message = r"'Ant-v5' of dataset 'ant-v0' has observations of shape \(105,\), the data \(111,\)"
    with pytest.warns(UserWarning, match="Ant-v2"), pytest.raises(ValueError, match=message):
        make_env("minari:ant-v0")


def test_a_dataset_without_an_environment(write: Any, episode: Any) -> None:
    write("own-v0", [episode(4)])
    with pytest.raises(ValueError, match=r"'own-v0' names no environment\. Training does not need one; to"):
        make_env("minari:own-v0")


@pytest.mark.parametrize("text", ["{", "[]", '{"id": 3}', '{"entry_point": "x"}'])
def test_text_that_is_not_a_specification_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the environment specification of dataset 'w' cannot be read"):
        read_spec(text, "w")


def test_the_evaluation_environment_comes_first(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change(root, "w-v0", key="eval_env_spec", kwargs={"scale": 0.25})
    assert make_env("minari:w-v0").unwrapped.scale == 0.25
    assert make_env("minari:w-v0", evaluation=False).unwrapped.scale == 1


def test_antmaze_convention_online(record: Any) -> None:
    record("w-v0", "MinariGoalWorld-v0", 1)
    env = make_env("minari:w-v0", reward_convention="d4rl-antmaze")
    assert isinstance(env.unwrapped, GoalWorld)
    env.reset(seed=0)
    steps = [env.step(np.array([1.0, 0.0])) for _ in range(2)]
    assert [(step[1], step[2]) for step in steps] == [(-1, False), (0, True)]


def test_minari_is_a_source() -> None:
    assert list_sources("datasets")["minari"] == list_sources("environments")["minari"] == "flowpolicies"


def test_without_minari_the_line_to_install_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("flowpolicies_minari")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(
        ImportError, match=r"source 'minari' cannot be imported .* pip install \"flowpolicies\[minari\]\""
    ):
        load_dataset("minari:w-v0")


def test_importing_it_makes_no_folder(tmp_path: Path) -> None:
    code = "import flowpolicies_minari"
    environment = {**os.environ, "HOME": str(tmp_path), "MINARI_DATASETS_PATH": str(tmp_path / "minari")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not (tmp_path / "minari").exists()
    assert not (tmp_path / ".minari").exists()


def test_the_environment_of_a_run_has_the_folder_and_the_options_of_its_data(
    record: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run on data in another folder would try to download them, and not end episodes at the goal."""
    record("worlds/goals-v0", "MinariGoalWorld-v0")
    (root / "worlds").rename(tmp_path / "elsewhere")
    (tmp_path / "worlds").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "worlds" / "worlds")
    monkeypatch.setenv("FLOWPOLICIES_OFFLINE", "1")
    address = "minari:worlds/goals-v0,reward_convention=d4rl-antmaze"
    settings = TrainSettings(dataset=address, data_dir=tmp_path / "worlds")
    found = settings.environment()
    assert found == f"{address},data_dir={tmp_path}/worlds"
    env = make_env(found)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[1] == -1
    assert settings.folder("fql") == Path("runs/fql-worlds-goals-v0-d4rl-antmaze-seed0")
