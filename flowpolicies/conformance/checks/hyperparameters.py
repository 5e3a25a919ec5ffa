"""Hyperparameters that change after construction, and schedules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from flowpolicies.conformance.case import (
    STEPS,
    Case,
    NotApplicable,
    Trace,
    best_actions,
    differing,
    optimizers,
    same_weights,
    targets,
    uses,
)


def _same_as_constructed(case: Case, name: str, value: float, make: Callable[[], OffPolicyAlgorithm]) -> None:
    """Whether a model with an assigned value learns what a model constructed with it learns."""
    if not uses(case, name, value):
        raise NotApplicable(f"The class does not use {name}.")
    given: dict[str, Any] = {name: value}
    plain, constructed, assigned = case.trained(), case.trained(**given), make().learn(STEPS)
    assert getattr(assigned, name) == value, f"{name} is {getattr(assigned, name)}"
    assert not same_weights(plain, assigned), f"{name} = {value} has no effect"
    assert same_weights(constructed, assigned, 1e-5), f"{name} = {value} has another effect than in the constructor"


def _assigned(case: Case, name: str, value: float) -> OffPolicyAlgorithm:
    model = case.model()
    setattr(model, name, value)
    return model


def assigned_gamma_takes_effect(case: Case) -> None:
    """`model.gamma = 0.5` before `learn` is the same as giving it to the constructor."""
    _same_as_constructed(case, "gamma", 0.5, lambda: _assigned(case, "gamma", 0.5))


def assigned_tau_takes_effect(case: Case) -> None:
    """`model.tau = 0.5` before `learn` is the same as giving it to the constructor."""
    _same_as_constructed(case, "tau", 0.5, lambda: _assigned(case, "tau", 0.5))


def assigned_batch_size_takes_effect(case: Case) -> None:
    """`model.batch_size = 4` before `learn` is the same as giving it to the constructor."""
    _same_as_constructed(case, "batch_size", 4, lambda: _assigned(case, "batch_size", 4))


def assigned_gradient_steps_take_effect(case: Case) -> None:
    """`model.gradient_steps = 2` before `learn` is the same as giving it to the constructor."""
    _same_as_constructed(case, "gradient_steps", 2, lambda: _assigned(case, "gradient_steps", 2))


def assigned_learning_starts_take_effect(case: Case) -> None:
    """`model.learning_starts = 12` before `learn` is the same as giving it to the constructor."""
    _same_as_constructed(case, "learning_starts", 12, lambda: _assigned(case, "learning_starts", 12))


def assigned_train_freq_takes_effect(case: Case) -> None:
    """A TrainFreq that is assigned to `model.train_freq` is obeyed."""
    model = case.model()
    model.train_freq = TrainFreq(4, TrainFrequencyUnit.STEP)  # type: ignore[assignment]
    found = model.learn(STEPS)._n_updates
    assert found == 2, f"{found} updates, expected 2 (after steps 12 and 16)"


def assigned_learning_rate_takes_effect(case: Case) -> None:
    """`model.learning_rate = ...` followed by `model._setup_lr_schedule()` changes the optimisers' rate."""
    model = case.model()
    model.learning_rate = 0.0123
    model._setup_lr_schedule()
    model.learn(STEPS)
    rates = _rates(model)
    assert 0.0123 in rates, f"the optimisers' learning rates are {rates}"


def assigned_lr_schedule_takes_effect(case: Case) -> None:
    """A function that is assigned to `model.lr_schedule` is obeyed."""
    model = case.model()
    model.lr_schedule = lambda progress: 0.0123
    rates = _rates(model.learn(STEPS))
    assert 0.0123 in rates, f"the optimisers' learning rates are {rates}"


def _rates(model: OffPolicyAlgorithm) -> set[float]:
    """Learning rates of all optimisers, rounded."""
    return {round(float(group["lr"]), 8) for optimizer in optimizers(model) for group in optimizer.param_groups}


def gamma_during_training_takes_effect(case: Case) -> None:
    """A callback may change `model.gamma` while the model learns."""

    def change(trace: Trace) -> None:
        trace.model.gamma = 0.1  # type: ignore[attr-defined]

    if not uses(case, "gamma", 0.1):
        raise NotApplicable("The class does not use gamma.")
    changed = case.model().learn(STEPS, callback=Trace(look=change))
    assert not same_weights(case.trained(), changed), "gamma has no effect during learn"


