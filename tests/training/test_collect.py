from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from tiny import tiny

from flowpolicies.algorithms import FQL, QC
from flowpolicies.data import TransitionDataset, load_dataset, make_env
from flowpolicies.training import collect


class Counter:
    """A policy whose actions depend on a number in its state, like those of a recurrent or chunked policy."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        state = np.zeros(len(observation)) if state is None else np.where(episode_start, 0, state + 1)
        return (state[:, None] / 10).astype(np.float32), state


class Breaks(Counter):
    """An environment that fails in the second episode."""

    calls = 0

    def predict(self, *arguments: Any, **options: Any) -> tuple[np.ndarray, Any]:
        self.calls += 1
        if self.calls > 12:
            raise RuntimeError("broken policy")
        return super().predict(*arguments, **options)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Addresses of all kinds of writers."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return {"npz": f"npz:{tmp_path}/out.npz", "minari": "minari:reach/mine-v0"}


def files(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["npz", "minari"])
def test_what_was_collected_is_what_is_loaded(kind: str, places: dict[str, str]) -> None:
    if kind == "minari":
        pytest.importorskip("minari")
    dataset, found = collect(Counter(), "Reach-v0", 3, out=places[kind], seed=5)
    again = load_dataset(places[kind])
    assert again.fingerprint == dataset.fingerprint
    assert (len(again), again.num_episodes, len(found)) == (24, 3, 3)
    origin = again.provenance if kind == "npz" else again.provenance["collected"]
    assert (origin["env"], origin["policy"], origin["seed"]) == ("Reach-v0", "Counter", 5)


def test_the_state_goes_from_step_to_step(places: dict[str, str]) -> None:
    dataset, _ = collect(Counter(), "Reach-v0", 2, seed=0)
    np.testing.assert_allclose(dataset.actions[:, 0], np.tile(np.arange(8) / 10, 2), rtol=1e-6)


def test_action_chunks_are_executed_whole(reach_file: Path) -> None:
    model = tiny(QC, dataset=f"npz:{reach_file}", horizon=4)
    calls = []
    act = model.policy.sampler

    class Spy:
        action_space = model.action_space

        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
            actions, after = model.predict(observation, state, episode_start, deterministic)
            calls.append(state is None)
            return actions, after

    dataset, _ = collect(Spy(), "Reach-v0", 2, seed=3)
    assert calls == [True] + [False] * 15  # The state that predict gave came back, across the end of an episode too.
    assert act is model.policy.sampler
    alone, _ = collect(model.policy, "Reach-v0", 2, seed=3)
    assert len(alone) == len(dataset) == 16


def test_models_of_stable_baselines3_collect(places: dict[str, str]) -> None:
    pytest.importorskip("minari")
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    before = torch.random.get_rng_state()
    first, found = collect(model, "Pendulum-v1", 1, out="minari:pendulum/sac-v0", seed=1)
    torch.testing.assert_close(torch.random.get_rng_state(), before)
    second, _ = collect(model, gym.make("Pendulum-v1"), 1, seed=1)
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != collect(model, "Pendulum-v1", 1, seed=2)[0].fingerprint
    greedy, _ = collect(model, "Pendulum-v1", 1, seed=1, deterministic=True)
    assert greedy.fingerprint != first.fingerprint
    assert found.returns[0] == pytest.approx(first.rewards.sum(), rel=1e-4)
    assert (
        make_env("minari:pendulum/sac-v0").observation_space == load_dataset("minari:pendulum/sac-v0").observation_space
    )


@pytest.mark.parametrize("kind", ["npz", "minari"])
def test_nothing_half_written(kind: str, places: dict[str, str], tmp_path: Path) -> None:
    if kind == "minari":
        pytest.importorskip("minari")
    with pytest.raises(RuntimeError, match="broken policy"):
        collect(Breaks(), "Reach-v0", 3, out=places[kind])
    assert files(tmp_path) == []
    first, _ = collect(Counter(), "Reach-v0", 1, out=places[kind], seed=0)
    with pytest.raises(RuntimeError, match="broken policy"):
        collect(Breaks(), "Reach-v0", 3, out=places[kind], overwrite=True)
    assert load_dataset(places[kind]).fingerprint == first.fingerprint


@pytest.mark.parametrize("kind", ["npz", "minari"])
def test_a_taken_place_is_refused_before_the_first_step(kind: str, places: dict[str, str]) -> None:
    if kind == "minari":
        pytest.importorskip("minari")
    collect(Counter(), "Reach-v0", 1, out=places[kind], seed=0)
    policy = Breaks()
    with pytest.raises(FileExistsError, match=r"exists.* \(--overwrite\)"):
        collect(policy, "Reach-v0", 1, out=places[kind])
    assert policy.calls == 0
    replaced, _ = collect(Counter(), "Reach-v0", 2, out=places[kind], seed=1, overwrite=True)
    assert load_dataset(places[kind]).fingerprint == replaced.fingerprint


def test_bad_input(places: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="episodes must be at least 1"):
        collect(Counter(), "Reach-v0", 0)
    with pytest.raises(TypeError, match=r"must have Stable-Baselines3's predict\(\), got object"):
        collect(object(), "Reach-v0", 1)
    with pytest.raises(TypeError, match=r"env must be an environment, or an address .*, got 5"):
        collect(Counter(), 5, 1)
    with pytest.raises(ValueError, match="unknown dataset writer 'parquet'"):
        collect(Counter(), "Reach-v0", 1, out="parquet:x")
    with pytest.raises(TypeError, match="flavour"):
        collect(Counter(), "Reach-v0", 1, out=places["npz"], flavour="x")


def test_an_environment_that_was_passed_stays_open() -> None:
    closed = []

    class Watched(gym.Wrapper[Any, Any, Any, Any]):
        def close(self) -> None:
            closed.append(True)

    collect(Counter(), Watched(gym.make("Reach-v0")), 1)
    assert not closed


def test_the_bar_counts_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    collect(Counter(), "Reach-v0", 3, progress=True)
    assert "collecting: 100%" in (text := capsys.readouterr().err)
    assert "3/3" in text
    collect(Counter(), "Reach-v0", 3)
    assert capsys.readouterr().err == ""


def test_the_dataset_is_what_happened(make_model: Any, tmp_path: Path) -> None:
    policy = make_model().policy
    dataset, found = collect(policy, gym.make("Reach-v0"), 3, seed=1, provenance={"policy": "x"})
    assert (len(dataset), dataset.num_episodes, len(found)) == (24, 3, 3)
    facts = {"name": "collected", "source": "collect", "env": "Reach-v0", "seed": 1, "deterministic": False}
    assert dataset.provenance == {**facts, "policy": "x"}
    inside = dataset.terminals[:-1] == 0
    np.testing.assert_array_equal(dataset.next_observations[:-1][inside], dataset.observations[1:][inside])
    assert (dataset.next_observations[:-1][~inside] != dataset.observations[1:][~inside]).all()
    moved = dataset.observations + np.float32(0.2) * dataset.actions
    np.testing.assert_allclose(dataset.next_observations, moved, rtol=1e-6)
    np.testing.assert_allclose(dataset.rewards.reshape(3, 8).sum(1), found.returns, rtol=1e-5)
    assert dataset.masks.all()  # A time limit is no termination.
    dataset.save(tmp_path / "collected.npz")
    again = TransitionDataset.load(tmp_path / "collected.npz")
    assert again.fingerprint == dataset.fingerprint
    FQL(dataset=again, actor_hidden_dims=(8,), value_hidden_dims=(8,), batch_size=4).learn_offline(1)


def test_the_dataset_is_a_function_of_the_seed(make_model: Any) -> None:
    policy = make_model().policy
    prints = [collect(policy, gym.make("Reach-v0"), 2, seed=seed)[0].fingerprint for seed in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


def test_dict_observations_are_kept_apart() -> None:
    class Dictionary(gym.ObservationWrapper[Any, Any, Any]):
        def __init__(self, env: gym.Env[Any, Any]) -> None:
            super().__init__(env)
            self.observation_space = gym.spaces.Dict({"x": env.observation_space})

        def observation(self, observation: Any) -> Any:
            return {"x": observation}

    model = FQL(env=Dictionary(gym.make("Reach-v0")), actor_hidden_dims=(8,), value_hidden_dims=(8,))
    dataset, _ = collect(model.policy, Dictionary(gym.make("Reach-v0")), 2, seed=0)
    assert isinstance(dataset.observations, dict)
    assert dataset.observations["x"].shape == (16, 1)
