"""Evaluation: evaluate_policy and EvalCallback."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from stable_baselines3.common.callbacks import (
    EvalCallback,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from flowpolicies.conformance.case import STEPS, Case, Trace, best_actions, weights
from flowpolicies.conformance.case import differing as differing


def _eval(case: Case, **options: Any) -> EvalCallback:
    return EvalCallback(Monitor(case.env()), **{"eval_freq": 5, "n_eval_episodes": 2, "verbose": 0, **options})


def evaluate_policy_gives_mean_and_deviation(case: Case) -> None:
    """`evaluate_policy` gives the mean and the standard deviation of the returns."""
    mean, std = evaluate_policy(case.model(), Monitor(case.env()), n_eval_episodes=3)
    assert -40 < float(np.mean(mean)) < 0, f"the mean return is {mean}"
    assert float(np.mean(std)) >= 0, f"the deviation is {std}"


def evaluate_policy_gives_episodes(case: Case) -> None:
    """`evaluate_policy(..., return_episode_rewards=True)` gives returns and lengths, also of several environments."""
    found: Any = evaluate_policy(case.model(), VecMonitor(case.vec(2)), n_eval_episodes=3, return_episode_rewards=True)
    assert [len(part) for part in found] == [3, 3], f"{[len(part) for part in found]} returns and lengths"
    assert found[1] == [10, 10, 10], f"the lengths are {found[1]}"


def evaluate_policy_calls_back(case: Case) -> None:
    """The callback of `evaluate_policy` is called at each step with the locals."""
    steps: list[Any] = []
    collect = lambda locals_, globals_: steps.append(locals_["reward"])  # noqa: E731
    evaluate_policy(case.model(), Monitor(case.env()), n_eval_episodes=2, callback=collect)
    assert len(steps) == 20, f"called {len(steps)} times in two episodes of 10 steps"


def evaluate_policy_in_the_models_environment(case: Case) -> None:
    """`evaluate_policy(model, model.get_env())` works before and after training."""
    model = case.model()
    env = model.get_env()
    assert env is not None
    for _ in range(2):
        evaluate_policy(model, env, n_eval_episodes=1)
        model.learn(STEPS)
    assert model.num_timesteps == STEPS, f"num_timesteps is {model.num_timesteps}"


def evaluate_policy_leaves_the_model_alone(case: Case) -> None:
    """Evaluation changes neither weights nor counters nor the replay buffer."""
    model = case.trained()
    before, steps = weights(model), model.num_timesteps
    evaluate_policy(model, Monitor(case.env()), n_eval_episodes=2)
    assert not differing(before, weights(model)), "weights changed"
    assert model.num_timesteps == steps, f"num_timesteps went from {steps} to {model.num_timesteps}"
    assert model.replay_buffer is not None
    assert model.replay_buffer.size() == STEPS, f"the buffer has {model.replay_buffer.size()} rows"


def deterministic_evaluation_repeats(case: Case) -> None:
    """Deterministic evaluation of the same seeded episodes gives the same returns."""
    model, returns = case.trained(), []
    for _ in range(2):
        env = VecMonitor(case.vec(1))
        env.seed(3)
        returns.append(evaluate_policy(model, env, n_eval_episodes=2, deterministic=True, return_episode_rewards=True))
    assert returns[0] == returns[1], f"the returns were {returns[0][0]} and {returns[1][0]}"


def eval_callback_writes_its_results(case: Case) -> None:
    """EvalCallback writes `evaluations.npz` with steps, returns and lengths."""
    case.model().learn(10, callback=_eval(case, log_path=str(case.folder)))
    found = np.load(case.folder / "evaluations.npz")
    assert found["timesteps"].tolist() == [5, 10], f"the steps are {found['timesteps'].tolist()}"
    assert found["results"].shape == found["ep_lengths"].shape == (2, 2), f"the returns are {found['results'].shape}"


def eval_callback_saves_the_best_model(case: Case) -> None:
    """EvalCallback saves `best_model.zip`, which loads and acts like the model at that step."""
    actions: dict[int, np.ndarray] = {}
    look = Trace(look=lambda c: actions.update({c.num_timesteps: best_actions(cast(OffPolicyAlgorithm, c.model))}))
    callback = _eval(case, best_model_save_path=str(case.folder), eval_freq=100)
    callback.eval_freq = 12
    case.model().learn(STEPS, callback=[look, callback])
    best = case.load(case.folder / "best_model.zip")
    assert best.num_timesteps == 12, f"the best model has num_timesteps {best.num_timesteps}, expected 12"
    np.testing.assert_allclose(best_actions(best), actions[12], atol=1e-6, err_msg="the best model acts differently")


def eval_callback_logs(case: Case) -> None:
    """EvalCallback logs `eval/mean_reward` and `eval/mean_ep_length`, and the success rate if there is one."""
    from stable_baselines3.common.logger import configure

    model = case.model()
    model.set_logger(configure(str(case.folder), ["csv"]))
    model.learn(5, callback=EvalCallback(Monitor(case.env(success=True)), eval_freq=5, n_eval_episodes=1, verbose=0))
    header = (case.folder / "progress.csv").read_text().splitlines()[0].split(",")
    for name in ("eval/mean_reward", "eval/mean_ep_length", "eval/success_rate", "time/total_timesteps"):
        assert name in header, f"{name} is not in {header}"


def eval_callback_synchronises_normalisation(case: Case) -> None:
    """EvalCallback copies VecNormalize's statistics from the training environment to the evaluation environment, and
    evaluation does not change them."""
    env, other = VecNormalize(case.vec(1)), VecNormalize(VecMonitor(case.vec(1)), training=False, norm_reward=False)
    case.model(env).learn(10, callback=EvalCallback(other, eval_freq=10, n_eval_episodes=1, verbose=0))
    counts: list[Any] = [cast(Any, one.obs_rms).count for one in (env, other)]
    assert counts[0] == counts[1], "the statistics were not copied"
    assert abs(counts[0] - 11) < 1, f"{counts[0]} observations in 10 steps"


def reward_thresholds_stop(case: Case) -> None:
    """StopTrainingOnRewardThreshold stops the training when an evaluation is good enough."""
    stop = StopTrainingOnRewardThreshold(-1000.0)
    model = case.model().learn(100, callback=_eval(case, callback_on_new_best=stop))
    assert model.num_timesteps == 5, f"num_timesteps is {model.num_timesteps}"


def missing_improvement_stops(case: Case) -> None:
    """StopTrainingOnNoModelImprovement stops the training when evaluations do not get better."""
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1)
    callback = _eval(case, callback_after_eval=stop, eval_freq=2)
    env = VecMonitor(case.vec(1))
    callback.eval_env = env
    model = case.model(learning_starts=1000, seed=0)

    def same_episodes(trace: Trace) -> None:
        env.seed(1)

    model.learn(100, callback=[Trace(look=same_episodes), callback])
    assert model.num_timesteps < 20, f"num_timesteps is {model.num_timesteps} although nothing was learned"


def evaluation_during_training_keeps_the_collection(case: Case) -> None:
    """EvalCallback leaves the training environment alone: all its steps and no others are in the buffer."""
    model = case.model()
    model.learn(STEPS, callback=_eval(case))
    assert model.num_timesteps == STEPS, f"num_timesteps is {model.num_timesteps}"
    assert model.replay_buffer is not None
    assert model.replay_buffer.size() == STEPS, f"the buffer has {model.replay_buffer.size()} rows"
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) == 1, f"{len(model.ep_info_buffer)} episodes of the training environment"
