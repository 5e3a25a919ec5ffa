"""SAC with one fault each, and the checks of the conformance kit that must find the fault.

A mutant is made by a function without arguments that returns a faulty subclass of stock SAC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.sac.policies import CnnPolicy, MultiInputPolicy, SACPolicy

Mutant = type[SAC]
MUTANTS: dict[str, tuple[Callable[[], Mutant], tuple[str, ...]]] = {}
"""Name of a fault -> what makes the class, and the names of the checks that must fail."""


def caught_by(*checks: str) -> Callable[[Callable[[], Mutant]], Callable[[], Mutant]]:
    """Enters a mutant, with the checks that must find it."""

    def enter(make: Callable[[], Mutant]) -> Callable[[], Mutant]:
        _, before = MUTANTS.get(make.__name__, (make, ()))
        MUTANTS[make.__name__] = make, (*before, *checks)
        return make

    return enter


def subclass(**methods: Any) -> Mutant:
    """SAC with some methods replaced."""
    return type("Mutant", (SAC,), methods)


def with_policy(**methods: Any) -> Mutant:
    """SAC whose policies have some methods replaced."""
    bases = {"MlpPolicy": SACPolicy, "CnnPolicy": CnnPolicy, "MultiInputPolicy": MultiInputPolicy}
    made = {name: type(name, (base,), dict(methods)) for name, base in bases.items()}
    for name, policy in made.items():
        policy.__module__ = __name__
        policy.__qualname__ = f"made_{name}"
        globals()[f"made_{name}"] = policy  # Pickle looks for it here.
    return subclass(policy_aliases=made)


def with_buffer(**methods: Any) -> Mutant:
    """SAC whose default replay buffer has some methods replaced."""
    buffer = type("made_buffer", (ReplayBuffer,), {**methods, "__module__": __name__})
    globals()["made_buffer"] = buffer

    def __init__(self, *args, replay_buffer_class=None, **kwargs):
        SAC.__init__(self, *args, replay_buffer_class=replay_buffer_class or buffer, **kwargs)

    return subclass(__init__=__init__)


def learning_with(**changes: Any) -> Mutant:
    """SAC that changes its own attributes at each `learn`."""

    def learn(self, *args, **kwargs):
        for name, value in changes.items():
            setattr(self, name, value)
        return SAC.learn(self, *args, **kwargs)

    return subclass(learn=learn)


def constructed_with(change: Callable[[dict[str, Any]], None]) -> Mutant:
    """SAC that changes the keyword arguments of its constructor."""

    def __init__(self, *args, **kwargs):
        change(kwargs)
        SAC.__init__(self, *args, **kwargs)

    return subclass(__init__=__init__)


def learn_arguments(change: Callable[[dict[str, Any]], None]) -> Mutant:
    """SAC that changes the keyword arguments of `learn`."""

    def learn(self, total_timesteps, **kwargs):
        change(kwargs)
        return SAC.learn(self, total_timesteps, **kwargs)

    return subclass(learn=learn)


def wrapping_callbacks(**methods: Any) -> Mutant:
    """SAC that changes some methods of the callback that it is given."""

    def _init_callback(self, *args, **kwargs):
        callback = SAC._init_callback(self, *args, **kwargs)
        for name, method in methods.items():
            setattr(callback, name, method(getattr(callback, name)))
        return callback

    return subclass(_init_callback=_init_callback)


def loading(change: Callable[..., Any]) -> Mutant:
    """SAC with `load` replaced by `change(load, cls, path, **kwargs)`."""

    def load(cls, path, env=None, device="auto", **kwargs):
        return change(super(made, cls).load, cls, path, env=env, device=device, **kwargs)

    made = subclass(load=classmethod(load))
    return made


def predicting(change: Callable[..., Any]) -> Mutant:
    """SAC with `predict` replaced by `change(model, predict, observation, **kwargs)`."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        inner = lambda o, d=deterministic: SAC.predict(self, o, state, episode_start, d)
        return change(self, inner, observation)

    return subclass(predict=predict)


