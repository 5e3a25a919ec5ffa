"""Learning: counters, updates, exploration."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from flowpolicies.conformance.case import (
    STEPS,
    Case,
    NotApplicable,
    Trace,
    actions_of,
    differing,
    need_argument,
    raises,
    same_weights,
    weights,
)
from flowpolicies.conformance.promises import over


def learn_returns_the_model(case: Case) -> None:
    """`learn` returns the model, so that calls can be chained."""
    model = case.model()
    assert model.learn(2) is model, "learn returned another object"


def learn_takes_a_float(case: Case) -> None:
    """The number of steps may be a float such as 1e6."""
    assert case.model().learn(float(STEPS)).num_timesteps == STEPS  # type: ignore[arg-type]


def rollouts_can_be_collected_by_hand(case: Case) -> None:
    """`collect_rollouts` fills the replay buffer, as in a training loop that a user writes."""
    model, trace = case.model(), Trace()
    _, callback = model._setup_learn(10, trace)
    env, buffer = model.get_env(), model.replay_buffer
    assert env is not None
    assert buffer is not None
    found = model.collect_rollouts(env, callback, TrainFreq(4, TrainFrequencyUnit.STEP), buffer, learning_starts=100)
    assert (found.episode_timesteps, trace.n_calls, buffer.size()) == (4, 4, 4), f"{found}, {buffer.size()} rows"


def weights_stay_finite(case: Case) -> None:
    """Observations and rewards that are always zero leave the weights finite."""
    env = gym.wrappers.TransformObservation(case.env(), np.zeros_like, case.env().observation_space)
    still = gym.wrappers.TransformReward(env, lambda reward: 0.0)
    found = weights(case.model(still).learn(STEPS))
    broken = [name for name, value in found.items() if not torch.isfinite(value.double()).all()]
    assert not broken, f"not finite: {broken[:3]}"


def learning_changes_the_policy(case: Case) -> None:
    """Updates change the policy's weights."""
    model = case.model()
    before = weights(model)
    assert differing(before, weights(model.learn(STEPS))), "no weight changed"


def nothing_is_learned_before_learning_starts(case: Case) -> None:
    """There are no updates during the first `learning_starts` steps."""
    model = case.model(learning_starts=100)
    before = weights(model)
    model.learn(STEPS)
    assert not differing(before, weights(model)), "weights changed before learning_starts"
    assert model._n_updates == 0, f"{model._n_updates} updates were counted"


@over(one=(1, 15, 15), two=(2, 15, 16), three=(3, 10, 12))
def counts_steps_of_all_environments(case: Case, counts: tuple[int, int, int]) -> None:
    """`num_timesteps` counts the steps of all environments; the total is a lower bound."""
    envs, total, expected = counts
    found = case.model(case.vec(envs)).learn(total).num_timesteps
    assert found == expected, f"{envs} environments: {found} steps after learn({total}), expected {expected}"


def a_second_learn_starts_counting_again(case: Case) -> None:
    """`learn` resets `num_timesteps` by default."""
    model = case.model().learn(12)
    assert model.learn(5).num_timesteps == 5, f"num_timesteps is {model.num_timesteps}"


def a_second_learn_may_continue_counting(case: Case) -> None:
    """With `reset_num_timesteps=False`, steps are added to those so far."""
    model = case.model().learn(12)
    model.learn(5, reset_num_timesteps=False)
    assert model.num_timesteps == 17, f"num_timesteps is {model.num_timesteps}"


def a_continued_learn_keeps_the_episode(case: Case) -> None:
    """With `reset_num_timesteps=False`, the environment is not reset between two calls of `learn`."""
    model = case.model(case.env(length=10))
    model.learn(5).learn(5, reset_num_timesteps=False)
    assert model.ep_info_buffer, "the episode of 10 steps is not finished after 5 and 5 steps"
    assert model.ep_info_buffer[0]["l"] == 10, f"the first episode has {model.ep_info_buffer[0]['l']} steps"


def train_freq_counts_steps(case: Case) -> None:
    """With `train_freq=4`, there is one update after each four steps."""
    model = case.model(train_freq=4).learn(24)
    assert model._n_updates == 4, f"{model._n_updates} updates, expected 4 (after steps 12, 16, 20 and 24)"


def train_freq_takes_a_unit(case: Case) -> None:
    """`train_freq` may be a pair such as (4, "step")."""
    model = case.model(train_freq=(4, "step")).learn(10)
    assert model.num_timesteps == 12, f"num_timesteps is {model.num_timesteps}, expected 12"


def train_freq_counts_episodes(case: Case) -> None:
    """With `train_freq=(2, "episode")`, collecting stops at the end of every second episode."""
    model = case.model(case.env(length=5), train_freq=(2, "episode")).learn(12)
    assert (model.num_timesteps, model._n_updates) == (20, 2), (
        f"{model.num_timesteps} steps, {model._n_updates} updates"
    )


