"""Callbacks."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from flowpolicies.conformance.case import STEPS, Case, Trace, need_package, without


def callbacks_are_called_in_order(case: Case) -> None:
    """A callback sees the start of training, then rollouts of steps, then the end of training."""
    trace = Trace()
    case.model(train_freq=2).learn(4, callback=trace)
    rollout = ["rollout_start", "step", "step", "rollout_end"]
    expected = ["training_start", *rollout, *rollout, "training_end"]
    assert trace.events == expected, f"the order was {trace.events}"


def callbacks_see_the_locals_of_a_step(case: Case) -> None:
    """In `_on_step`, `self.locals` has the variables of the collection loop that Stable-Baselines3's guides use."""
    names = "self env callback replay_buffer actions buffer_actions new_obs rewards dones infos num_collected_steps"
    trace = Trace(look=lambda c: set(c.locals))
    case.model().learn(2, callback=trace)
    missing = without(names.split(), trace.seen[0])
    assert not missing, f"missing in self.locals: {missing}"


def callbacks_see_the_arguments_of_learn(case: Case) -> None:
    """In `_on_training_start`, `self.locals` has the arguments of `learn`."""
    trace = Trace()
    case.model().learn(2, callback=trace, tb_log_name="mine")
    found = {name: trace.first_locals.get(name) for name in ("total_timesteps", "tb_log_name")}
    assert found == {"total_timesteps": 2, "tb_log_name": "mine"}, f"self.locals has {found}"


def callbacks_have_their_attributes(case: Case) -> None:
    """A callback has `model`, `training_env`, `logger`, `num_timesteps` and `n_calls`."""

    def look(trace: Trace) -> tuple[Any, ...]:
        return trace.model, trace.training_env, trace.logger, trace.num_timesteps, trace.n_calls

    model, trace = case.model(), Trace(look=look)
    model.learn(3, callback=trace)
    seen, env, logger, steps, calls = trace.seen[-1]
    assert seen is model, "self.model is another object"
    assert isinstance(env, VecEnv) and env is model.get_env(), "self.training_env is not the model's"  # noqa: PT018
    assert isinstance(logger, Logger), f"self.logger is a {type(logger).__name__}"
    assert (steps, calls) == (3, 3), f"num_timesteps is {steps} and n_calls {calls} at the third step"


def callbacks_count_steps_of_all_environments(case: Case) -> None:
    """With two environments, `num_timesteps` grows by two from call to call."""
    trace = Trace(look=lambda c: (c.n_calls, c.num_timesteps))
    case.model(case.vec(2)).learn(6, callback=trace)
    assert trace.seen == [(1, 2), (2, 4), (3, 6)], f"(n_calls, num_timesteps) were {trace.seen}"


def callbacks_stop_the_training(case: Case) -> None:
    """Training stops at the step at which `_on_step` returns False, and `_on_training_end` is called."""
    trace, model = Trace(stop_at=3), case.model()
    model.learn(50, callback=trace)
    assert model.num_timesteps == 3, f"num_timesteps is {model.num_timesteps}"
    assert trace.events[-1] == "training_end", f"the last event was {trace.events[-1]}"


