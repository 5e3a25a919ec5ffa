from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

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
    with pytest.raises(FileNotFoundError, match="no policy file"):
        load_policy(tmp_path / "missing.safetensors")
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        load_policy(tmp_path)
    folder.write_config({})
    with pytest.raises(FileNotFoundError, match="has no policy and no checkpoint yet"):
        load_policy(folder.path)
    PPO("MlpPolicy", "Pendulum-v1", device="cpu").save(tmp_path / "ppo.zip")
    with pytest.raises(ValueError, match=r"ppo\.zip' is not a model that an algorithm of flowpolicies saved"):
        load_policy(tmp_path / "ppo.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match=r"other\.zip' is not a model that an algorithm of flowpolicies saved"):
        load_policy(tmp_path / "other.zip")
