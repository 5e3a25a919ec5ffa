"""Parameters and the policy object."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.conformance.case import (
    STEPS,
    Case,
    best_actions,
    optimizers,
    raises,
    same_weights,
    some_observations,
    weights,
)
from flowpolicies.conformance.promises import over


def _given(model: OffPolicyAlgorithm) -> Any:
    """The parameters; Stable-Baselines3's annotations do not agree on their type."""
    return model.get_parameters()


def get_parameters_names_the_policy(case: Case) -> None:
    """`get_parameters()` maps names of objects to state dicts; "policy" is one of them."""
    found = case.model().get_parameters()
    assert "policy" in found, f"the names are {sorted(found)}"
    assert all(isinstance(value, torch.Tensor) for value in found["policy"].values()), "they are not all tensors"


def set_parameters_takes_what_get_parameters_gives(case: Case) -> None:
    """`set_parameters(get_parameters())` makes another model act the same."""
    a, b = case.trained(), case.model(seed=5)
    assert not same_weights(a, b), "the models are equal before"
    b.set_parameters(_given(a))
    assert same_weights(a, b), "the weights differ"
    np.testing.assert_allclose(best_actions(a), best_actions(b), atol=1e-6)


def set_parameters_takes_a_file(case: Case) -> None:
    """`set_parameters(path)` reads the parameters from a saved model's file."""
    a, b = case.trained(), case.model(seed=5)
    a.save(case.folder / "model")
    b.set_parameters(str(case.folder / "model"))
    assert same_weights(a, b), "the weights differ"


def set_parameters_does_not_share_memory(case: Case) -> None:
    """Training a model after `set_parameters` leaves the model alone that the parameters came from."""
    a, b = case.trained(), case.model(seed=5)
    b.set_parameters(_given(a))
    before = weights(a)
    b.learn(STEPS)
    assert all(torch.equal(before[name], value) for name, value in weights(a).items()), "the source changed"


def set_parameters_requires_all_objects(case: Case) -> None:
    """A dictionary that lacks an object raises a ValueError, unless `exact_match=False`."""
    a, b = case.trained(), case.model(seed=5)
    part = {"policy": _given(a)["policy"]}
    if optimizers(a):
        raises((ValueError,), lambda: b.set_parameters(part))
    b.set_parameters(part, exact_match=False)
    assert same_weights(a, b), "the weights differ"


def set_parameters_requires_all_tensors(case: Case) -> None:
    """A state dict that lacks a tensor raises an error, unless `exact_match=False`."""
    model = case.model()
    given = _given(model)
    given["policy"] = dict(list(given["policy"].items())[1:])
    raises((RuntimeError, ValueError), lambda: model.set_parameters(given))
    model.set_parameters(given, exact_match=False)


def set_parameters_refuses_unknown_objects(case: Case) -> None:
    """An unknown name of an object raises a ValueError."""
    model = case.model()
    unknown: Any = {"no_such_object": {}}
    raises((ValueError,), lambda: model.set_parameters(unknown, exact_match=False))


def parameters_can_be_randomised(case: Case) -> None:
    """Every state dict but the optimisers' holds floating-point tensors, for which `set_parameters` takes others."""
    model = case.model()
    given = {name: state for name, state in _given(model).items() if "optim" not in name}
    found = {f"{name}.{key}": value for name, state in given.items() for key, value in state.items()}
    other = [key for key, value in found.items() if not value.is_floating_point()]
    assert not other, f"{other[:3]} are of another dtype"
    new = {name: {key: torch.rand_like(value) for key, value in state.items()} for name, state in given.items()}
    model.set_parameters(new, exact_match=False)  # type: ignore[arg-type]
    assert all(torch.equal(value, new["policy"][name]) for name, value in weights(model).items()), "they were not taken"


def parameters_can_be_pretrained(case: Case) -> None:
    """`model.policy.parameters()` can be changed in place, as hand-written pretraining does, and the actions follow."""
    model = case.model()
    before, trained = best_actions(model), list(model.policy.parameters())
    assert trained, "policy.parameters() is empty"
    assert any(parameter.requires_grad for parameter in trained), "no parameter requires a gradient"
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.3)
    assert np.abs(best_actions(model) - before).max() > 1e-3, "the actions did not change"


def parameters_are_learned_in_place(case: Case) -> None:
    """The tensors of `model.policy.parameters()` are those that training changes."""
    model = case.model()
    kept = list(model.policy.parameters())
    before = [parameter.detach().clone() for parameter in kept]
    model.learn(STEPS)
    changed = [not torch.equal(a, b) for a, b in zip(before, kept, strict=True)]
    assert any(changed), "the parameters held before training did not change"


def state_dicts_can_be_loaded_into_the_policy(case: Case) -> None:
    """`policy.load_state_dict` replaces the policy's tensors, and the actions follow."""
    a, b = case.trained(), case.model(seed=5)
    b.policy.load_state_dict(a.policy.state_dict())
    np.testing.assert_allclose(best_actions(a), best_actions(b), atol=1e-6)