def refuses_an_unknown_unit(case: Case) -> None:
    """An unknown unit of `train_freq` raises a ValueError that names the two units."""
    text = raises((ValueError,), lambda: case.model(train_freq=(1, "minute")))
    assert "episode" in text, f"the error does not name the units: {text}"


def refuses_a_number_in_quotes_as_train_freq(case: Case) -> None:
    """A number in quotes as `train_freq` raises a ValueError instead of being ignored."""
    raises((ValueError, TypeError), lambda: case.model(train_freq="4"))


def refuses_episodes_of_several_environments(case: Case) -> None:
    """Counting `train_freq` in episodes needs a single environment."""
    call = lambda: case.model(case.vec(2), train_freq=(1, "episode")).learn(20)  # noqa: E731
    raises((AssertionError, ValueError), call)


def gradient_steps_are_done(case: Case) -> None:
    """`gradient_steps=3` means three updates after each collection."""
    found = case.model(gradient_steps=3).learn(10)._n_updates
    assert found == 6, f"{found} updates, expected 6"


def gradient_steps_may_follow_the_steps(case: Case) -> None:
    """`gradient_steps=-1` means as many updates as steps in all environments."""
    found = case.model(case.vec(2), gradient_steps=-1, train_freq=2).learn(12)._n_updates
    assert found == 4, f"{found} updates after 4 steps behind learning_starts, expected 4"


def gradient_steps_may_be_none(case: Case) -> None:
    """`gradient_steps=0` collects without learning."""
    found = case.model(gradient_steps=0).learn(STEPS)._n_updates
    assert found == 0, f"{found} updates"


def train_can_be_called_by_hand(case: Case) -> None:
    """`model.train(gradient_steps=2)` does two updates on the buffer, with a default batch size."""
    model = case.model(learning_starts=100).learn(STEPS)
    before = weights(model)
    model.train(gradient_steps=2)  # type: ignore[call-arg]
    assert model._n_updates == 2, f"{model._n_updates} updates were counted"
    assert differing(before, weights(model)), "no weight changed"


def train_takes_a_batch_size(case: Case) -> None:
    """`model.train(gradient_steps, batch_size)` draws batches of that size."""
    model = case.model(learning_starts=100).learn(STEPS)
    buffer, sizes = model.replay_buffer, []
    assert buffer is not None
    sample = buffer.sample

    def spy(batch_size: int, *args: Any, **kwargs: Any) -> Any:
        sizes.append(batch_size)
        return sample(batch_size, *args, **kwargs)

    buffer.sample = spy  # type: ignore[method-assign]
    model.train(gradient_steps=1, batch_size=6)
    assert sizes == [6], f"batches of {sizes} were drawn"


def trains_on_a_buffer_filled_by_hand(case: Case) -> None:
    """Transitions that a user adds with `replay_buffer.add` are learned from by `model.train`."""
    model, rng = case.model(), np.random.default_rng(0)
    model.set_logger(Logger(folder=None, output_formats=[]))
    assert model.replay_buffer is not None
    for _ in range(12):
        observation, following = rng.uniform(-1, 1, (2, 1, 3)).astype(np.float32)
        action, zero = rng.uniform(-1, 1, (1, 2)).astype(np.float32), np.zeros(1)
        model.replay_buffer.add(observation, following, action, zero, zero, [{}])
    before = weights(model)
    model.train(gradient_steps=1, batch_size=4)
    assert differing(before, weights(model)), "no weight changed"


def acts_at_random_before_learning_starts(case: Case) -> None:
    """During the first `learning_starts` steps, actions are uniform in the action space, not the policy's."""
    actions = actions_of(case.model(learning_starts=60), 50)
    assert np.abs(actions).max() <= 1.001, f"actions lie in [{actions.min()}, {actions.max()}]"
    assert actions.min() < -0.8 and actions.max() > 0.8, "100 numbers do not fill [-1, 1]"  # noqa: PT018
    share = (np.abs(actions) > 0.5).mean()
    assert 0.3 < share < 0.7, f"{share:.0%} of the numbers are beyond 0.5, expected about half"
    other = case.model(learning_starts=60)
    with torch.no_grad():
        for parameter in other.policy.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(actions_of(other, 50), actions, err_msg="they depend on the policy's weights")


def stores_scaled_actions(case: Case) -> None:
    """The environment gets actions within its bounds, and the buffer stores them scaled to [-1, 1]."""
    trace = Trace(look=lambda c: (c.locals["actions"].copy(), c.locals["buffer_actions"].copy()))
    model = case.model()
    model.learn(STEPS, callback=trace)
    for given, kept in trace.seen:
        np.testing.assert_allclose(model.policy.scale_action(given), kept, atol=1e-5)


def _noise(sigma: float = 0.3) -> NormalActionNoise:
    return NormalActionNoise(np.zeros(2), sigma * np.ones(2))