# Construction


@caught_by("refuses_an_unknown_argument")
def unknown_arguments_are_ignored() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.pop("no_such_argument", None))


@caught_by("refuses_an_unknown_policy")
def unknown_policies_are_ignored() -> Mutant:
    def _get_policy_from_name(self, name):
        return self.policy_aliases.get(name, SACPolicy)

    return subclass(_get_policy_from_name=_get_policy_from_name)


@caught_by("wraps_an_environment_with_a_monitor", "episodes_are_remembered", "the_documented_keys_are_logged")
def no_monitor() -> Mutant:
    wrap = SAC._wrap_env
    return subclass(_wrap_env=staticmethod(lambda env, verbose=0, monitor_wrapper=True: wrap(env, verbose, False)))


@caught_by("can_be_subclassed")
def final() -> Mutant:
    def __init_subclass__(cls):
        if cls.__name__ != "Mutant":
            raise TypeError("this class is final")

    return subclass(__init_subclass__=classmethod(__init_subclass__))


@caught_by("prints_only_if_verbose")
def always_prints() -> Mutant:
    return constructed_with(lambda kwargs: print("hello"))


@caught_by("refuses_cnn_policy_on_vectors", "refuses_cnn_policy_on_float_images")
def one_policy_for_everything() -> Mutant:
    return subclass(policy_aliases={**SAC.policy_aliases, "CnnPolicy": SACPolicy})


@caught_by("refuses_dict_observations_without_multi_input")
def mlp_policy_takes_dictionaries() -> Mutant:
    def __init__(self, policy, *args, **kwargs):
        SAC.__init__(self, self.policy_aliases.get(policy, policy), *args, **kwargs)

    return subclass(__init__=__init__)


@caught_by("takes_a_subclass_of_its_policy")
def policy_classes_are_ignored() -> Mutant:
    def __init__(self, policy, *args, **kwargs):
        SAC.__init__(self, policy if isinstance(policy, str) else "MlpPolicy", *args, **kwargs)

    return subclass(__init__=__init__)


@caught_by(
    "net_arch_is_obeyed", "activation_fn_is_obeyed", "features_extractors_are_used", "optimizer_kwargs_are_obeyed"
)
@caught_by(
    "optimizer_class_is_obeyed", "n_critics_is_obeyed", "unknown_policy_kwargs_are_refused", "policy_kwargs_are_kept"
)
def policy_kwargs_are_ignored() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.pop("policy_kwargs", None))


@caught_by("normalize_images_is_obeyed", "features_extractors_are_trained", "features_extractors_see_images")
def only_net_arch_is_obeyed() -> Mutant:
    def change(kwargs):
        given = kwargs.get("policy_kwargs")
        if given is not None:
            kwargs["policy_kwargs"] = {"net_arch": given.get("net_arch", [8])}

    return constructed_with(change)


@caught_by("refuses_a_number_in_quotes_as_train_freq", "refuses_an_unknown_unit")
def train_freq_is_guessed() -> Mutant:
    def change(kwargs):
        given = kwargs.get("train_freq", 1)
        kwargs["train_freq"] = given if isinstance(given, int) or given[1] in ("step", "episode") else 1

    return constructed_with(change)


@caught_by("keeps_its_arguments")
def gamma_is_rounded() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.update(gamma=round(kwargs.get("gamma", 0.99))))


@caught_by("keeps_a_vec_env")
def vec_envs_are_wrapped() -> Mutant:
    from stable_baselines3.common.vec_env import VecMonitor

    wrap = SAC._wrap_env
    return subclass(_wrap_env=staticmethod(lambda *args, **kwargs: VecMonitor(wrap(*args, **kwargs))))


@caught_by("can_be_constructed_without_setup")
def setup_cannot_be_delayed() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.pop("_init_setup_model", None))


