"""What a config refuses: each of these would train something else, or NaN, without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest
from tiny import pendulum_data, tiny

from flowpolicies.algorithms import (
    BDPO,
    CAC,
    FBRAC,
    FQL,
    IDQL,
    QGPO,
    SAC,
    BCDiffusion,
    OfflineAlgorithm,
    QFlow,
    QIPOFull,
)
from flowpolicies.core import Network
from flowpolicies.samplers import Integrate, Sampler
from flowpolicies.shell.config import PolicyConfig
from flowpolicies.shell.fields import NonNegativeInt, UnitInterval
from flowpolicies.training import SB3Hyperparameters


@pytest.mark.parametrize(
    ("algorithm", "wrong", "message"),
    [
        (FQL, {"q_agg": "max"}, "q_agg must be one of 'mean', 'min', got 'max'"),
        (BCDiffusion, {"beta_schedule": "vpp"}, "beta_schedule must be one of 'vp', 'linear', 'cosine', got 'vpp'"),
        (FQL, {"flow_steps": 0}, "flow_steps must be at least 1, got 0"),
        (FQL, {"horizon": 0}, "horizon must be at least 1, got 0"),
        (FQL, {"execute": 0}, "execute must be at least 1, got 0"),
        (FQL, {"horizon": 3, "execute": 4}, "execute must lie in 1..horizon=3 or be None .the whole chunk., got 4"),
        (CAC, {"consistency_steps": 0}, "consistency_steps must be at least 1, got 0"),
        (CAC, {"ema_every": 0}, "ema_every must be at least 1, got 0"),
        (QGPO, {"num_samples": 0}, "num_samples must be at least 1, got 0"),
        (QIPOFull, {"renew_every": 0}, "renew_every must be at least 1, got 0"),
        (BDPO, {"decay_updates": 0}, "decay_updates must be at least 1, got 0"),
        (BDPO, {"pretrain_steps": -1}, "pretrain_steps must be at least 0, got -1"),
        (IDQL, {"rho": 0.5}, 'rho=0.5 has no effect on the minimum over critics: pass q_agg="mean" with it'),
        (FQL, {"rho": 0.5, "q_agg": "min"}, "rho=0.5 has no effect on the minimum"),
        (QFlow, {"guidance_lambda": float("nan")}, "guidance_lambda must be finite, got nan"),
        (FQL, {"alpha": float("inf")}, "alpha must be finite, got inf"),
        (FQL, {"clip_grad_norm": float("nan")}, "clip_grad_norm must be finite, got nan"),
        (FQL, {"actor_hidden_dims": (8, 0)}, r"actor_hidden_dims must hold numbers of at least 1, got \(8, 0\)"),
        (IDQL, {"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        (IDQL, {"expectile": 90}, r"expectile must lie in \[0, 1\), got 90"),
    ],
)
def test_values_that_a_field_does_not_have(algorithm: type[OfflineAlgorithm], wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        algorithm.Config(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flow_steps": 2.5}, "flow_steps must be a whole number, got 2.5"),
        ({"execute": "3"}, "execute must be a whole number, got '3'"),
        ({"rho": "0.5"}, "rho must be a number, got '0.5'"),
        ({"clip_grad_norm": "no"}, "clip_grad_norm must be a number, got 'no'"),
        ({"actor_hidden_dims": 16}, r"actor_hidden_dims must be a tuple of whole .* such as \(256, 256\), got 16"),
        ({"value_hidden_dims": (8, 2.5)}, r"value_hidden_dims must be a tuple of whole numbers, .* got \(8, 2.5\)"),
        ({"value_layer_norm": "no"}, "value_layer_norm must be True or False, got 'no'"),
    ],
)
def test_values_of_another_type(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        QFlow.Config(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"buffer_size": 0}, "buffer_size must be at least 1, got 0"),
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\], got 1.5"),
        ({"gamma": float("nan")}, "gamma must be finite, got nan"),
        ({"tau": 1.5}, r"tau must lie in \[0, 1\], got 1.5"),
        ({"learning_rate": -1e-3}, "learning_rate must be at least 0, got -0.001"),
        ({"learning_starts": -1}, "learning_starts must be at least 0, got -1"),
        ({"gradient_steps": -2}, "gradient_steps must be at least 0, or -1, got -2"),
        ({"train_freq": 0}, "train_freq must be at least 1, got 0"),
    ],
)
def test_knobs_that_would_train_nonsense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(FQL, dataset=pendulum_data(), **wrong)
    with pytest.raises(ValueError, match=message):
        SB3Hyperparameters(**wrong)


def test_knobs_at_their_limits() -> None:
    limits = {"gamma": 1.0, "tau": 1, "learning_starts": 0, "gradient_steps": -1, "buffer_size": 1, "batch_size": 1}
    assert SB3Hyperparameters(**limits).gamma == 1.0
    model = tiny(FQL, dataset=pendulum_data(), learning_rate=lambda _: 0.0, train_freq=(1, "episode"), **limits)
    assert model.learn_offline(0).offline_steps == 0
    with pytest.raises(ValueError, match="gradient_steps must be at least 0, got -5"):
        model.learn_offline(-5)
    with pytest.raises(ValueError, match="log_interval must be at least 1, got 0"):
        model.learn_offline(1, log_interval=0)
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        tiny(FQL, dataset=pendulum_data(), device="gpu")


def test_what_is_allowed() -> None:
    cfg = BDPO.Config(eta=1, rho=np.float32(0.5), ensemble=np.int64(3), decay_updates=None, pretrain_steps=0)
    assert (cfg.eta, cfg.ensemble, cfg.decay_updates) == (1, 3, None)
    assert IDQL.Config(rho=0.5, q_agg="mean").rho == 0.5
    assert FBRAC.Config(q_agg="min").rho == 0.5  # Nobody asked for it.
    assert SAC.Config(rho=0.5).q_agg == "min"  # The actor climbs mean - rho std.

    @dataclass(frozen=True, kw_only=True)
    class Theirs(PolicyConfig):
        """The config of another package."""

        beta: float = 1
        steps: int = 1
        warmup: NonNegativeInt | None = 0
        decay: UnitInterval = 0.5
        noted: Annotated[int, "a note", "for others"] = 1

        def networks(self, tau: float) -> dict[str, Network]:
            return {}

        def sampler(self) -> Sampler:
            return Integrate()

    assert Theirs(beta=0, warmup=None).beta == 0
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Theirs(steps=0)
    with pytest.raises(ValueError, match="warmup must be at least 0, got -1"):
        Theirs(warmup=-1)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1"):
        Theirs(decay=1)


def test_a_renamed_hyperparameter_works_under_its_old_name_with_a_warning(data) -> None:
    with pytest.warns(DeprecationWarning, match="behaviour_learning_rate is now behavior_learning_rate"):
        model = BDPO(dataset=data, behaviour_learning_rate=1e-4, actor_hidden_dims=(8,), value_hidden_dims=(8,))
    assert model.cfg.behavior_learning_rate == 1e-4


def test_a_config_that_was_pickled_under_an_old_name_keeps_its_value() -> None:
    config = object.__new__(BDPO.Config)
    config.__setstate__({"behaviour_learning_rate": 1e-4, "horizon": 3})
    assert config.behavior_learning_rate == 1e-4
    assert config.horizon == 3
    assert "behaviour_learning_rate" not in vars(config)


def test_sizes_may_be_lists_as_in_yaml_and_are_the_same_as_tuples(tmp_path) -> None:
    model = QFlow("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8, 8]}, device="cpu")
    assert QFlow.Config(actor_hidden_dims=[8, 8]) == QFlow.Config(actor_hidden_dims=(8, 8))
    model.save(tmp_path / "model.zip")
    loaded = QFlow.load(tmp_path / "model.zip", actor_hidden_dims=[8, 8], value_hidden_dims=[8, 8], device="cpu")
    assert loaded.cfg == model.cfg
    with pytest.raises(ValueError, match="actor_hidden_dims cannot be changed"):
        QFlow.load(tmp_path / "model.zip", actor_hidden_dims=[8, 8, 8], device="cpu")
