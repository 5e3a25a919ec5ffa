"""More faults of SAC for the conformance kit: saving, loading, parameters and replay buffers. See `mutants.py`."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from mutants import Mutant, caught_by, constructed_with, loading, predicting, subclass, with_buffer, with_policy
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from stable_baselines3.sac.policies import SACPolicy

# Loading


@caught_by("load_takes_hyperparameters", "load_applies_hyperparameters", "load_takes_a_seed")
@caught_by("load_changes_the_learning_rate[keyword]", "load_refuses_other_policy_kwargs")
def load_ignores_keywords() -> Mutant:
    return loading(
        lambda load, cls, path, env, device, custom_objects=None, **_: load(path, env, device, custom_objects)
    )


@caught_by("load_replaces_custom_objects", "load_changes_the_learning_rate[custom_objects]")
def load_ignores_custom_objects() -> Mutant:
    return loading(lambda load, cls, path, custom_objects=None, **kwargs: load(path, **kwargs))


@caught_by("load_prints_system_info")
def load_prints_nothing() -> Mutant:
    return loading(lambda load, cls, path, print_system_info=False, **kwargs: load(path, **kwargs))


@caught_by("load_forces_a_reset")
def load_keeps_the_episode() -> Mutant:
    return loading(lambda load, cls, path, force_reset=True, **kwargs: load(path, force_reset=False, **kwargs))


@caught_by(
    "load_takes_an_environment", "load_takes_another_number_of_environments", "load_takes_a_normalised_environment"
)
@caught_by("training_continues_on_a_loaded_buffer", "load_refuses_other_spaces")
def load_ignores_the_environment() -> Mutant:
    return loading(lambda load, cls, path, env=None, **kwargs: load(path, **kwargs))


@caught_by("a_loaded_model_acts_without_an_environment", "a_loaded_model_needs_an_environment_to_learn")
def load_makes_an_environment() -> Mutant:
    from flowpolicies.conformance.toys import ToyEnv

    return loading(lambda load, cls, path, env=None, **kwargs: load(path, env=env or ToyEnv(), **kwargs))


@caught_by("load_restores_the_hyperparameters", "a_loaded_model_continues_with_set_env", "load_takes_an_environment")
def load_forgets_the_counter() -> Mutant:
    def change(load, cls, path, **kwargs):
        model = load(path, **kwargs)
        model.num_timesteps = 0
        return model

    return loading(change)


@caught_by("load_refuses_missing_files")
def load_hides_missing_files() -> Mutant:
    def change(load, cls, path, **kwargs):
        if isinstance(path, Path) and path.name == "missing":
            raise FileNotFoundError("no such file")
        return load(path, **kwargs)

    return loading(change)


@caught_by("load_restores_the_optimisers", "optimizer_kwargs_are_obeyed")
def optimisers_are_not_saved() -> Mutant:
    return subclass(_get_torch_save_params=lambda self: (["policy"], []))


@caught_by("load_restores_the_optimisers", "a_loaded_model_learns_what_the_original_learns")
def optimisers_are_new_after_load() -> Mutant:
    def change(load, cls, path, **kwargs):
        model = load(path, **kwargs)
        for one in (model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer):
            one.state.clear()
        return model

    return loading(change)


@caught_by("load_takes_a_device", "takes_a_device[name]")
def devices_are_names() -> Mutant:
    def change(load, cls, path, **kwargs):
        model = load(path, **kwargs)
        model.device = "the cpu"
        return model

    made = loading(change)

    def __init__(self, *args, **kwargs):
        SAC.__init__(self, *args, **kwargs)
        self.device = str(self.device)

    return type("Mutant", (made,), {"__init__": __init__})


@caught_by("set_env_refuses_other_spaces")
def set_env_takes_anything() -> Mutant:
    def set_env(self, env, force_reset=True):
        self.env, self._last_obs = self._wrap_env(env), None
        self._vec_normalize_env = unwrap_vec_normalize(self.env)

    return subclass(set_env=set_env)


@caught_by("set_env_replaces_the_environment")
def set_env_keeps_the_episode() -> Mutant:
    return subclass(set_env=lambda self, env, force_reset=True: SAC.set_env(self, env, False))


@caught_by("set_env_knows_the_normaliser")
def set_env_forgets_the_normaliser() -> Mutant:
    def set_env(self, env, force_reset=True):
        SAC.set_env(self, env, force_reset)
        self._vec_normalize_env = None

    return subclass(set_env=set_env)


# Saving


@caught_by("excluded_attributes_are_not_saved")
def exclude_is_ignored() -> Mutant:
    return subclass(save=lambda self, path, exclude=None, include=None: SAC.save(self, path, None, include))


@caught_by("included_attributes_are_saved")
def include_is_ignored() -> Mutant:
    return subclass(save=lambda self, path, exclude=None, include=None: SAC.save(self, path, exclude))


@caught_by("the_replay_buffer_is_not_saved_with_the_model")
def the_buffer_is_saved_with_the_model() -> Mutant:
    def save(self, path, exclude=None, include=None):
        SAC.save(self, path, exclude, [*(include or []), "replay_buffer"])

    return subclass(save=save)


@caught_by("saves_to_a_file_object")
def only_paths_are_saved_to() -> Mutant:
    return subclass(save=lambda self, path, exclude=None, include=None: SAC.save(self, str(path), exclude, include))


@caught_by("the_suffix_may_be_left_out")
def no_suffix_is_added() -> Mutant:
    def save(self, path, exclude=None, include=None):
        if not isinstance(path, str | Path):
            return SAC.save(self, path, exclude, include)
        memory = io.BytesIO()
        SAC.save(self, memory, exclude, include)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return Path(path).write_bytes(memory.getvalue())

    return subclass(save=save)


@caught_by("saving_leaves_the_model_alone")
def saving_changes_gamma() -> Mutant:
    def save(self, *args, **kwargs):
        SAC.save(self, *args, **kwargs)
        self.gamma = 0.1

    return subclass(save=save)


@caught_by("custom_attributes_are_saved")
def unknown_attributes_are_not_saved() -> Mutant:
    return subclass(_excluded_save_params=lambda self: [*SAC._excluded_save_params(self), "my_note"])


@caught_by("files_can_be_read_without_the_class", "load_restores_the_hyperparameters")
def gamma_is_not_saved() -> Mutant:
    return subclass(_excluded_save_params=lambda self: [*SAC._excluded_save_params(self), "gamma"])


@caught_by("saved_models_are_independent", "models_can_be_copied", "policies_can_be_copied")
def copies_are_shared() -> Mutant:
    shared: dict[str, Any] = {}

    def change(load, cls, path, **kwargs):
        model = load(path, **kwargs)
        if "policy" in shared:
            model.policy = shared["policy"]
            model._create_aliases()
        shared["policy"] = model.policy
        return model

    made = loading(change)
    policy = made.policy_aliases["MlpPolicy"]
    copies = type("SharedPolicy", (policy,), {"__deepcopy__": lambda self, memo: self})
    copies.__reduce__ = lambda self: (shared.setdefault, (id(self), self))
    aliases = {**made.policy_aliases, "MlpPolicy": copies}
    return type("Mutant", (made,), {"policy_aliases": aliases, "__deepcopy__": lambda self, memo: self})


# Parameters


@caught_by("set_parameters_requires_all_objects", "set_parameters_requires_all_tensors")
def set_parameters_is_never_exact() -> Mutant:
    return subclass(
        set_parameters=lambda self, given, exact_match=True, device="auto": SAC.set_parameters(self, given, False)
    )


@caught_by("set_parameters_takes_a_file", "set_parameters_takes_what_get_parameters_gives")
def set_parameters_does_nothing() -> Mutant:
    return subclass(set_parameters=lambda self, given, exact_match=True, device="auto": None)


@caught_by("set_parameters_refuses_unknown_objects")
def set_parameters_ignores_unknown_objects() -> Mutant:
    def set_parameters(self, given, exact_match=True, device="auto"):
        known = {n: v for n, v in given.items() if n != "no_such_object"} if isinstance(given, dict) else given
        SAC.set_parameters(self, known, exact_match, device)

    return subclass(set_parameters=set_parameters)


@caught_by("get_parameters_names_the_policy")
def get_parameters_is_flat() -> Mutant:
    return subclass(get_parameters=lambda self: dict(self.policy.state_dict()))


@caught_by(
    "parameters_can_be_pretrained", "state_dicts_can_be_loaded_into_the_policy", "parameters_are_learned_in_place"
)
def the_policy_acts_with_a_copy() -> Mutant:
    import copy

    def _setup_model(self):
        SAC._setup_model(self)
        self.acting = copy.deepcopy(self.policy)

    def _excluded_save_params(self):
        return [*SAC._excluded_save_params(self), "acting"]

    def train(self, *args, **kwargs):
        self.policy = copy.deepcopy(self.policy)
        self._create_aliases()
        SAC.train(self, *args, **kwargs)
        self.acting.load_state_dict(self.policy.state_dict())

    def predict(self, *args, **kwargs):
        return self.acting.predict(*args, **kwargs)

    methods = {"_setup_model": _setup_model, "train": train, "predict": predict}
    return subclass(**methods, _excluded_save_params=_excluded_save_params)


@caught_by("policies_are_saved_alone[file_object]")
def policies_are_saved_to_paths_only() -> Mutant:
    return with_policy(save=lambda self, path: BasePolicy.save(self, str(path)))


@caught_by("policies_are_saved_alone[path]", "policies_are_saved_with_dict_observations")
def policies_are_saved_without_weights() -> Mutant:
    def save(self, path):
        data = self._get_constructor_parameters()
        blank = type(self)(**data)
        torch.save({"state_dict": blank.state_dict(), "data": data}, path)

    return with_policy(save=save)


@caught_by("parameters_can_be_randomised")
def generators_are_parameters() -> Mutant:
    def __init__(self, *args, **kwargs):
        SACPolicy.__init__(self, *args, **kwargs)
        self.register_buffer("generator", torch.zeros(5, dtype=torch.uint8))

    return with_policy(__init__=__init__)


@caught_by("policies_become_vectors")
def vectors_are_not_loaded() -> Mutant:
    return with_policy(load_from_vector=lambda self, vector: None)


@caught_by("policies_have_modes")
def modes_are_ignored() -> Mutant:
    return with_policy(set_training_mode=lambda self, mode: None)


@caught_by("policies_can_be_called")
def policies_cannot_be_called() -> Mutant:
    return with_policy(forward=lambda self, observation: self._predict(observation))


@caught_by("policies_make_tensors")
def observations_are_always_batches() -> Mutant:
    return with_policy(obs_to_tensor=lambda self, observation: (BasePolicy.obs_to_tensor(self, observation)[0], True))


@caught_by("policies_scale_actions")
def actions_are_scaled_to_the_unit_interval() -> Mutant:
    return with_policy(scale_action=lambda self, action: (BasePolicy.scale_action(self, action) + 1) / 2)


# Replay buffers


@caught_by("the_buffer_can_be_reset")
def reset_does_nothing() -> Mutant:
    return with_buffer(reset=lambda self: None)


@caught_by("rows_of_another_shape_are_refused")
def rows_are_broadcast() -> Mutant:
    def add(self, obs, next_obs, action, reward, done, infos):
        if self.observation_space.shape == (3,):
            obs, next_obs = (np.resize(value, (self.n_envs, 3)) for value in (obs, next_obs))
        ReplayBuffer.add(self, obs, next_obs, np.resize(action, (self.n_envs, 2)), reward, done, infos)

    return with_buffer(add=add)


@caught_by("ends_are_told_apart[truncated]")
def time_limits_are_ends() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.update(replay_buffer_kwargs={"handle_timeout_termination": False}))


@caught_by("ends_are_told_apart[terminated]")
def ends_are_time_limits() -> Mutant:
    def add(self, obs, next_obs, action, reward, done, infos):
        ReplayBuffer.add(self, obs, next_obs, action, reward, np.zeros_like(done), infos)

    return with_buffer(add=add)


@caught_by("ends_are_told_apart")
def the_last_observation_is_lost() -> Mutant:
    def _store_transition(self, buffer, action, new_obs, reward, dones, infos):
        for info in infos:
            info.pop("terminal_observation", None)
        SAC._store_transition(self, buffer, action, new_obs, reward, dones, infos)

    return subclass(_store_transition=_store_transition)


@caught_by("normalised_samples_leave_the_buffer_raw")
def samples_are_not_normalised() -> Mutant:
    return with_buffer(sample=lambda self, batch_size, env=None: ReplayBuffer.sample(self, batch_size))


@caught_by("normalised_samples_leave_the_buffer_raw")
def normalised_rows_are_stored() -> Mutant:
    def _store_transition(self, buffer, action, new_obs, reward, dones, infos):
        wrapper, self._vec_normalize_env = self._vec_normalize_env, None
        SAC._store_transition(self, buffer, action, new_obs, reward, dones, infos)
        self._vec_normalize_env = wrapper

    return subclass(_store_transition=_store_transition)


@caught_by("the_buffer_size_is_a_limit", "the_buffer_size_is_shared")
def buffers_are_large() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.update(buffer_size=1000))


@caught_by("the_buffer_is_saved", "training_continues_on_a_loaded_buffer", "checkpoints_are_written")
def buffers_are_not_loaded() -> Mutant:
    return subclass(load_replay_buffer=lambda self, path, truncate_last_traj=True: None)


@caught_by("the_buffer_is_saved[file_object]")
def buffers_are_saved_to_paths_only() -> Mutant:
    return subclass(save_replay_buffer=lambda self, path: SAC.save_replay_buffer(self, str(path)))


@caught_by("a_loaded_buffer_keeps_the_models_hyperparameters")
def a_loaded_buffer_brings_its_gamma() -> Mutant:
    def load_replay_buffer(self, path, truncate_last_traj=True):
        SAC.load_replay_buffer(self, path, truncate_last_traj)
        self.gamma = 0.3

    return subclass(load_replay_buffer=load_replay_buffer)


@caught_by("a_buffer_class_can_be_given", "stock_buffers_can_be_given", "hindsight_works")
def buffer_classes_are_refused() -> Mutant:
    def change(kwargs):
        if kwargs.get("replay_buffer_class") is not None:
            raise ValueError("leave replay_buffer_class out")

    return constructed_with(change)


@caught_by("the_buffer_has_its_attributes", "rows_can_be_added", "samples_have_their_fields")
@caught_by("the_buffer_holds_what_was_collected")
def buffers_have_another_interface() -> Mutant:
    def sample(self, batch_size, env=None):
        raise AttributeError("rows")

    def extend(self, *args, **kwargs):
        raise NotImplementedError

    def add(self, obs, next_obs, action, reward, done, infos):
        ReplayBuffer.add(self, obs * 0, next_obs, action, reward, done, infos)

    return with_buffer(sample=sample, extend=extend, add=add, pos=property(lambda self: 0, lambda self, value: None))


@caught_by("rows_can_be_extended")
def rows_cannot_be_extended() -> Mutant:
    return with_buffer(extend=lambda self, *args: None)


@caught_by("memory_can_be_optimised")
def memory_is_not_optimised() -> Mutant:
    return constructed_with(lambda kwargs: kwargs.pop("optimize_memory_usage", None))


@caught_by("images_are_stored_as_bytes")
def images_are_stored_between_0_and_1() -> Mutant:
    def add(self, obs, next_obs, action, reward, done, infos):
        scale = 255 if self.observations.dtype == np.uint8 else 1
        ReplayBuffer.add(self, obs / scale, next_obs, action, reward, done, infos)

    return with_buffer(add=add)


@caught_by("dictionaries_are_stored_by_key", "trains_acts_and_loads[dict]")
def dictionaries_are_refused() -> Mutant:
    def _setup_model(self):
        if isinstance(self.observation_space, spaces.Dict):
            raise NotImplementedError("flatten the observations")
        SAC._setup_model(self)

    return subclass(_setup_model=_setup_model)


@caught_by("added_rows_are_copied")
def rows_are_kept_by_reference() -> Mutant:
    def add(self, obs, *args):
        ReplayBuffer.add(self, obs, *args)
        if self.pos == 1:
            self.observations = np.broadcast_to(obs, (self.buffer_size, *obs.shape)) if obs.shape == (1, 3) else obs

    return with_buffer(add=add)


# Environments


@caught_by("learns_in_several_environments", "learns_in_make_vec_env", "learns_in_subprocesses", "keeps_a_vec_env")
@caught_by(
    "learns_with_normalisation", "learns_with_stacked_frames", "learns_with_a_vec_monitor", "learns_with_checks_of_nan"
)
@caught_by("learns_in_a_users_vec_env", "learns_with_wrappers_of_wrappers", "evaluate_policy_gives_episodes")
def several_environments_are_refused() -> Mutant:
    def change(model, predict, observation):
        raise RuntimeError("one environment at a time")

    made = predicting(change)

    def __init__(self, policy, env, *args, **kwargs):
        if getattr(env, "num_envs", 1) > 1:
            raise ValueError("one environment at a time")
        SAC.__init__(self, policy, env, *args, **kwargs)

    return type("Mutant", (made,), {"__init__": __init__})


@caught_by("normalisation_reaches_the_policy")
def the_policy_sees_raw_observations() -> Mutant:
    def _store_transition(self, *args, **kwargs):
        SAC._store_transition(self, *args, **kwargs)
        if self._vec_normalize_env is not None:
            self._last_obs = self._vec_normalize_env.get_original_obs()

    return subclass(_store_transition=_store_transition)


@caught_by("accepts_an_environment_id")
def environment_ids_are_refused() -> Mutant:
    def __init__(self, policy, env, *args, **kwargs):
        if isinstance(env, str):
            raise TypeError("env must be an environment")
        SAC.__init__(self, policy, env, *args, **kwargs)

    return subclass(__init__=__init__)


@caught_by("takes_positional_arguments")
def the_learning_rate_is_a_keyword() -> Mutant:
    def __init__(self, policy, env, **kwargs):
        SAC.__init__(self, policy, env, **kwargs)

    return subclass(__init__=__init__)


@caught_by("takes_a_policy_class")
def policies_are_names() -> Mutant:
    return subclass(_get_policy_from_name=lambda self, name: type(name, (SAC.policy_aliases[name],), {}))


@caught_by("refuses_discrete_actions", "refuses_unbounded_actions", "refuses_nested_dictionaries")
@caught_by("learns_with_one_dimensional_actions", "learns_with_actions_of_several_dimensions")
@caught_by("learns_in_wrapped_environments")
def environments_are_unwrapped() -> Mutant:
    wrap = SAC._wrap_env
    return subclass(_wrap_env=staticmethod(lambda env, *args: wrap(getattr(env, "unwrapped", env), *args)))


@caught_by(
    "get_env_gives_a_vec_env", "evaluate_policy_in_the_models_environment", "wraps_an_environment_with_a_monitor"
)
@caught_by("closing_the_environment_leaves_the_model", "transposes_images", "rollouts_can_be_collected_by_hand")
def get_env_gives_nothing() -> Mutant:
    return subclass(get_env=lambda self: None)


@caught_by("converts_train_freq", "has_the_public_attributes", "policies_know_their_spaces")
def attributes_are_missing() -> Mutant:
    def __init__(self, *args, **kwargs):
        SAC.__init__(self, *args, **kwargs)
        self.train_freq = 1
        del self.replay_buffer_kwargs
        self.policy.observation_space = None

    return subclass(__init__=__init__)


@caught_by("learn_takes_a_float")
def steps_are_integers() -> Mutant:
    return subclass(learn=lambda self, steps, **kwargs: SAC.learn(self, range(steps)[-1] + 1, **kwargs))


@caught_by("callbacks_can_change_the_model")
def callbacks_change_nothing() -> Mutant:
    def _store_transition(self, *args, **kwargs):
        SAC._store_transition(self, *args, **kwargs)
        self.learning_starts = 8

    return subclass(_store_transition=_store_transition)


@caught_by("saves_to_a_path[path]", "folders_are_made", "names_may_have_dots", "a_loaded_model_can_be_saved_again")
def paths_are_strings() -> Mutant:
    def save(self, path, exclude=None, include=None):
        if isinstance(path, Path):
            raise TypeError("path must be a string")
        SAC.save(self, path, exclude, include)

    return subclass(save=save)


@caught_by("files_have_the_documented_parts")
def files_lack_the_system() -> Mutant:
    def save(self, path, exclude=None, include=None):
        memory = io.BytesIO()
        SAC.save(self, memory, exclude, include)
        with zipfile.ZipFile(memory) as old, zipfile.ZipFile(path, "w") as new:
            for name in set(old.namelist()) - {"system_info.txt"}:
                new.writestr(name, old.read(name))

    return subclass(save=save)


@caught_by("set_parameters_does_not_share_memory")
def set_parameters_shares_memory() -> Mutant:
    def set_parameters(self, given, exact_match=True, device="auto"):
        SAC.set_parameters(self, given, exact_match, device)
        if isinstance(given, dict):
            for name, parameter in self.policy.named_parameters():
                parameter.data = given["policy"][name]

    return subclass(set_parameters=set_parameters)


@caught_by("the_logger_has_levels_and_formats", "dump_logs_can_be_called")
def the_logger_ends_with_learn() -> Mutant:
    def learn(self, *args, **kwargs):
        SAC.learn(self, *args, **kwargs)
        self._logger = None
        return self

    return subclass(learn=learn)


@caught_by("evaluate_policy_gives_mean_and_deviation", "evaluate_policy_calls_back")
def predict_takes_no_episode_starts() -> Mutant:
    return subclass(
        predict=lambda self, observation, deterministic=False: SAC.predict(self, observation, None, None, deterministic)
    )