def functions_are_callbacks(case: Case) -> None:
    """A function of locals and globals is a callback, and stops the training when it returns False."""
    seen: list[dict[str, Any]] = []

    def callback(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        seen.append(locals_)
        return len(seen) < 4

    model = case.model().learn(50, callback=callback)
    assert model.num_timesteps == 4, f"num_timesteps is {model.num_timesteps}"
    assert "rewards" in seen[0], "the locals have no rewards"


def lists_are_callbacks(case: Case) -> None:
    """A list of callbacks is a callback; each is called, and any of them can stop the training."""
    first, second = Trace(), Trace(stop_at=5)
    case.model().learn(50, callback=[first, second])
    assert (first.n_calls, second.n_calls) == (5, 5), f"called {first.n_calls} and {second.n_calls} times"


def callback_lists_can_be_nested(case: Case) -> None:
    """A CallbackList may hold another one."""
    inner = Trace()
    case.model().learn(5, callback=CallbackList([Trace(), CallbackList([inner])]))
    assert inner.n_calls == 5, f"the inner callback was called {inner.n_calls} times"


def callbacks_reach_the_environments(case: Case) -> None:
    """A callback can call `training_env.env_method` and `get_attr`."""
    trace = Trace(look=lambda c: (c.training_env.get_attr("length"), len(c.training_env.env_method("observe"))))
    case.model(case.vec(2)).learn(4, callback=trace)
    assert trace.seen[0] == ([10, 10], 2), f"got {trace.seen[0]}"


def callbacks_see_rewards_and_ends(case: Case) -> None:
    """`self.locals["dones"]` and `["infos"]` report the ends of episodes, with the Monitor's return and length."""
    trace = Trace(look=lambda c: (bool(c.locals["dones"][0]), c.locals["infos"][0].get("episode")))
    case.model(case.env(length=4)).learn(8, callback=trace)
    assert [done for done, _ in trace.seen] == [False, False, False, True] * 2, f"dones were {trace.seen}"
    assert trace.seen[3][1]["l"] == 4, f"the Monitor's record is {trace.seen[3][1]}"


def callbacks_see_what_is_logged(case: Case) -> None:
    """In callbacks, `self.logger.name_to_value` has the training metrics of the last update."""
    trace = Trace(look=lambda c: [name for name in c.logger.name_to_value if name.startswith("train/")])
    case.model(case.env(length=100)).learn(STEPS, callback=trace)
    assert "train/learning_rate" in trace.seen[-1], f"after updates, name_to_value has {trace.seen[-1]}"
    assert any("loss" in name for name in trace.seen[-1]), f"no loss is in {trace.seen[-1]}"


def callbacks_can_log(case: Case) -> None:
    """What a callback records under a name of its own appears in the log."""
    from stable_baselines3.common.logger import configure

    model = case.model(case.env(length=5))
    model.set_logger(configure(str(case.folder), ["csv"]))
    model.learn(10, callback=Trace(look=lambda c: c.logger.record("mine/number", 42)), log_interval=1)
    assert "mine/number" in (case.folder / "progress.csv").read_text(), "mine/number is not in progress.csv"


def callbacks_can_save_the_model(case: Case) -> None:
    """A callback can save the model during training, and the file loads with the steps so far."""
    trace = Trace(look=lambda c: c.model.save(case.folder / f"at_{c.num_timesteps}"))
    case.model().learn(10, callback=trace)
    found = case.load(case.folder / "at_9.zip").num_timesteps
    assert found == 9, f"the model saved at step 9 has num_timesteps {found}"


def every_n_timesteps_triggers(case: Case) -> None:
    """EveryNTimesteps calls its callback every n steps."""
    inner = Trace(look=lambda c: c.num_timesteps)
    case.model(case.vec(2)).learn(12, callback=EveryNTimesteps(4, inner))
    assert inner.seen == [4, 8, 12], f"it was called at {inner.seen}"


def log_every_n_timesteps_dumps(case: Case) -> None:
    """LogEveryNTimesteps dumps the log every n steps, independently of the episodes."""
    from stable_baselines3.common.logger import configure

    model = case.model(case.env(length=100))
    model.set_logger(configure(str(case.folder), ["csv"]))
    model.learn(15, callback=LogEveryNTimesteps(5))
    rows = len((case.folder / "progress.csv").read_text().splitlines()) - 1
    assert rows == 3, f"{rows} rows after 15 steps, expected 3"


def max_episodes_stops(case: Case) -> None:
    """StopTrainingOnMaxEpisodes stops after that many episodes of each environment."""
    model = case.model(case.vec(2, length=5)).learn(100, callback=StopTrainingOnMaxEpisodes(2))
    assert model.num_timesteps == 20, f"num_timesteps is {model.num_timesteps}, expected 20"


def progress_bars_are_shown(case: Case) -> None:
    """`learn(..., progress_bar=True)` and ProgressBarCallback work."""
    need_package("tqdm")
    need_package("rich")
    model = case.model().learn(4, progress_bar=True)
    model.learn(4, callback=ProgressBarCallback(), reset_num_timesteps=False)
    assert model.num_timesteps == 8, f"num_timesteps is {model.num_timesteps}"


def checkpoints_are_written(case: Case) -> None:
    """CheckpointCallback writes the model, the replay buffer and the normaliser under its documented names, and a
    training run can continue from them."""
    env = VecNormalize(case.vec(1))
    saving = {"save_replay_buffer": True, "save_vecnormalize": True}
    callback = CheckpointCallback(10, str(case.folder), name_prefix="mine", **saving)
    case.model(env).learn(STEPS, callback=callback)
    found = sorted(path.name for path in case.folder.iterdir())
    expected = ["mine_10_steps.zip", "mine_replay_buffer_10_steps.pkl", "mine_vecnormalize_10_steps.pkl"]
    assert found == expected, f"the files are {found}"
    restored = VecNormalize.load(str(case.folder / expected[2]), case.vec(1))
    model = case.load(case.folder / expected[0], restored)
    model.load_replay_buffer(case.folder / expected[1])
    model.learn(6, reset_num_timesteps=False)
    assert model.num_timesteps == 16, f"num_timesteps is {model.num_timesteps}"
    assert model.replay_buffer is not None
    assert model.replay_buffer.size() in (15, 16), f"the buffer has {model.replay_buffer.size()} rows"


def checkpoints_count_calls(case: Case) -> None:
    """`save_freq` of CheckpointCallback counts calls, so that two environments save at twice the step."""
    case.model(case.vec(2)).learn(12, callback=CheckpointCallback(3, str(case.folder)))
    found = sorted(path.name for path in case.folder.iterdir())
    assert found == ["rl_model_12_steps.zip", "rl_model_6_steps.zip"], f"the files are {found}"


def callbacks_can_change_the_model(case: Case) -> None:
    """A callback can replace an attribute of the model, such as `learning_starts`, and the change is obeyed."""

    class Later(BaseCallback):
        model: OffPolicyAlgorithm

        def _on_step(self) -> bool:
            self.model.learning_starts = 100
            return True

    found = case.model().learn(STEPS, callback=Later())._n_updates
    assert found == 0, f"{found} updates although learning_starts was set to 100"


def callbacks_can_be_used_again(case: Case) -> None:
    """The same callback may be passed to a second call of `learn`."""
    trace, model = Trace(), case.model()
    model.learn(3, callback=trace).learn(3, callback=trace, reset_num_timesteps=False)
    assert trace.n_calls == 6, f"n_calls is {trace.n_calls}"
    assert trace.num_timesteps == 6, f"num_timesteps is {trace.num_timesteps}"


def train_env_sees_no_evaluation(case: Case) -> None:
    """Calling `predict` in a callback neither disturbs the collection nor counts as steps."""
    trace = Trace(look=lambda c: c.model.predict(c.locals["new_obs"], deterministic=True)[0])
    model = case.model()
    model.learn(STEPS, callback=trace)
    assert model.num_timesteps == STEPS, f"num_timesteps is {model.num_timesteps}"
    assert model.replay_buffer is not None
    assert model.replay_buffer.size() == STEPS, f"the buffer has {model.replay_buffer.size()} rows"
