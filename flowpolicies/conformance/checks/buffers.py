"""Replay buffers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from flowpolicies.conformance.case import (
    STEPS,
    Case,
    NotApplicable,
    need_argument,
    raises,
    same_weights,
    stored,
    uses,
    without,
)
from flowpolicies.conformance.promises import over
from flowpolicies.conformance.toys import ToyEnv


def _buffer(model: Any) -> ReplayBuffer:
    assert isinstance(model.replay_buffer, ReplayBuffer), f"the buffer is a {type(model.replay_buffer).__name__}"
    return model.replay_buffer


def _add(buffer: ReplayBuffer, value: float = 0.5, **changes: Any) -> None:
    """Adds one transition in which every number is the value."""
    row = np.full((1, 3), value, np.float32)
    arguments = {"obs": row, "next_obs": row, "action": row[:, :2], "reward": row[:, 0], "done": np.zeros(1)}
    buffer.add(**{**arguments, "infos": [{}], **changes})


def the_buffer_has_its_attributes(case: Case) -> None:
    """The replay buffer is a ReplayBuffer with the public attributes of Stable-Baselines3's."""
    buffer = _buffer(case.trained())
    names = "observations actions rewards dones pos full buffer_size n_envs obs_shape action_dim device"
    names += " observation_space action_space"
    missing = without(names.split(), [name for name in names.split() if hasattr(buffer, name)])
    assert not missing, f"missing: {missing}"
    assert (buffer.size(), buffer.pos, buffer.full) == (STEPS, STEPS, False), f"{buffer.size()}, {buffer.pos}"
    assert (buffer.buffer_size, buffer.n_envs, buffer.action_dim) == (200, 1, 2), "sizes differ from the arguments"


def the_buffer_holds_what_was_collected(case: Case) -> None:
    """The buffer's arrays hold the observations, rewards and ends of the episodes in their order, as [row, environment,
    ...]."""
    model = case.model(case.env(length=4)).learn(12)
    twin, seed = ToyEnv(length=4), model.seed
    rows = stored(model, "observations")
    assert rows.shape == (12, 1, 3), f"the observations have the shape {rows.shape}"
    np.testing.assert_allclose(rows[0, 0], twin.reset(seed=seed)[0], err_msg="the first observation differs")
    for i in range(4):
        action = model.policy.unscale_action(stored(model, "actions")[i, 0])
        observation, reward, *_ = twin.step(action)
        assert abs(reward - stored(model, "rewards")[i, 0]) < 1e-5, f"the reward of step {i} differs"
        if i < 3:
            np.testing.assert_allclose(rows[i + 1, 0], observation, atol=1e-5)
    assert stored(model, "dones")[:, 0].astype(bool).tolist() == [False, False, False, True] * 3, "the ends differ"


def samples_have_their_fields(case: Case) -> None:
    """`sample(n)` gives n rows of tensors: observations, actions, next_observations, dones and rewards."""
    batch: Any = _buffer(case.trained()).sample(6)
    for name, width in {"observations": 3, "actions": 2, "next_observations": 3, "dones": 1, "rewards": 1}.items():
        value = getattr(batch, name)
        assert isinstance(value, torch.Tensor), f"{name} is a {type(value).__name__}"
        assert value.shape == (6, width), f"{name} has the shape {tuple(value.shape)}, expected (6, {width})"


@over(truncated=False, terminated=True)
def ends_are_told_apart(case: Case, terminates: bool) -> None:
    """`dones` of a sample is 1 after a termination and 0 after a time limit, and the next observation of an end is the
    last one of the episode."""
    model = case.model(case.env(length=1, terminates=terminates), learning_starts=100).learn(STEPS)
    batch: Any = _buffer(model).sample(20)
    assert set(batch.dones.flatten().tolist()) == {float(terminates)}, f"dones are {batch.dones.flatten().tolist()}"
    assert not torch.equal(batch.observations, batch.next_observations), "the next observation is the same one"
    starts = {tuple(row) for row in batch.observations.tolist()}
    inside = [tuple(row) in starts for row in batch.next_observations.tolist()]
    assert not any(inside), "the next observation of an end is the first one of another episode"