# Learning


@caught_by("learning_changes_the_policy", "train_can_be_called_by_hand", "trains_on_a_buffer_filled_by_hand")
def nothing_is_learned() -> Mutant:
    return subclass(train=lambda self, gradient_steps, batch_size=64: None)


@caught_by("train_can_be_called_by_hand")
def train_needs_a_batch_size() -> Mutant:
    return subclass(train=lambda self, gradient_steps, batch_size: SAC.train(self, gradient_steps, batch_size))


@caught_by("train_takes_a_batch_size", "assigned_batch_size_takes_effect", "load_applies_hyperparameters[batch_size]")
def batch_sizes_stay() -> Mutant:
    def train(self, gradient_steps, batch_size=64):
        SAC.train(self, gradient_steps, self.kept)

    def _setup_model(self):
        self.__dict__.setdefault("kept", self.batch_size)
        SAC._setup_model(self)

    return subclass(train=train, _setup_model=_setup_model)


@caught_by("nothing_is_learned_before_learning_starts", "acts_at_random_before_learning_starts")
@caught_by("assigned_learning_starts_take_effect", "load_applies_hyperparameters[learning_starts]")
def learning_starts_at_once() -> Mutant:
    def collect_rollouts(self, *args, **kwargs):
        self.learning_starts = 0
        return SAC.collect_rollouts(self, *args, **{**kwargs, "learning_starts": 0})

    return subclass(collect_rollouts=collect_rollouts)


@caught_by("learn_returns_the_model")
def learn_returns_nothing() -> Mutant:
    return subclass(learn=lambda self, *args, **kwargs: (SAC.learn(self, *args, **kwargs), None)[1])


@caught_by("a_second_learn_may_continue_counting", "a_continued_learn_keeps_the_episode", "tensorboard_runs_continue")
@caught_by("schedules_continue_over_several_calls", "load_takes_an_environment")
def counters_are_always_reset() -> Mutant:
    return learn_arguments(lambda kwargs: kwargs.pop("reset_num_timesteps", None))


@caught_by("a_second_learn_starts_counting_again", "statistics_are_reset_with_the_counter")
def counters_are_never_reset() -> Mutant:
    return learn_arguments(lambda kwargs: kwargs.update(reset_num_timesteps=False))


@caught_by("counts_steps_of_all_environments", "callbacks_count_steps_of_all_environments")
def one_environment_is_counted() -> Mutant:
    def _store_transition(self, *args, **kwargs):
        SAC._store_transition(self, *args, **kwargs)
        self.num_timesteps -= self.n_envs - 1

    return subclass(_store_transition=_store_transition)


@caught_by("train_freq_counts_steps", "train_freq_takes_a_unit", "train_freq_counts_episodes")
@caught_by("assigned_train_freq_takes_effect", "refuses_episodes_of_several_environments")
def train_freq_is_ignored() -> Mutant:
    from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

    return learning_with(train_freq=TrainFreq(1, TrainFrequencyUnit.STEP))


@caught_by("gradient_steps_are_done", "gradient_steps_may_follow_the_steps", "gradient_steps_may_be_none")
@caught_by("assigned_gradient_steps_take_effect", "load_applies_hyperparameters[gradient_steps]")
def gradient_steps_are_ignored() -> Mutant:
    return learning_with(gradient_steps=1)


def _frozen(name: str) -> Mutant:
    """SAC that trains with the value of an attribute at its construction."""

    def train(self, *args, **kwargs):
        now = getattr(self, name)
        setattr(self, name, self.kept)
        SAC.train(self, *args, **kwargs)
        setattr(self, name, now)

    def _setup_model(self):
        self.kept = getattr(self, name)
        SAC._setup_model(self)

    return subclass(train=train, _setup_model=_setup_model)


@caught_by("assigned_gamma_takes_effect", "gamma_during_training_takes_effect")
def gamma_stays() -> Mutant:
    return _frozen("gamma")