def action_noise_changes_actions(case: Case) -> None:
    """Action noise is added to the actions that are collected after `learning_starts`."""
    shifted = NormalActionNoise(np.full(2, 1.5), np.zeros(2))
    options: dict[str, Any] = {"learning_starts": 0, "gradient_steps": 0}
    plain, noisy = (actions_of(case.model(**options, action_noise=noise)) for noise in (None, shifted))
    means = f"{plain.mean():.2f} without and {noisy.mean():.2f} with a shift of 1.5"
    assert noisy.mean() > plain.mean() + 0.1, f"the mean action was {means}"
    assert np.abs(noisy).max() <= 1, "noisy actions are not clipped"


@over(normal=_noise(), ornstein_uhlenbeck=OrnsteinUhlenbeckActionNoise(np.zeros(2), 0.3 * np.ones(2)))
def accepts_action_noise(case: Case, noise: ActionNoise) -> None:
    """Normal and Ornstein-Uhlenbeck noise are accepted, and the model is saved and loaded with them."""
    model = case.model(action_noise=noise).learn(STEPS)
    model.save(case.folder / "model")
    loaded = case.load(case.folder / "model", case.env())
    assert type(loaded.action_noise) is type(noise), f"the loaded noise is a {type(loaded.action_noise).__name__}"
    loaded.learn(STEPS)


def action_noise_is_reset_with_the_episode(case: Case) -> None:
    """The noise process is reset at the end of each episode."""
    resets: list[int] = []
    noise = _noise()
    noise.reset = lambda: resets.append(1)  # type: ignore[method-assign]
    case.model(case.env(length=5), action_noise=noise).learn(15)
    assert len(resets) == 4, f"reset {len(resets)} times in three episodes, expected once at the start and at each end"


def action_noise_is_vectorised(case: Case) -> None:
    """With several environments, each gets a noise process of its own."""
    model = case.model(case.vec(2), action_noise=_noise()).learn(STEPS)
    noise = model.action_noise
    assert isinstance(noise, VectorizedActionNoise), f"action_noise is a {type(noise).__name__}"
    assert len(noise.noises) == 2, f"{len(noise.noises)} processes for two environments"


def assigned_action_noise_takes_effect(case: Case) -> None:
    """Action noise that is assigned after construction is used."""
    calls: list[int] = []

    class Counted(NormalActionNoise):
        def __call__(self) -> np.ndarray:
            calls.append(1)
            return super().__call__()

    model = case.model(learning_starts=0, gradient_steps=0)
    model.action_noise = Counted(np.zeros(2), np.ones(2))
    model.learn(5)
    assert len(calls) == 5, f"the noise was drawn {len(calls)} times in 5 steps"


def n_step_returns_are_accepted(case: Case) -> None:
    """`n_steps=3` trains on returns of three steps, so that it gives other weights than one step."""
    need_argument(case, "n_steps")
    one, three = case.trained(gradient_steps=2), case.trained(gradient_steps=2, n_steps=3)
    assert not same_weights(one, three), "n_steps has no effect"


def _rewarded(case: Case, factor: float, n_steps: int) -> OffPolicyAlgorithm:
    """A model that was trained on episodes of two steps."""
    env = gym.wrappers.TransformReward(case.env(length=2, terminates=True), lambda reward: factor * float(reward))
    return case.model(env, n_steps=n_steps).learn(STEPS)


def n_step_returns_learn_from_short_episodes(case: Case) -> None:
    """Episodes shorter than `n_steps` are learned from: their rewards have an effect."""
    need_argument(case, "n_steps")
    if same_weights(_rewarded(case, 1, 1), _rewarded(case, 5, 1)):
        raise NotApplicable("The class does not use rewards.")
    plain, larger = (_rewarded(case, factor, 5) for factor in (1, 5))
    assert not same_weights(plain, larger), "rewards of episodes of 2 steps have no effect with n_steps=5"


def n_step_returns_stop_at_ends(case: Case) -> None:
    """Sampled returns of `n_steps` steps are cut at the end of an episode."""
    need_argument(case, "n_steps")
    trace = Trace(look=lambda c: float(c.locals["rewards"][0]))
    model = case.model(case.env(length=2, terminates=True), n_steps=5).learn(STEPS, callback=trace)
    assert model.replay_buffer is not None
    batch: Any = model.replay_buffer.sample(30)
    pairs = np.array(trace.seen).reshape(-1, 2)
    expected = np.concatenate([pairs[:, 0] + model.gamma * pairs[:, 1], pairs[:, 1]])
    distance = np.abs(batch.rewards.cpu().numpy().reshape(-1, 1) - expected).min(1).max()
    assert distance < 1e-4, f"a return is {distance} away from those that end with the episode"


def state_dependent_exploration_is_accepted(case: Case) -> None:
    """`use_sde=True` explores with generalised state-dependent noise."""
    need_argument(case, "use_sde")
    model = case.trained(use_sde=True, sde_sample_freq=4)
    assert model.use_sde, "use_sde is False"