def normalised_samples_leave_the_buffer_raw(case: Case) -> None:
    """With VecNormalize, the buffer stores raw observations and rewards; batches for training are normalised."""
    env = VecNormalize(case.vec(1))
    model = case.model(env, learning_starts=100).learn(30)
    rows = stored(model, "observations")
    assert np.abs(rows).max() <= 1.0001, "the stored observations are not the environment's, which lie in [-1, 1]"
    assert stored(model, "rewards").min() >= -3.0001, "the stored rewards are not the environment's"
    buffer: Any = _buffer(model)
    batch = buffer.sample(50, env=env)
    expected = env.normalize_obs(rows[:, 0])
    nearest = np.abs(batch.observations[0].cpu().numpy() - expected).max(-1).min()
    assert nearest < 1e-4, "a sampled observation is not the normalised form of any stored one"


def the_buffer_size_is_a_limit(case: Case) -> None:
    """A full buffer overwrites its oldest rows."""
    model = case.model(buffer_size=10, learning_starts=100).learn(25)
    buffer = _buffer(model)
    assert (buffer.size(), buffer.full, buffer.pos) == (10, True, 5), f"{buffer.size()}, {buffer.full}, {buffer.pos}"
    model.learn(STEPS, reset_num_timesteps=False)


def the_buffer_size_is_shared(case: Case) -> None:
    """With several environments, `buffer_size` counts the rows of all of them."""
    buffer = _buffer(case.model(case.vec(2), buffer_size=10, learning_starts=100).learn(20))
    assert buffer.size() * buffer.n_envs == 10, f"{buffer.size()} rows of {buffer.n_envs} environments"


def the_buffer_can_be_reset(case: Case) -> None:
    """`reset()` empties the buffer."""
    model = case.trained()
    buffer = _buffer(model)
    buffer.reset()
    assert (buffer.size(), buffer.pos, buffer.full) == (0, 0, False), f"{buffer.size()} rows are left"
    model.learn(STEPS)
    assert buffer.size() == STEPS, f"{buffer.size()} rows after {STEPS} steps"


def rows_can_be_added(case: Case) -> None:
    """`add(obs, next_obs, action, reward, done, infos)` appends one row per environment."""
    buffer = _buffer(case.model())
    _add(buffer, 0.25)
    _add(buffer, 0.5)
    assert buffer.size() == 2, f"{buffer.size()} rows"
    found = np.asarray(buffer.observations)[:2, 0, 0].tolist()
    assert found == [0.25, 0.5], f"the observations are {found}"


def rows_can_be_extended(case: Case) -> None:
    """`extend` adds several rows at once."""
    buffer, count = _buffer(case.model()), 4
    rows, zeros = np.full((count, 1, 3), 0.5, np.float32), np.zeros((count, 1))
    buffer.extend(rows, rows, rows[..., :2], zeros, zeros, [[{}]] * count)
    assert buffer.size() == count, f"{buffer.size()} rows"


@over(
    observation={"obs": np.zeros((1, 4), np.float32)},
    next_observation={"next_obs": np.zeros((1, 4), np.float32)},
    action={"action": np.zeros((1, 5), np.float32)},
)
def rows_of_another_shape_are_refused(case: Case, changes: dict[str, Any]) -> None:
    """`add` raises an error for arrays of another shape."""
    buffer = _buffer(case.model())
    raises((ValueError, AssertionError, IndexError), lambda: _add(buffer, **changes))


def added_rows_are_copied(case: Case) -> None:
    """`add` copies the arrays, so that the caller may use them again."""
    buffer, row = _buffer(case.model()), np.full((1, 3), 0.25, np.float32)
    _add(buffer, obs=row)
    row[:] = 9
    assert float(np.asarray(buffer.observations)[0, 0, 0]) == 0.25, "the stored row changed with the caller's array"


@over(string="string", path="path", file_object="file")
def the_buffer_is_saved(case: Case, how: str) -> None:
    """`save_replay_buffer` and `load_replay_buffer` take a string, a Path or an open file, and keep all rows."""
    model, other = case.trained(), case.model()
    target: Any = case.folder / "buffer.pkl"
    target = {"string": str(target), "path": target, "file": io.BytesIO()}[how]
    model.save_replay_buffer(target)
    if how == "file":
        target.seek(0)
    other.load_replay_buffer(target)
    assert _buffer(other).size() == STEPS, f"{_buffer(other).size()} rows"
    np.testing.assert_array_equal(stored(model, "observations"), stored(other, "observations"))
    np.testing.assert_array_equal(stored(model, "rewards"), stored(other, "rewards"))


def training_continues_on_a_loaded_buffer(case: Case) -> None:
    """A loaded model with a loaded buffer collects behind the saved rows and learns from all of them."""
    model = case.trained()
    model.save(case.folder / "model")
    model.save_replay_buffer(case.folder / "buffer")
    loaded = case.load(case.folder / "model", case.env())
    loaded.load_replay_buffer(case.folder / "buffer")
    loaded.learn(5, reset_num_timesteps=False)
    assert _buffer(loaded).size() == STEPS + 5, f"{_buffer(loaded).size()} rows"


