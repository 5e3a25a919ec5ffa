"""What a user of Stable-Baselines3 expects of `load`, attributes, seeds, datasets, callbacks and copies."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from tiny import pendulum_data, tiny
from torch import nn

from flowpolicies import ALGORITHMS, BC, BDPO, FQL, IQL, RQL, OfflineAlgorithm, QFlow, TransitionDataset
from flowpolicies.samplers import BestOfN, OneStep

OBSERVATIONS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def weights(model: OfflineAlgorithm) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().clone() for tensor in model.policy.state_dict().values()])


def act(model: OfflineAlgorithm) -> np.ndarray:
    return model.predict(OBSERVATIONS, deterministic=True)[0]


@pytest.fixture
def saved(data: TransitionDataset, tmp_path: Path) -> Path:
    """A zip of a trained model."""
    model = tiny(FQL, dataset=data, alpha=10.0).learn_offline(3)
    model.save(tmp_path / "model")
    return tmp_path / "model.zip"


def test_load_changes_what_it_is_asked_to(saved: Path, data: TransitionDataset) -> None:
    model = FQL.load(saved, dataset=data, alpha=77.0, gamma=0.5, tau=0.1, batch_size=64, learning_rate=1e-2, n_steps=2)
    assert (model.cfg.alpha, model.alpha, model.gamma, model.tau, model.batch_size) == (77.0, 77.0, 0.5, 0.1, 64)
    assert model.transitions.offline is not None
    assert model.transitions.gamma == 0.5
    assert model.policy.specs["critic"].target_rate == 0.1
    assert model._learner.cfg.alpha == 77.0
    before = FQL.load(saved, dataset=data)
    for loaded in (before, model):
        loaded.learn_offline(2)
    assert not torch.equal(weights(before), weights(model))


def test_custom_objects_may_hold_hyperparameters_and_names_that_the_file_lacks(saved: Path) -> None:
    objects = {"alpha": 5.0, "learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    model = FQL.load(saved, custom_objects=objects)
    assert model.cfg.alpha == 5.0
    assert model.lr_schedule(1.0) == 0.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"horizon": 5}, ValueError, r"horizon cannot be changed in an existing model of FQL.*built with horizon=1"),
        ({"actor_hidden_dims": (8,)}, ValueError, r"actor_hidden_dims cannot be changed .* Build a new model: FQL\("),
        ({"ensemble": 5}, ValueError, "ensemble cannot be changed"),
        ({"encoder": "impala"}, ValueError, "encoder cannot be changed"),
        ({"alphq": 5}, TypeError, r"FQL.load\(\) got the keyword 'alphq', .* Did you mean 'alpha'\?"),
        ({"alpha": "much"}, TypeError, "alpha must be a number"),
        ({"flow_steps": 0}, ValueError, "flow_steps must be at least 1"),
        ({"gamma": 2.0}, ValueError, r"gamma must lie in \[0, 1\]"),
    ],
    ids=str,
)
def test_load_refuses_by_name_what_cannot_be_changed(
    saved: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FQL.load(saved, **change)


def test_the_same_value_of_a_fixed_hyperparameter_is_no_change(saved: Path) -> None:
    assert FQL.load(saved, horizon=1, actor_hidden_dims=(16, 16)).cfg.horizon == 1


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_hyperparameter_is_changed_or_refused_by_name(name: str, data: TransitionDataset) -> None:
    """None is ignored: after an assignment the config has the value, and the learner uses it at the next update."""
    cls = ALGORITHMS[name]
    model, refusals = tiny(cls, dataset=data), dict[str, str]()
    for field in (spec.name for spec in dataclasses.fields(cls.Config)):
        now = getattr(model, field)
        other = now + 1 if type(now) is int else 0.5 * now + 0.01 if type(now) is float else None
        if other is None:
            continue
        try:
            setattr(model, field, other)
        except ValueError as error:
            refusals[field] = str(error)
        else:
            assert getattr(model.cfg, field) == other
            setattr(model, field, now)
    assert all(field in message for field, message in refusals.items())
    assert model.learn_offline(1)._learner.cfg == model.cfg


def test_assigned_hyperparameters_take_effect_at_the_next_update(data: TransitionDataset) -> None:
    changes = ({"gamma": 0.0}, {"tau": 0.0}, {"alpha": 1000.0}, {"batch_size": 4}, {"learning_rate": 1e-3})
    plain = weights(tiny(FQL, dataset=data).learn_offline(3))
    for change in changes:
        model = tiny(FQL, dataset=data)
        for name, value in change.items():
            setattr(model, name, value)
        if "learning_rate" in change:
            model._setup_lr_schedule()  # As with any Stable-Baselines3 algorithm.
        assert not torch.equal(plain, weights(model.learn_offline(3))), change
    slow = tiny(FQL, dataset=data)
    targets = {key: tensor.clone() for key, tensor in slow.policy.targets.state_dict().items()}
    slow.tau = 0.0
    slow.learn_offline(3)
    assert all(torch.equal(tensor, targets[key]) for key, tensor in slow.policy.targets.state_dict().items())


def test_a_changed_hyperparameter_equals_one_given_at_the_beginning(data: TransitionDataset) -> None:
    changed, built = tiny(FQL, dataset=data), tiny(FQL, dataset=data, alpha=3.0, gamma=0.9, tau=0.1)
    changed.alpha, changed.gamma, changed.tau = 3.0, 0.9, 0.1
    torch.testing.assert_close(weights(changed.learn_offline(4)), weights(built.learn_offline(4)), atol=0, rtol=0)


def test_an_exchanged_sampler_survives_a_change_of_hyperparameters(data: TransitionDataset) -> None:
    model = tiny(FQL, dataset=data)
    model.policy.sampler = BestOfN(OneStep("actor_onestep"), n=7)
    model.alpha = 3.0
    model.learn_offline(1)
    assert model.policy.sampler.n == 7
    model = tiny(QFlow, dataset=data)
    model.flow_steps = 7
    model.learn_offline(1)
    assert model.policy.sampler.steps == 7


def test_seeds_change_what_comes(saved: Path, data: TransitionDataset) -> None:
    trained, explored, acted = [], [], []
    for seed in (1, 2, 1):
        model = FQL.load(saved, env=gym.make("Pendulum-v1"), dataset=data, seed=seed)
        acted.append(model.predict(OBSERVATIONS)[0])
        trained.append(weights(model.learn_offline(2)))
        explored.append(model.learn(20).transitions.online.columns["actions"][:20].clone())
    for first, second, again in (trained, explored, [torch.tensor(a) for a in acted]):
        assert torch.equal(first, again)
        assert not torch.equal(first, second)


def test_set_random_seed_starts_every_generator_again(data: TransitionDataset) -> None:
    model = tiny(FQL, dataset=data, seed=0)
    found = []
    for seed in (5, 6, 5):
        model.set_random_seed(seed)
        found.append((model.predict(OBSERVATIONS)[0], model.transitions.sample(8).rewards.numpy()))
    for first, second, again in zip(*found, strict=True):
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, second)


def test_a_loaded_model_without_a_seed_continues_exactly(saved: Path, data: TransitionDataset) -> None:
    runs = [weights(FQL.load(saved, dataset=data).learn_offline(3)) for _ in range(2)]
    assert torch.equal(*runs)


def test_bounds_that_data_do_not_have_are_those_of_the_environment(tmp_path: Path) -> None:
    env, full = gym.make("Pendulum-v1"), pendulum_data()
    arrays = {key: getattr(full, key) for key in ("observations", "actions", "rewards", "next_observations")}
    flags = {"masks": full.masks, "terminals": full.terminals}
    data = TransitionDataset.from_arrays(**arrays, **flags, action_space=env.action_space)
    assert not data.observation_space.is_bounded()
    model = tiny(FQL, dataset=data).learn_offline(1)
    model.save(tmp_path / "model")
    loaded = FQL.load(tmp_path / "model", env=env)
    model.set_env(env)
    for each in (model, loaded):
        assert each.observation_space == env.observation_space == each.policy.observation_space
        assert each.learn(20).num_timesteps == 20
    with pytest.raises(ValueError, match=r"Action spaces do not match.*RescaleAction"):
        model.set_env(gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), -1.0, 1.0))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        FQL.load(tmp_path / "model", env=gym.make("MountainCarContinuous-v0"))


def test_get_env_is_none_without_an_environment(saved: Path, data: TransitionDataset) -> None:
    model = FQL.load(saved)
    assert model.get_env() is None
    seen: list[Any] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(self.training_env.observation_space)
            return True

    model.learn_offline(1, dataset=data, callback=Look())
    assert seen == [data.observation_space]
    assert model.get_env() is None


def test_evaluation_in_a_callback_does_not_disturb_collection() -> None:
    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 30:
                self.results = self.model.evaluate(episodes=1)
            return True

    runs = []
    for callback in (None, Evaluate()):
        model = tiny(FQL, env=make_vec_env("Pendulum-v1", n_envs=2, seed=0), learning_starts=10)
        runs.append(weights(model.learn(60, callback=callback)))
    assert torch.equal(*runs)
    assert len(callback.results.returns) == 1


def test_evaluation_in_a_callback_asks_for_an_environment_that_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, memo: Any) -> None:
        raise TypeError("cannot pickle a socket")

    env = make_vec_env("Pendulum-v1")
    monkeypatch.setattr(type(env), "__deepcopy__", refuse, raising=False)
    model = tiny(FQL, env=env)
    with pytest.raises(ValueError, match=r"copied \(TypeError: cannot pickle a socket\), .* Pass another one"):
        model.learn(20, callback=lambda locals_, globals_: bool(model.evaluate(episodes=1)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"net_arch": [8, 4]}, {"actor_hidden_dims": (8, 4), "value_hidden_dims": (8, 4)}),
        ({"net_arch": {"pi": [8], "qf": [4, 4]}}, {"actor_hidden_dims": (8,), "value_hidden_dims": (4, 4)}),
        ({"n_critics": 3}, {"ensemble": 3}),
        ({"features_extractor_class": FlattenExtractor}, {}),
    ],
    ids=str,
)
def test_policy_kwargs_with_a_counterpart_are_translated(given: dict[str, Any], expected: dict[str, Any]) -> None:
    model = FQL("MlpPolicy", "Pendulum-v1", policy_kwargs=given, device="cpu")
    assert {name: getattr(model.cfg, name) for name in expected} == expected
    assert model.policy_kwargs == given


def test_an_activation_function_reaches_the_networks_and_survives_saving(tmp_path: Path, data) -> None:
    model = tiny(FQL, dataset=data, policy_kwargs={"activation_fn": nn.ReLU})
    assert not np.array_equal(act(model), act(tiny(FQL, dataset=data)))
    assert model.policy.specs["critic"].factory.keywords["activation"] == "relu"
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(act(FQL.load(tmp_path / "model")), act(model))
    model.policy.save(tmp_path / "policy.safetensors")
    model.alpha = 3.0
    assert model.learn_offline(1).policy.specs["critic"].factory.keywords["activation"] == "relu"


class SmallExtractor(BaseFeaturesExtractor):
    """Features of an image: means over its channels, through a layer."""

    def __init__(self, observation_space: gym.Space[Any], features_dim: int = 5) -> None:
        super().__init__(observation_space, features_dim)
        self.layer = nn.Linear(observation_space.shape[0], features_dim)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        assert observations.max() <= 1
        return self.layer(observations.mean((-2, -1)))


def test_a_feature_extractor_of_stable_baselines3_encodes_images(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 16
    frames, ends = rng.integers(0, 256, (n + 1, 3, 8, 8), np.uint8), np.arange(n) % 8 == 7
    images = TransitionDataset.from_arrays(
        frames[:-1], rng.uniform(-1, 1, (n, 2)), rng.normal(size=n), frames[1:], terminations=ends
    )
    kwargs = {"features_extractor_class": SmallExtractor, "features_extractor_kwargs": {"features_dim": 7}}
    model = tiny(FQL, dataset=images, policy_kwargs=kwargs, batch_size=4).learn_offline(1)
    assert model.policy.networks["critic"].encoder.out_dim == 7
    model.save(tmp_path / "model")
    loaded = FQL.load(tmp_path / "model")
    both = [each.predict(frames[:3], deterministic=True)[0] for each in (model, loaded)]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer_class": torch.optim.SGD}, "'optimizer_class', which FQL does not take: .* set learning_rate"),
        ({"use_sde": True}, "'use_sde', which FQL does not take: .* pass action_noise"),
        ({"alpha": 3.0}, r"'alpha', which FQL does not take.* Pass it to FQL itself: FQL\(alpha=\.\.\.\)"),
        ({"net_arhc": [64]}, "'net_arhc', which FQL does not take.*actor_hidden_dims, value_hidden_dims"),
        ({"activation_fn": nn.Tanh}, "activation_fn must be one of torch.nn.GELU, .*, got Tanh"),
        ({"net_arch": {"actor": [8]}}, r"net_arch has the keys \['actor'\]; it may have 'pi' \(actors\)"),
        ({"features_extractor_kwargs": {"features_dim": 3}}, "features_extractor_kwargs without features_extractor"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_policy_kwargs_without_a_counterpart_say_what_to_do(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        FQL("MlpPolicy", "Pendulum-v1", policy_kwargs=given, device="cpu")


def test_learning_rate_and_polyak_rate_may_be_zero(data: TransitionDataset) -> None:
    model = tiny(FQL, dataset=data, learning_rate=0.0, tau=0.0)
    before = weights(model)
    assert torch.equal(weights(model.learn_offline(2)), before)


def test_a_frequency_that_is_a_text_is_refused_as_by_stable_baselines3() -> None:
    with pytest.raises((ValueError, TypeError), match=r"train_freq|train frequency"):
        tiny(FQL, env="Pendulum-v1", train_freq="4")


def test_train_without_arguments_is_one_update(data: TransitionDataset) -> None:
    model = tiny(FQL, dataset=data)
    model.train()
    assert model._n_updates == 1


def test_losses_are_in_the_logger_while_callbacks_run(data: TransitionDataset) -> None:
    seen: list[float] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            if self.model._n_updates:
                seen.append(float(self.logger.name_to_value["train/critic/loss"]))
            return True

    tiny(FQL, dataset=data).learn_offline(3, callback=Look(), log_interval=100)
    tiny(FQL, env="Pendulum-v1", learning_starts=5).learn(20, callback=Look())
    assert len(seen) > 10
    assert all(np.isfinite(seen))


def test_the_log_has_the_name_of_the_class_unless_another_is_given(tmp_path: Path) -> None:
    model = tiny(FQL, env="Pendulum-v1", tensorboard_log=str(tmp_path))
    model.learn(5)
    model.learn(5, tb_log_name="mine", reset_num_timesteps=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FQL_1", "mine_0"]


def test_a_subclass_in_user_code_needs_no_declaration_of_its_own(data: TransitionDataset, tmp_path: Path) -> None:
    class MyFQL(FQL):  # type: ignore[misc]
        """FQL that counts its updates."""

        def train(self, gradient_steps: int = 1, batch_size: int | None = None) -> None:
            super().train(gradient_steps, batch_size)
            self.calls = getattr(self, "calls", 0) + 1

    try:
        model = tiny(MyFQL, dataset=data).learn_offline(2)
        assert model.calls == 2
        model.save(tmp_path / "model")
        assert MyFQL.load(tmp_path / "model").calls == 2
    finally:
        ALGORITHMS.pop("myfql")


def test_files_may_be_file_objects(data: TransitionDataset) -> None:
    model, file = tiny(FQL, dataset=data).learn_offline(1), io.BytesIO()
    model.save(file)
    file.seek(0)
    assert torch.equal(weights(FQL.load(file)), weights(model))


def test_a_schedule_continues_over_calls_as_in_stable_baselines3(data: TransitionDataset) -> None:
    class Rates(BaseCallback):
        def _init_callback(self) -> None:
            self.rates: list[float] = getattr(self, "rates", [])

        def _on_step(self) -> bool:
            self.rates.append(round(self.model.optimizer.param_groups[0]["lr"], 6))
            return True

    def run(*calls: tuple[int, bool]) -> list[float]:
        model, callback = tiny(BC, dataset=data, learning_rate=lambda progress: progress), Rates()
        for steps, reset in calls:
            model.learn_offline(steps, callback=callback, reset_num_timesteps=reset)
        return callback.rates

    assert run((4, True)) == [1.0, 0.75, 0.5, 0.25]
    assert run((2, True), (2, True)) == [1.0, 0.5, 1.0, 0.5]
    assert run((2, True), (2, False)) == [1.0, 0.5, 0.5, 0.25]


def test_callbacks_that_count_episodes_are_refused_offline(data: TransitionDataset) -> None:
    model = tiny(BC, dataset=data)
    for callback in (StopTrainingOnMaxEpisodes(1), CallbackList([CallbackList([StopTrainingOnMaxEpisodes(1)])])):
        with pytest.raises(ValueError, match=r"learn_offline has none\. Limit gradient_steps instead"):
            model.learn_offline(3, callback=callback)
    assert (model.offline_steps, model.num_timesteps, model.is_offline) == (0, 0, False)
    assert model.learn_offline(1).offline_steps == 1


def test_a_model_remembers_its_dataset(tmp_path: Path, data: TransitionDataset) -> None:
    address = f"npz:{data.save(tmp_path / 'data.npz')}"
    model = tiny(FQL, env="Pendulum-v1", dataset=address).learn_offline(1)
    model.save(tmp_path / "model")
    assert model.dataset_record == {
        "name": data.name,
        "address": address,
        "fingerprint": data.fingerprint,
        "rows": len(data),
    }
    loaded = FQL.load(tmp_path / "model", env="Pendulum-v1")
    with pytest.warns(UserWarning, match=r"trained on the dataset .* not attached, so updates now see online"):
        loaded.learn(5)
    again = FQL.load(tmp_path / "model", env="Pendulum-v1", dataset="auto")
    assert len(data) == again.transitions.size()
    other = pendulum_data(seed=1)
    with pytest.warns(UserWarning, match="continues on another one"):
        again.set_dataset(other)


def test_auto_says_what_is_missing(tmp_path: Path, data: TransitionDataset) -> None:
    tiny(FQL, dataset=data).learn_offline(1).save(tmp_path / "arrays")
    with pytest.raises(ValueError, match=r"was trained on .*given as arrays and not by an address. Pass the dataset"):
        FQL.load(tmp_path / "arrays", dataset="auto")
    tiny(FQL, env="Pendulum-v1").save(tmp_path / "online")
    with pytest.raises(ValueError, match="was not trained on a dataset"):
        FQL.load(tmp_path / "online", dataset="auto")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("cls", [FQL, RQL, IQL, BDPO])
def test_a_copy_is_complete_and_shares_nothing(cls: type[OfflineAlgorithm], copied: Any, data) -> None:
    model = tiny(cls, env="Pendulum-v1", dataset=data, learning_starts=5).learn_offline(2)
    model.learn(10)
    twin = copied(model)
    twin.set_dataset(data)  # A pickle does not carry it.
    np.testing.assert_array_equal(act(twin), act(model))
    before, state = weights(model), model.policy.generator.get_state()
    twin.learn_offline(3)
    twin.predict(OBSERVATIONS)
    assert torch.equal(weights(model), before)
    assert torch.equal(model.policy.generator.get_state(), state)
    model.learn_offline(3)
    model.predict(OBSERVATIONS)
    assert torch.equal(weights(model), weights(twin)), "the copy continues as its original"
    assert twin.transitions.online.size == model.transitions.online.size
    assert twin.get_env() is not model.get_env()
    twin.set_env(gym.make("Pendulum-v1"))
    assert twin.learn(10, reset_num_timesteps=False).num_timesteps == 20


def test_a_saved_replay_buffer_is_taken_over_beside_the_dataset(tmp_path: Path, data: TransitionDataset) -> None:
    model = tiny(FQL, env="Pendulum-v1", dataset=data, learning_starts=5, gamma=0.9)
    model.learn(30)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    resumed = tiny(FQL, env="Pendulum-v1", dataset=data, gamma=0.5)
    resumed.load_replay_buffer(tmp_path / "buffer.pkl")
    assert resumed.transitions.size() == len(data) + 30
    assert resumed.transitions.gamma == 0.5
    assert resumed.learn_offline(1).learn(5).transitions.size() == len(data) + 35
