"""What every registered algorithm promises."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from often import one_of_each_file
from stable_baselines3.common.env_util import make_vec_env
from tiny import known, tiny

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm
from flowpolicies.core import GLOSSARY
from flowpolicies.data import TransitionDataset
from flowpolicies.policies import FlowPolicy

ROOT = Path(__file__).parents[2]


def weights(model: OfflineAlgorithm) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in model.policy.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=atol, rtol=0) for k in a)


def test_constructs_from_a_dataset_from_an_env_and_from_its_config(algorithm, horizon, data) -> None:
    for model in (tiny(algorithm, dataset=data, horizon=horizon), tiny(algorithm, env="Pendulum-v1", horizon=horizon)):
        assert model.observation_space.shape == (3,)
        assert model.action_space.shape == (1,)
        assert model.policy.horizon == horizon
    config = algorithm.Config(horizon=horizon, actor_hidden_dims=(8,))
    assert algorithm.from_config(config, "Pendulum-v1", seed=1).cfg == config


def test_learns_offline_without_an_environment_and_moves_every_network(algorithm, horizon, data) -> None:
    model = tiny(algorithm, dataset=data, horizon=horizon)
    before = weights(model)
    assert model.learn_offline(3) is model
    after = weights(model)
    for name in model.policy.networks:
        moved = [k for k in before if k.startswith(f"networks.{name}.") and not torch.equal(before[k], after[k])]
        assert moved, f"{name} was not trained"
    assert model._n_updates == model.offline_steps == 3
    assert model.num_timesteps == 0
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


TRACED = [pytest.param(ALGORITHMS[name], "eager", id=f"{name}-eager") for name in one_of_each_file()]
COMPILED = [
    pytest.param(cls, "aot_eager", id=f"{name}-aot_eager", marks=pytest.mark.more) for name, cls in ALGORITHMS.items()
]


@pytest.mark.parametrize(("algorithm", "backend"), TRACED + COMPILED)
def test_one_update_eager_equals_compiled(algorithm, backend, data) -> None:
    """With chunks, which is the general case, and as few loops as there can be: tracing is what takes the time.

    The losses of every file are traced in `make test`; in `make more` their gradients are compiled too, of every
    algorithm.
    """
    sizes = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "flow_steps": 2, "diffusion_steps": 2}
    options = {"dataset": data, "horizon": 3, **known(algorithm, sizes)}
    models = [tiny(algorithm, compile=choice, **options) for choice in (False, backend)]
    for model in models:
        torch._dynamo.reset()
        model.learn_offline(1)
    assert same(weights(models[0]), weights(models[1]), atol=1e-5)


def test_same_seed_same_run_and_other_seed_another(algorithm, data) -> None:
    runs = []
    for seed, numpy_seed in ((0, 1), (0, 2), (3, 1)):
        model = tiny(algorithm, dataset=data, seed=seed)
        np.random.seed(numpy_seed)
        torch.manual_seed(numpy_seed)
        model.learn_offline(3)
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_saved_and_loaded_model_is_equal_and_continues_exactly(algorithm, horizon, data, tmp_path) -> None:
    model = tiny(algorithm, dataset=data, horizon=horizon)
    model.learn_offline(3)
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", device="cpu")
    assert same(weights(model), weights(loaded))
    assert loaded.cfg == model.cfg
    assert loaded.offline_steps == 3
    with pytest.raises(ValueError, match="has no dataset"):
        loaded.learn_offline(1)
    obs = np.zeros((4, 3), np.float32)
    np.testing.assert_array_equal(model.predict(obs)[0], loaded.predict(obs)[0])
    model.learn_offline(4)
    loaded.learn_offline(4, dataset=data)
    assert same(weights(model), weights(loaded))
    moments = [[s["exp_avg"] for s in m.optimizer.state.values()] for m in (model, loaded)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


def test_policy_alone_acts_like_the_model(algorithm, horizon, data, tmp_path) -> None:
    model = tiny(algorithm, dataset=data, horizon=horizon)
    model.learn_offline(1)
    model.policy.save(tmp_path / "policy.safetensors")
    policy = FlowPolicy.load(tmp_path / "policy.safetensors", device="cpu")
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_predict_shapes_dtype_bounds(algorithm, horizon, data) -> None:
    model = tiny(algorithm, dataset=data, horizon=horizon)
    for obs, shape in ((np.zeros(3, np.float32), (1,)), (np.zeros((6, 3), np.float32), (6, 1))):
        for deterministic in (False, True):
            action, state = model.predict(obs, deterministic=deterministic)
            assert action.shape == shape
            assert action.dtype == np.float32
            assert np.abs(action).max() <= 2
            assert (state is None) == (horizon == 1)


def test_learns_online_from_scratch_and_after_offline(algorithm, horizon, data) -> None:
    env = make_vec_env("Pendulum-v1", n_envs=2, seed=0)
    scratch = tiny(algorithm, env=env, horizon=horizon, learning_starts=20).learn(26)
    assert scratch.num_timesteps == 26
    assert scratch._n_updates > 0
    model = tiny(algorithm, dataset=data, horizon=horizon, learning_starts=10)
    model.learn_offline(2)
    model.set_env(make_vec_env("Pendulum-v1", n_envs=2, seed=0))
    model.learn(16)
    assert model.replay_buffer.size() == len(data) + 16
    assert model._n_updates > 2
    assert model.offline_steps == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(model).values())


def test_gradient_of_each_term_stays_with_what_it_trains(algorithm, data) -> None:
    model = tiny(algorithm, dataset=data)
    batch = model.replay_buffer.sample(32)
    for term in model.losses:
        generator = torch.Generator().manual_seed(0)
        draws = [d.sample(generator) for d in model._learner._record(model._state, batch, (term.name,))]
        grads, metrics = model._learner.gradients(model._state, batch, draws, (term.name,))
        assert set(grads) == set(term.trains)
        assert any(g.abs().max() > 0 for tree in grads.values() for g in tree.values())
        assert all(key.startswith(f"{term.name}/") for key in metrics if not key.startswith("grad/"))


def test_names_come_from_the_glossary(algorithm) -> None:
    assert set(algorithm.Config().networks(0.005)) <= set(GLOSSARY)
    trained = {name for term in algorithm.losses for name in term.trains}
    assert trained == set(algorithm.Config().networks(0.005))


def documented(cls: type) -> set[str]:
    """Fields of a dataclass and of its bases that are followed by a docstring."""
    found = set()
    for owner in cls.__mro__[:-1]:
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body
        for field, after in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found.add(field.target.id)
    return found


def test_config_is_frozen_documented_and_defaulted(algorithm) -> None:
    fields = dataclasses.fields(algorithm.Config)
    assert {field.name for field in fields} - documented(algorithm.Config) == set()
    assert all(field.default is not dataclasses.MISSING for field in fields)
    with pytest.raises(dataclasses.FrozenInstanceError):
        algorithm.Config().horizon = 3


def test_doc_page_explains_every_metric(algorithm, data) -> None:
    page = ROOT / "docs" / "algorithms" / f"{algorithm.name}.md"
    assert page.is_file(), f"{page} is missing"
    model = tiny(algorithm, dataset=data)
    model.learn_offline(0)
    model.train(1, 32)
    text = page.read_text()
    missing = [key for key in model._means.pop() if f"`{key}`" not in text]
    assert missing == []


def test_registry_and_doc_pages_agree() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "algorithms").glob("*.md")} - {"index"}
    assert pages == set(ALGORITHMS)


def test_algorithm_files_stay_short() -> None:
    """Examples in docstrings are not counted."""
    for name, cls in ALGORITHMS.items():
        source = inspect.getsource(inspect.getmodule(cls))
        lines = len(re.sub(r'\n\n    Examples:\n.*?\n    """', '"""', source, flags=re.DOTALL).splitlines())
        assert lines <= 150, f"{name}: {lines} lines"


def test_an_unknown_hyperparameter_gets_the_nearest_one(algorithm, data) -> None:
    with pytest.raises(
        TypeError, match=r"has no hyperparameter 'actor_hiden_dims'; it has .*Did you mean 'actor_hidden_dims'\?"
    ):
        tiny(algorithm, dataset=data, actor_hiden_dims=(8,))


def test_a_half_declared_algorithm_is_refused() -> None:
    with pytest.raises(TypeError, match="Half must declare Config, losses"):
        type("Half", (OfflineAlgorithm,), {})
    with pytest.raises(TypeError, match=r"Half\.Config must extend PolicyConfig .* int does not"):
        type("Half", (OfflineAlgorithm,), {"Config": int, "losses": ()})
    assert "half" not in ALGORITHMS


def test_spaces_of_env_and_dataset_must_match(algorithm, data) -> None:
    with pytest.raises(ValueError, match="observation_space does not match the model's"):
        tiny(algorithm, env="MountainCarContinuous-v0", dataset=data)
    other = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), -1.0, 1.0)
    with pytest.raises(ValueError, match="action_space does not match the model's"):
        tiny(algorithm, env=other, dataset=data)


def test_an_episode_shorter_than_a_chunk(algorithm, data) -> None:
    with pytest.raises(ValueError, match=r"horizon=60 is longer than the shortest of 8 episodes \(50 steps; 8 epis"):
        tiny(algorithm, dataset=data, horizon=60)


def test_chunked_policy_in_an_environment_with_other_actions(algorithm, data) -> None:
    model = tiny(algorithm, dataset=data, horizon=2)
    with pytest.raises(ValueError, match=r"for actions in Box\(.*\(1,\).* environment are in Box\(.*\(17,\)"):
        model.evaluate(OtherActions(), episodes=1)


class OtherActions(gym.Env):
    """Pendulum's observations, other actions."""

    observation_space, action_space = gym.spaces.Box(-8, 8, (3,)), gym.spaces.Box(-1, 1, (17,))


def test_no_env_and_no_dataset(algorithm) -> None:
    with pytest.raises(ValueError, match="needs an environment or a dataset"):
        tiny(algorithm)


def test_discrete_and_unbounded_actions(algorithm) -> None:
    with pytest.raises(ValueError, match="acts in continuous spaces"):
        tiny(algorithm, env="CartPole-v1")

    class Unbounded(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Box(-np.inf, np.inf, (2,))

    with pytest.raises(ValueError, match="finite bounds"):
        tiny(algorithm, env=Unbounded())


def test_no_environment_to_learn_or_evaluate_in(algorithm, data: TransitionDataset) -> None:
    model = tiny(algorithm, dataset=data)
    with pytest.raises(ValueError, match=r"no environment to collect from. Call set_env"):
        model.learn(10)
    with pytest.raises(ValueError, match=r"no environment to evaluate in. Call set_env\(env\) first, or pass env="):
        model.evaluate()