@over(path=False, file_object=True)
def policies_are_saved_alone(case: Case, memory: bool) -> None:
    """`model.policy.save` and the policy class's `load` keep the policy without the algorithm, in a file or in an open
    file object."""
    model = case.trained()
    target: Any = io.BytesIO() if memory else str(case.folder / "policy.pth")
    model.policy.save(target)
    if memory:
        target.seek(0)
    alone = type(model.policy).load(target)
    observations = some_observations(model.observation_space)
    again = alone.predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(again, best_actions(model, observations), atol=1e-6, err_msg="it acts differently")


def policies_are_saved_with_dict_observations(case: Case) -> None:
    """A saved policy of dictionary observations acts the same, whatever the order of the keys."""
    model = case.trained(case.env("dict"))
    model.policy.save(str(case.folder / "policy.pth"))
    alone = type(model.policy).load(str(case.folder / "policy.pth"))
    observations = some_observations(model.observation_space)
    again = alone.predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(again, best_actions(model, observations), atol=1e-6, err_msg="it acts differently")
    turned = dict(reversed(list(observations.items())))
    np.testing.assert_allclose(best_actions(model, turned), again, atol=1e-6, err_msg="the order of keys matters")


@over(pickle=lambda policy: pickle.loads(pickle.dumps(policy)), deepcopy=copy.deepcopy)
def policies_can_be_copied(case: Case, make: Any) -> None:
    """A pickled or deep-copied policy acts the same, and does not change when the model learns on."""
    model = case.trained()
    twin, observations = make(model.policy), some_observations(model.observation_space)
    before = best_actions(model)
    np.testing.assert_allclose(twin.predict(observations, deterministic=True)[0], before, atol=1e-6)
    model.learn(2 * STEPS)
    after = twin.predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(after, before, atol=1e-6, err_msg="the copy changed when the model learned on")


def policies_become_vectors(case: Case) -> None:
    """`policy.parameters_to_vector` and `load_from_vector` turn the parameters into one array and back."""
    a, b = case.trained(), case.model(seed=5)
    vector = a.policy.parameters_to_vector()
    assert vector.ndim == 1, f"it has {vector.ndim} dimensions"
    b.policy.load_from_vector(vector)
    np.testing.assert_allclose(b.policy.parameters_to_vector(), vector)


def policies_scale_actions(case: Case) -> None:
    """`policy.scale_action` maps the action space to [-1, 1], and `unscale_action` maps it back."""
    policy, space = case.model().policy, case.env().action_space
    np.testing.assert_allclose(policy.scale_action(space.high), [1, 1], atol=1e-6)  # type: ignore[attr-defined]
    action = space.sample()
    np.testing.assert_allclose(policy.unscale_action(policy.scale_action(action)), action, atol=1e-5)


def policies_make_tensors(case: Case) -> None:
    """`policy.obs_to_tensor` gives a batch of observations as a tensor, and whether there were several."""
    policy = case.model().policy
    one, several = policy.obs_to_tensor(np.zeros(3, np.float32)), policy.obs_to_tensor(np.zeros((4, 3), np.float32))
    assert (tuple(one[0].shape), one[1]) == ((1, 3), False), f"one observation gave {one}"  # type: ignore[union-attr]
    assert tuple(several[0].shape) == (4, 3) and several[1], "four observations gave others"  # type: ignore[union-attr]  # noqa: PT018


def policies_can_be_called(case: Case) -> None:
    """`policy(observations, deterministic=True)` gives actions as a tensor, as in the guide on export."""
    policy = case.model().policy
    with torch.no_grad():
        actions = policy(torch.zeros(4, 3), deterministic=True)
    assert actions.shape == (4, 2), f"the shape is {tuple(actions.shape)}"


def policies_have_modes(case: Case) -> None:
    """`policy.set_training_mode` sets the mode of all modules, as dropout and batch normalisation need it."""
    policy = case.model().policy
    policy.set_training_mode(True)
    assert policy.training, "training is False"
    policy.set_training_mode(False)
    assert not any(module.training for module in policy.modules()), "a module is still in training mode"


def policies_know_their_spaces(case: Case) -> None:
    """The policy has `observation_space`, `action_space` and `device`."""
    model = case.model()
    assert model.policy.observation_space == model.observation_space, "observation_space differs"
    assert model.policy.action_space == model.action_space, "action_space differs"
    assert model.policy.device == model.device, f"device is {model.policy.device}"


def the_policy_predicts_like_the_model(case: Case) -> None:
    """`model.policy.predict` gives what `model.predict` gives."""
    model = case.trained()
    env = model.get_env()
    assert isinstance(env, VecEnv)
    observations: Any = env.reset()
    ours, theirs = (one.predict(observations, deterministic=True)[0] for one in (model, model.policy))
    np.testing.assert_array_equal(ours, theirs)


def models_can_be_copied(case: Case) -> None:
    """A deep copy of a model shares nothing with it: training one leaves the other alone."""
    model = case.trained()
    before, twin = best_actions(model), copy.deepcopy(model)
    np.testing.assert_allclose(best_actions(twin), before, atol=1e-6, err_msg="the copy acts differently")
    twin.learn(STEPS)
    np.testing.assert_array_equal(best_actions(model), before, err_msg="training the copy changed the original")
    assert twin.replay_buffer is not None
    assert model.replay_buffer is not None
    assert (twin.replay_buffer.size(), model.replay_buffer.size()) == (2 * STEPS, STEPS), "they share a buffer"
    assert np.abs(best_actions(twin) - before).max() > 0, "the copy does not learn"