@caught_by("assigned_tau_takes_effect")
def tau_stays() -> Mutant:
    return _frozen("tau")


@caught_by("a_tau_of_zero_freezes_the_targets")
def a_tau_of_zero_is_replaced() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.update(tau=kwargs.get("tau") or 0.005))


@caught_by("a_learning_rate_of_zero_freezes_the_policy", "load_as_rl_zoo_does")
def zero_rates_are_refused() -> Mutant:
    def _setup_lr_schedule(self):
        SAC._setup_lr_schedule(self)
        if self.lr_schedule(1.0) == 0:
            raise ValueError("learning_rate must be greater than 0")

    return subclass(_setup_lr_schedule=_setup_lr_schedule)


@caught_by("tau_moves_the_targets", "load_applies_hyperparameters[tau]")
def targets_stay() -> Mutant:
    return learning_with(tau=0.0)


@caught_by("a_tau_of_one_is_accepted")
def large_rates_are_refused() -> Mutant:
    def change(kwargs):
        if kwargs.get("tau", 0) >= 1:
            raise ValueError("tau must be smaller than 1")

    return constructed_with(change)


@caught_by("schedules_reach_the_optimisers", "load_changes_the_learning_rate", "linear_schedules_are_accepted")
@caught_by("assigned_learning_rate_takes_effect", "assigned_lr_schedule_takes_effect")
def optimisers_keep_their_rate() -> Mutant:
    return subclass(_update_learning_rate=lambda self, optimizers: None)


@caught_by("schedules_get_the_remaining_progress", "schedules_reach_the_optimisers")
def schedules_get_one() -> Mutant:
    return subclass(_update_current_progress_remaining=lambda self, done, total: None)


@caught_by("schedules_are_saved")
def schedules_are_not_saved() -> Mutant:
    def change(load, cls, path, **kwargs):
        model = load(path, **kwargs)
        model.lr_schedule = lambda progress: 3e-4
        return model

    return loading(change)


@caught_by("learning_rates_are_obeyed")
def learning_rates_are_ignored() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.pop("learning_rate", None))


@caught_by(
    "action_noise_changes_actions", "action_noise_is_reset_with_the_episode", "assigned_action_noise_takes_effect"
)
@caught_by("accepts_action_noise", "action_noise_is_vectorised")
def action_noise_is_dropped() -> Mutant:
    return learning_with(action_noise=None)


@caught_by("n_step_returns_are_accepted", "n_step_returns_stop_at_ends")
def n_steps_are_ignored() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.pop("n_steps", None))


@caught_by("n_step_returns_learn_from_short_episodes")
def short_episodes_are_dropped() -> Mutant:
    def train(self, gradient_steps, batch_size=64):
        rewards = self.replay_buffer.rewards
        kept = rewards.copy()
        if self.n_steps > 2:
            rewards[:] = 0
        SAC.train(self, gradient_steps, batch_size)
        rewards[:] = kept

    return subclass(train=train)


@caught_by("weights_stay_finite")
def zeros_are_divided_by() -> Mutant:
    def train(self, *args, **kwargs):
        SAC.train(self, *args, **kwargs)
        scale = float(np.abs(self.replay_buffer.observations).sum())
        with torch.no_grad():
            for parameter in self.policy.parameters():
                parameter *= np.divide(scale, scale)

    return subclass(train=train)


@caught_by("stores_scaled_actions", "predicted_actions_have_the_units_of_the_space")
def actions_are_not_unscaled() -> Mutant:
    return with_policy(unscale_action=lambda self, action: action, scale_action=lambda self, action: action * 0.5)


@caught_by("state_dependent_exploration_is_accepted")
def state_dependent_exploration_is_dropped() -> Mutant:
    def __init__(self, *args, use_sde=False, **kwargs):
        SAC.__init__(self, *args, **kwargs)

    return subclass(__init__=__init__)


# Seeds


