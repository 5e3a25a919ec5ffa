"""Custom policies: policy_kwargs."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from flowpolicies.conformance.case import STEPS, Case, best_actions, optimizers, raises
from flowpolicies.conformance.promises import over


class TinyExtractor(BaseFeaturesExtractor):
    """A user's features extractor: one linear layer over the flattened observation."""

    def __init__(self, observation_space: spaces.Space[Any], features_dim: int = 6) -> None:
        super().__init__(observation_space, features_dim)
        size = observation_space.shape
        assert size is not None
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(int(torch.tensor(size).prod()), features_dim), nn.Tanh())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layer(observations)  # type: ignore[no-any-return]


def _linear_widths(model: Any) -> set[int]:
    """Output widths of all linear layers and all weight matrices of the policy."""
    shapes = [tuple(value.shape) for value in model.policy.state_dict().values()]
    return {side for shape in shapes if len(shape) >= 2 for side in shape}


@over(list=[17, 19], dictionary={"pi": [17, 19], "qf": [19, 17]})
def net_arch_is_obeyed(case: Case, net_arch: Any) -> None:
    """`policy_kwargs=dict(net_arch=...)` sets the hidden widths, as a list or by network, and is saved."""
    model = case.trained(policy_kwargs={"net_arch": net_arch})
    assert {17, 19} <= _linear_widths(model), f"the sizes are {sorted(_linear_widths(model))}"
    model.save(case.folder / "model")
    assert {17, 19} <= _linear_widths(case.load(case.folder / "model")), "the loaded model has other sizes"


def activation_fn_is_obeyed(case: Case) -> None:
    """`policy_kwargs=dict(activation_fn=nn.ELU)` sets the activation."""
    model = case.trained(policy_kwargs={"activation_fn": nn.ELU})
    plain = case.trained()
    found = any(isinstance(module, nn.ELU) for module in model.policy.modules())
    different = abs(best_actions(model) - best_actions(plain)).max() > 0
    assert found or different, "no module is an ELU, and the actions are the same"


def features_extractors_are_used(case: Case) -> None:
    """`features_extractor_class` and `features_extractor_kwargs` put a user's network before the policy."""
    extractor = {"features_extractor_class": TinyExtractor, "features_extractor_kwargs": {"features_dim": 11}}
    model = case.model(policy_kwargs=extractor).learn(STEPS)
    found = [module for module in model.policy.modules() if isinstance(module, TinyExtractor)]
    assert found, "no module of the policy is the extractor"
    assert found[0].features_dim == 11, f"features_dim is {found[0].features_dim}"
    model.save(case.folder / "model")
    assert best_actions(case.load(case.folder / "model")).shape == (5, 2), "the loaded model does not act"


def features_extractors_are_trained(case: Case) -> None:
    """A user's features extractor is trained with the policy."""
    model = case.model(policy_kwargs={"features_extractor_class": TinyExtractor})
    [*found] = [module for module in model.policy.modules() if isinstance(module, TinyExtractor)]
    before = [value.clone() for module in found for value in module.state_dict().values()]
    model.learn(STEPS)
    after = [value for module in found for value in module.state_dict().values()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), "no extractor changed"


def features_extractors_see_images(case: Case) -> None:
    """A user's features extractor of images is used with CnnPolicy."""
    kwargs = {"features_extractor_class": TinyExtractor}
    model = case.model(case.env("image"), policy_kwargs=kwargs).learn(STEPS)
    assert any(isinstance(module, TinyExtractor) for module in model.policy.modules()), "it is not in the policy"


def optimizer_kwargs_are_obeyed(case: Case) -> None:
    """`policy_kwargs=dict(optimizer_kwargs=...)` reaches the optimisers."""
    model = case.model(policy_kwargs={"optimizer_kwargs": {"weight_decay": 0.25}})
    found = {group.get("weight_decay") for optimizer in optimizers(model) for group in optimizer.param_groups}
    assert 0.25 in found, f"the weight decays are {found}"


def optimizer_class_is_obeyed(case: Case) -> None:
    """`policy_kwargs=dict(optimizer_class=...)` chooses the optimiser."""
    model = case.trained(policy_kwargs={"optimizer_class": torch.optim.AdamW})
    assert any(isinstance(one, torch.optim.AdamW) for one in optimizers(model)), "no optimiser is AdamW"


def n_critics_is_obeyed(case: Case) -> None:
    """`policy_kwargs=dict(n_critics=3)` sets the number of critics."""
    sizes = [sum(p.numel() for p in case.model(policy_kwargs={"n_critics": n}).policy.parameters()) for n in (2, 3, 4)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0, f"2, 3 and 4 critics have {sizes} parameters"


def normalize_images_is_obeyed(case: Case) -> None:
    """`policy_kwargs=dict(normalize_images=False)` leaves images in [0, 255]."""
    plain, raw = (case.model(case.env("image"), policy_kwargs=kw) for kw in ({}, {"normalize_images": False}))
    image = case.env("image").reset(seed=0)[0]
    actions = [model.predict(image, deterministic=True)[0] for model in (plain, raw)]
    assert abs(actions[0] - actions[1]).max() > 0, "the actions are the same"


def unknown_policy_kwargs_are_refused(case: Case) -> None:
    """An unknown entry of `policy_kwargs` raises a TypeError that names it."""
    text = raises((TypeError, ValueError), lambda: case.model(policy_kwargs={"no_such_argument": 1}))
    assert "no_such_argument" in text, f"the error does not name it: {text}"


def policy_kwargs_are_kept(case: Case) -> None:
    """`model.policy_kwargs` holds what the user gave, before and after saving."""
    model = case.model(policy_kwargs={"net_arch": [17]})
    assert model.policy_kwargs["net_arch"] == [17], f"policy_kwargs is {model.policy_kwargs}"
    model.save(case.folder / "model")
    found = case.load(case.folder / "model").policy_kwargs
    assert found.get("net_arch") == [17], f"the loaded policy_kwargs is {found}"
