"""Runs whose policy file or plot cannot be written keep their model, and say what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny import pendulum_data

from flowpolicies.algorithms import ALGORITHMS, BC, OfflineAlgorithm
from flowpolicies.cli import main
from flowpolicies.core import Network
from flowpolicies.networks import VelocityField
from flowpolicies.samplers import Integrate
from flowpolicies.training import phases
from flowpolicies.training.loading import load_policy


@pytest.fixture
def lambda_bc() -> Iterator[type[OfflineAlgorithm]]:
    """Behaviour cloning with a network that no policy file can describe."""

    @dataclass(frozen=True, kw_only=True)
    class LambdaConfig(BC.Config):
        """As BC."""

        def networks(self, tau):
            return {"actor_flow": Network(lambda o, a: VelocityField(o, a, hidden_dims=(8,)))}

        def sampler(self):
            return Integrate()

    class LambdaBC(OfflineAlgorithm):
        """Behaviour cloning whose network is made by a lambda."""

        Config = LambdaConfig
        losses = BC.losses

    yield LambdaBC
    del ALGORITHMS["lambdabc"]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    pendulum_data().save(tmp_path / "data.npz")
    place = ["--dataset", "npz:data.npz", "--env", "Pendulum-v1", "--run-dir", "run", "--device", "cpu"]
    return [*place, "--steps", "4", "--checkpoint-every", "2", "--eval-episodes", "1", "--eval-envs", "1"]


def test_a_network_that_no_policy_file_can_describe(
    lambda_bc: type[OfflineAlgorithm], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match=r"this run will have no policy\.safetensors: the factory of network") as seen:
        assert main(["train", "lambdabc", *words]) == 2
    assert len([warning for warning in seen if "policy.safetensors" in str(warning.message)]) == 1
    err = capsys.readouterr().err
    assert "the training has ended and the model is saved in 'run/model.zip', but these files could not be" in err
    assert "policy.safetensors (TypeError: the factory of network 'actor_flow' cannot be saved" in err
    assert "Traceback" not in err
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files >= {"model.zip", "config.json", "progress.csv", "evaluations.csv", "learning_curve.png"}
    assert "policy.safetensors" not in files
    model = lambda_bc.load("run/model.zip", device="cpu")
    assert model.offline_steps == 4
    observations = np.zeros((2, 3), np.float32)
    checkpoints = sorted((tmp_path / "run" / "checkpoints").glob("*.zip"))
    assert [lambda_bc.load(path, device="cpu").offline_steps for path in checkpoints] == [2, 4]
    np.testing.assert_array_equal(
        model.predict(observations, deterministic=True)[0],
        lambda_bc.load(checkpoints[-1], device="cpu").predict(observations, deterministic=True)[0],
    )
    assert load_policy(tmp_path / "run").specs.keys() == {"actor_flow"}, "the run folder still evaluates"


def test_a_failing_plot_costs_only_the_plot(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(phases, "plot_learning_curves", fail)
    assert main(["train", "bc", *words, "--actor-hidden-dims", "8"]) == 2
    assert "could not be written: learning_curve.png (RuntimeError: no fonts)" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.zip").is_file()
    assert (tmp_path / "run" / "policy.safetensors").is_file()