def a_loaded_buffer_keeps_the_models_hyperparameters(case: Case) -> None:
    """A buffer saved by a model with another gamma does not bring that gamma along."""
    other = case.trained(gamma=0.1, learning_starts=100)
    other.save_replay_buffer(case.folder / "buffer")
    found = []
    for _ in range(2):
        model = case.model(learning_starts=100).learn(1)
        model.load_replay_buffer(case.folder / "buffer")
        found.append(model)
        if len(found) == 1:
            continue
        own = case.model(gamma=0.1, learning_starts=100).learn(1)
        own.load_replay_buffer(case.folder / "buffer")
        found.append(own)
    for model in found:
        model.set_random_seed(1)
        model.train(gradient_steps=2, batch_size=8)
    plain, again, other_gamma = found
    assert same_weights(plain, again), "the same model learned differently"
    if not uses(case, "gamma", 0.1):
        raise NotApplicable("The class does not use gamma.")
    assert not same_weights(plain, other_gamma), "the gamma of the model has no effect with the loaded buffer"


def a_buffer_class_can_be_given(case: Case) -> None:
    """`replay_buffer_class` and `replay_buffer_kwargs` choose the buffer."""
    mine = type("MyBuffer", (type(_buffer(case.model())),), {})
    model = case.model(replay_buffer_class=mine, replay_buffer_kwargs={}).learn(STEPS)
    assert type(model.replay_buffer) is mine, f"the buffer is a {type(model.replay_buffer).__name__}"


def stock_buffers_can_be_given(case: Case) -> None:
    """`replay_buffer_class=ReplayBuffer` is the plain buffer of Stable-Baselines3."""
    model = case.model(replay_buffer_class=ReplayBuffer).learn(STEPS)
    assert type(model.replay_buffer) is ReplayBuffer, f"the buffer is a {type(model.replay_buffer).__name__}"


def memory_can_be_optimised(case: Case) -> None:
    """`optimize_memory_usage=True` stores each observation once."""
    need_argument(case, "optimize_memory_usage")
    kwargs = {"handle_timeout_termination": False}
    model = case.model(optimize_memory_usage=True, replay_buffer_kwargs=kwargs).learn(STEPS)
    assert _buffer(model).optimize_memory_usage, "optimize_memory_usage is False"


def hindsight_works(case: Case) -> None:
    """HerReplayBuffer relabels the goals of episodes in a goal environment, and is saved and loaded."""
    case.policy_for(ToyEnv("dict").observation_space)
    options: dict[str, Any] = {"replay_buffer_class": HerReplayBuffer, "learning_starts": 20}
    kwargs = {"n_sampled_goal": 4, "goal_selection_strategy": "future"}
    env = BitFlippingEnv(n_bits=2, continuous=True, max_steps=4)
    model = case.model(env, replay_buffer_kwargs=kwargs, **options).learn(30)
    assert isinstance(model.replay_buffer, HerReplayBuffer), f"the buffer is a {type(model.replay_buffer).__name__}"
    batch: Any = model.replay_buffer.sample(60)
    goals = batch.observations["desired_goal"]
    assert (goals != 1).any(), "all sampled goals are the environment's own, which is always 1"
    model.save_replay_buffer(case.folder / "buffer")
    model.load_replay_buffer(case.folder / "buffer")
    model.learn(10, reset_num_timesteps=False)


def images_are_stored_as_bytes(case: Case) -> None:
    """Images are kept as uint8, in the channels-first layout of the model's observation space."""
    rows = stored(case.model(case.env("image"), learning_starts=100).learn(4), "observations")
    assert rows.dtype == np.uint8, f"the dtype is {rows.dtype}"
    assert rows.shape == (4, 1, 1, 36, 36), f"the shape is {rows.shape}"
    assert rows.max() > 1, "the images are all black"


def dictionaries_are_stored_by_key(case: Case) -> None:
    """Dictionaries of observations are kept as a dictionary of arrays."""
    buffer: Any = _buffer(case.model(case.env("dict"), learning_starts=100).learn(4))
    shapes = {key: np.asarray(value)[:4].shape for key, value in buffer.observations.items()}
    assert shapes == {"velocity": (4, 1, 1), "position": (4, 1, 2)}, f"the shapes are {shapes}"
    assert set(buffer.sample(3).observations) == {"velocity", "position"}, "samples have other keys"