@caught_by("load_takes_a_seed", "load_takes_a_seed_for_updates", "the_same_seed_gives_the_same_run")
@caught_by("the_same_seed_gives_the_same_weights", "set_random_seed_changes_updates", "the_seed_determines_exploration")
@caught_by("set_random_seed_changes_the_future", "stochastic_actions_can_be_seeded[model_seed]")
@caught_by("the_seed_reaches_the_environment", "set_random_seed_changes_random_actions")
def seeds_have_no_effect() -> Mutant:
    return subclass(set_random_seed=lambda self, seed=None: None)


@caught_by("load_takes_a_seed", "load_takes_a_seed_for_updates", "set_random_seed_changes_updates")
@caught_by("the_same_seed_gives_the_same_weights", "no_seed_gives_another_run", "the_seed_changes_stochastic_actions")
def every_seed_is_zero() -> Mutant:
    return subclass(set_random_seed=lambda self, seed=None: SAC.set_random_seed(self, 0))


@caught_by("stochastic_actions_can_be_seeded[model_seed]", "set_random_seed_changes_updates")
def seeds_miss_torch() -> Mutant:
    def set_random_seed(self, seed=None):
        state = torch.get_rng_state()
        SAC.set_random_seed(self, seed)
        torch.set_rng_state(state)

    return subclass(set_random_seed=set_random_seed)


@caught_by("stochastic_actions_can_be_seeded[global_seed]")
def predict_has_a_hidden_generator() -> Mutant:
    def change(model, predict, observation):
        model.draws = model.__dict__.get("draws", 0) + 1
        state = torch.get_rng_state()
        torch.manual_seed(model.draws)
        found = predict(observation)
        torch.set_rng_state(state)
        return found

    return predicting(change)


# Callbacks


@caught_by("callbacks_are_called_in_order", "callbacks_see_the_locals_of_a_step", "callbacks_stop_the_training")
@caught_by("functions_are_callbacks", "lists_are_callbacks", "callback_lists_can_be_nested", "checkpoints_are_written")
@caught_by("eval_callback_writes_its_results", "eval_callback_saves_the_best_model", "eval_callback_logs")
@caught_by("callbacks_can_save_the_model", "callbacks_have_their_attributes", "callbacks_see_rewards_and_ends")
@caught_by("callbacks_reach_the_environments", "checkpoints_count_calls", "log_every_n_timesteps_dumps")
@caught_by("callbacks_can_log", "callbacks_can_be_used_again", "every_n_timesteps_triggers", "max_episodes_stops")
@caught_by("eval_callback_synchronises_normalisation", "callbacks_see_the_arguments_of_learn")
def callbacks_are_forgotten() -> Mutant:
    return learn_arguments(lambda kwargs: kwargs.pop("callback", None))


@caught_by("callbacks_stop_the_training", "functions_are_callbacks", "lists_are_callbacks", "max_episodes_stops")
@caught_by("reward_thresholds_stop", "missing_improvement_stops")
def callbacks_cannot_stop() -> Mutant:
    return wrapping_callbacks(on_step=lambda method: lambda: (method(), True)[1])


@caught_by("callbacks_see_the_locals_of_a_step", "callbacks_see_rewards_and_ends", "max_episodes_stops")
def callbacks_see_no_locals() -> Mutant:
    return wrapping_callbacks(update_locals=lambda method: lambda locals_: None)


@caught_by("callbacks_are_called_in_order", "callbacks_stop_the_training")
def callbacks_see_no_end() -> Mutant:
    return wrapping_callbacks(on_training_end=lambda method: lambda: None)


@caught_by("lists_are_callbacks")
def only_the_first_callback_is_called() -> Mutant:
    def change(kwargs):
        if isinstance(kwargs.get("callback"), list):
            kwargs["callback"] = kwargs["callback"][0]

    return learn_arguments(change)