def a_learning_rate_of_zero_freezes_the_policy(case: Case) -> None:
    """`learning_rate=0.0` is accepted, and leaves the policy's actions as they were."""
    model = case.model(learning_rate=0.0)
    before = best_actions(model)
    changed = abs(best_actions(model.learn(STEPS)) - before).max()
    assert changed < 1e-6, f"actions changed by {changed}"


def a_tau_of_zero_freezes_the_targets(case: Case) -> None:
    """`tau=0.0` is accepted, and leaves the target networks as they were."""
    model = case.model(tau=0.0)
    before = targets(model)
    moved = differing(before, targets(model.learn(STEPS)))
    assert not moved, f"{moved[:3]} moved"


def tau_moves_the_targets(case: Case) -> None:
    """The target networks follow the online ones at the rate `tau`."""
    model = case.model(tau=0.5)
    before = targets(model)
    assert differing(before, targets(model.learn(STEPS))), "no target network moved"


def a_tau_of_one_is_accepted(case: Case) -> None:
    """`tau=1.0`, which copies the networks at each update, is accepted."""
    model = case.trained(tau=1.0)
    assert model.tau == 1.0, f"tau is {model.tau}"


def learning_rates_are_obeyed(case: Case) -> None:
    """A constant learning rate is the rate of an optimiser, and changes what is learned."""
    model = case.trained(learning_rate=0.0123)
    assert 0.0123 in _rates(model), f"the optimisers' learning rates are {_rates(model)}"
    assert not same_weights(model, case.trained()), "another learning rate gave the same weights"


def schedules_get_the_remaining_progress(case: Case) -> None:
    """A learning rate may be a function of the remaining progress, which falls from 1 to 0 within `learn`."""
    seen: list[float] = []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return 1e-3 * progress

    model = case.model(learning_rate=schedule, learning_starts=0)
    seen.clear()
    model.learn(10)
    assert seen, "the schedule was not called"
    assert max(seen) <= 1 and abs(min(seen)) < 1e-9, f"progress ran from {max(seen)} to {min(seen)}"  # noqa: PT018
    assert sorted(seen, reverse=True) == seen, f"progress was {seen}"


def schedules_reach_the_optimisers(case: Case) -> None:
    """The optimisers' learning rate is the schedule's, at the progress of the last update."""
    rates = _rates(case.model(learning_rate=lambda progress: 1e-3 + 1e-3 * progress).learn(10))
    assert 1e-3 in rates, f"the rates after the last update are {rates}, expected 0.001"


def schedules_continue_over_several_calls(case: Case) -> None:
    """With `reset_num_timesteps=False` the progress is that of all steps so far and to come; otherwise it starts
    again."""
    model = case.model(learning_starts=0).learn(10)
    trace = Trace(look=lambda c: c.model._current_progress_remaining)
    model.learn(10, callback=trace, reset_num_timesteps=False)
    assert abs(trace.seen[1] - 0.45) < 1e-6, f"after 11 of 20 steps, {trace.seen[1]} remains, expected 0.45"
    again = Trace(look=lambda c: c.model._current_progress_remaining)
    model.learn(10, callback=again)
    assert abs(again.seen[1] - 0.9) < 1e-6, f"after 1 of 10 steps, {again.seen[1]} remains, expected 0.9"


def schedules_are_saved(case: Case) -> None:
    """A schedule, also a lambda, is saved with the model and obeyed by the loaded one; `load` may need `trust=True`."""
    model = case.trained(learning_rate=lambda progress: 0.5 * progress)
    model.save(case.folder / "model")
    # A lambda is code: a class may want to be told that the file is trusted.
    trusted: dict[str, Any] = {"trust": True} if "trust" in inspect.signature(case.cls.load).parameters else {}
    loaded = case.load(case.folder / "model", **trusted)
    assert loaded.lr_schedule(0.5) == 0.25, f"the loaded schedule gives {loaded.lr_schedule(0.5)}, expected 0.25"


def linear_schedules_are_accepted(case: Case) -> None:
    """Stable-Baselines3's LinearSchedule is accepted as learning rate."""
    try:
        from stable_baselines3.common.utils import LinearSchedule
    except ImportError:
        raise NotApplicable("This version of Stable-Baselines3 has no LinearSchedule.") from None
    rates = _rates(case.model(learning_rate=LinearSchedule(1e-2, 1e-3, 1.0)).learn(10))
    assert 1e-3 in rates, f"the rates after the last update are {rates}, expected 0.001"
