from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

from flowpolicies.algorithms import BC, FQL
from flowpolicies.training import RunFolder, load_policy

OBSERVATIONS = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]


def actions(policy: Any) -> np.ndarray:
    return policy.predict(OBSERVATIONS, deterministic=True)[0]


def test_all_that_training_leaves_behind_is_the_same_policy(folder: RunFolder, make_model: Any, tmp_path: Path) -> None:
    model = make_model()
    model.learn_offline(3)
    folder.write_config({})
    checkpoint = folder.save_checkpoint(model)
    expected = actions(model)
    np.testing.assert_array_equal(actions(load_policy(checkpoint)), expected)
    np.testing.assert_array_equal(actions(load_policy(folder.path)), expected)
    model.policy.save(folder.policy)
    np.testing.assert_array_equal(actions(load_policy(folder.policy)), expected)
    checkpoint.unlink()
    np.testing.assert_array_equal(actions(load_policy(folder.path)), expected)


def test_what_is_no_policy_is_explained(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "policy.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"no policy file, run folder or .*Did you mean 'policy.safetensors'\?"):
        load_policy(tmp_path / "policyx.safetensors")
    with pytest.raises(FileNotFoundError, match=r"model\.save\(\) at '.*/runs/nope'\.$"):
        load_policy(tmp_path / "runs" / "nope")
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        load_policy(tmp_path)
    folder.write_config({})
    with pytest.raises(FileNotFoundError, match="has no policy and no checkpoint yet"):
        load_policy(folder.path)
    PPO("MlpPolicy", "Pendulum-v1", device="cpu").save(tmp_path / "ppo.zip")
    with pytest.raises(
        ValueError, match=r"ppo\.zip': is not a model that an algorithm of flowpolicies saved.*collect\("
    ):
        load_policy(tmp_path / "ppo.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match=r"other\.zip': is damaged, or is not a model that model.save\(\) wrote"):
        load_policy(tmp_path / "other.zip")


@pytest.mark.parametrize("share", [0.5, 0.01])
def test_a_model_that_was_cut_off(make_model: Any, tmp_path: Path, share: float) -> None:
    make_model().save(tmp_path / "whole.zip")
    whole = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: int(share * len(whole))])
    for load, name in ((load_policy, "cut.zip"), (FQL.load, "cut.zip"), (FQL.load, "cut")):
        with pytest.raises(ValueError, match=r"cut\.zip': is damaged, or is not a model"):
            load(tmp_path / name)


def test_a_model_of_another_class(make_model: Any, tmp_path: Path) -> None:
    make_model().save(tmp_path / "fql.zip")
    with pytest.raises(ValueError, match=r"the file holds a model of FQL, not of BC. Load it with FQL.load\(\)"):
        BC.load(tmp_path / "fql.zip")
    PPO("MlpPolicy", "Pendulum-v1", device="cpu").save(tmp_path / "ppo.zip")
    with pytest.raises(ValueError, match="BC acts with FlowPolicy, got ActorCriticPolicy"):
        BC.load(tmp_path / "ppo.zip")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        FQL.load(tmp_path / "fql.zip", batch_size=0)