@caught_by("callbacks_see_the_arguments_of_learn", "progress_bars_are_shown")
def callbacks_see_no_arguments() -> Mutant:
    return wrapping_callbacks(on_training_start=lambda method: lambda locals_, globals_: method({}, globals_))


@caught_by("callbacks_see_what_is_logged", "losses_are_logged", "the_documented_keys_are_logged")
@caught_by("updates_are_counted_in_the_log", "tensorboard_has_the_metrics")
def training_is_not_logged() -> Mutant:
    def train(self, *args, **kwargs):
        logger, self._logger = self._logger, Logger(folder=None, output_formats=[])
        SAC.train(self, *args, **kwargs)
        self._logger = logger

    return subclass(train=train)


@caught_by("train_env_sees_no_evaluation", "evaluate_policy_leaves_the_model_alone", "prediction_does_not_learn")
@caught_by("evaluation_during_training_keeps_the_collection")
def predictions_are_counted() -> Mutant:
    def change(model, predict, observation):
        model.num_timesteps += 1
        return predict(observation)

    return predicting(change)


# Logging


@caught_by("set_logger_is_obeyed", "losses_are_logged", "callbacks_can_log", "dump_logs_can_be_called")
def set_logger_is_ignored() -> Mutant:
    return subclass(set_logger=lambda self, logger: None)


@caught_by("log_interval_counts_episodes", "log_interval_may_be_none")
def log_interval_is_ignored() -> Mutant:
    return learn_arguments(lambda kwargs: kwargs.update(log_interval=1))


@caught_by("tensorboard_runs_are_numbered", "tensorboard_runs_continue", "tensorboard_has_the_metrics")
def tb_log_name_is_ignored() -> Mutant:
    return learn_arguments(lambda kwargs: kwargs.pop("tb_log_name", None))


@caught_by("stats_window_size_is_obeyed")
def stats_window_size_is_ignored() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.pop("stats_window_size", None))


@caught_by(
    "returns_and_lengths_are_logged", "success_is_logged", "the_documented_keys_are_logged", "verbose_prints_the_log"
)
@caught_by("dump_logs_can_be_called", "log_interval_counts_episodes", "log_every_n_timesteps_dumps")
def nothing_is_dumped() -> Mutant:
    return subclass(dump_logs=lambda self: None)


# Prediction


@caught_by("deterministic_actions_repeat", "a_batch_is_predicted_like_its_rows", "deterministic_evaluation_repeats")
@caught_by("trains_acts_and_loads[box]", "predict_takes_states", "the_policy_predicts_like_the_model")
def deterministic_is_ignored() -> Mutant:
    return predicting(lambda model, predict, observation: predict(observation, False))


@caught_by("predicts_for_one_observation")
def predict_returns_a_state() -> Mutant:
    return predicting(lambda model, predict, observation: (predict(observation)[0], (np.zeros(1),)))


@caught_by("predicts_for_one_observation[box]", "predicts_for_one_observation[discrete]")
def predict_keeps_the_batch_axis() -> Mutant:
    return predicting(lambda model, predict, observation: (np.atleast_2d(predict(observation)[0]), None))


@caught_by("predicts_for_a_vec_env", "a_batch_is_predicted_like_its_rows")
def predict_takes_the_first_row() -> Mutant:
    return predicting(lambda model, predict, observation: (predict(observation)[0].reshape(-1, 2)[0], None))


@caught_by("predict_refuses_other_shapes[narrow]", "predict_refuses_other_shapes[wide]")
def predict_broadcasts() -> Mutant:
    def change(model, predict, observation):
        if isinstance(observation, np.ndarray) and model.observation_space.shape == (3,):
            observation = np.resize(observation, (*observation.shape[:-1], 3))
        return predict(observation)

    return predicting(change)


@caught_by("predict_refuses_what_reset_gives")
def predict_unpacks_pairs() -> Mutant:
    return predicting(lambda model, predict, o: predict(o[0] if isinstance(o, tuple) else o))


@caught_by("predict_refuses_missing_keys", "predict_refuses_vectors_for_dictionaries")
def predict_fills_missing_keys() -> Mutant:
    def change(model, predict, observation):
        if "dict" in str(model.observation_space).lower():
            given = observation if isinstance(observation, dict) else {}
            zeros = {key: np.zeros(space.shape, space.dtype) for key, space in model.observation_space.items()}
            observation = {**zeros, **given}
        return predict(observation)

    return predicting(change)


@caught_by("the_order_of_keys_does_not_matter", "policies_are_saved_with_dict_observations")
def keys_are_taken_by_position() -> Mutant:
    def change(model, predict, observation):
        if isinstance(observation, dict):
            flat = np.concatenate(list(observation.values()), -1)
            names, sizes = zip(*((key, space.shape[0]) for key, space in model.observation_space.items()), strict=True)
            observation = dict(zip(names, np.split(flat, np.cumsum(sizes)[:-1], -1), strict=True))
        return predict(observation)

    return predicting(change)


@caught_by("predictions_do_not_change_observations")
def predict_writes_to_observations() -> Mutant:
    def change(model, predict, observation):
        found = predict(observation)
        if isinstance(observation, np.ndarray):
            observation *= 0
        return found

    return predicting(change)


@caught_by("predictions_are_arrays")
def predict_returns_tensors() -> Mutant:
    return predicting(lambda model, predict, observation: (torch.as_tensor(predict(observation)[0]), None))


@caught_by("actions_depend_on_observations", "one_hot_observations_are_told_apart", "parameters_can_be_pretrained")
def actions_are_constant() -> Mutant:
    return predicting(lambda model, predict, observation: (np.zeros_like(predict(observation)[0]), None))


@caught_by("a_batch_is_predicted_like_its_rows")
def rows_see_each_other() -> Mutant:
    def change(model, predict, observation):
        if isinstance(observation, np.ndarray) and observation.ndim == 2:
            observation = observation - observation.mean(0)
        return predict(observation)

    return predicting(change)


@caught_by("predict_takes_lists", "predicts_for_other_dtypes[float64]")
def predict_wants_float32() -> Mutant:
    def change(model, predict, observation):
        assert getattr(observation, "dtype", np.float32) == np.float32
        return predict(observation if isinstance(observation, dict) else observation[:])

    def checked(model, predict, observation):
        if isinstance(observation, list):
            raise TypeError("expected an array")
        return change(model, predict, observation)

    return predicting(checked)


@caught_by("predicts_with_another_default_dtype")
def predict_wants_the_default_dtype() -> Mutant:
    def change(model, predict, observation):
        return predict(
            torch.as_tensor(observation, dtype=torch.get_default_dtype()).to(torch.float32).numpy()
            * (1 if torch.get_default_dtype() == torch.float32 else 0.5)
        )

    return predicting(change)


@caught_by("one_hot_observations_are_told_apart", "predicts_for_one_observation[dict_discrete]")
def discrete_observations_are_lost() -> Mutant:
    def change(model, predict, observation):
        if isinstance(observation, dict) and "bin" in observation:
            raise ValueError("a bin is no number")
        plain = "Discrete(4)" in str(model.observation_space)
        return predict(np.zeros_like(observation) if plain else observation)

    return predicting(change)


@caught_by("channels_last_images_are_predicted")
def images_are_reshaped() -> Mutant:
    def change(model, predict, observation):
        if isinstance(observation, np.ndarray) and observation.shape == (36, 36, 1):
            observation = observation.transpose(2, 1, 0)  # Rows and columns are exchanged.
        return predict(observation)

    return predicting(change)


@caught_by("predicted_actions_have_the_units_of_the_space", "predicts_for_one_observation")
def predicted_actions_are_float64() -> Mutant:
    return predicting(lambda model, predict, observation: (predict(observation)[0].astype(np.float64) * 1.5 + 5, None))
