from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from corridor import GAMMA, Known, true_value
from stable_baselines3.common.logger import configure
from tiny import tiny
from torch.testing import assert_close

from flowpolicies.algorithms import BC, CGQL, FQL, RQL, OfflineAlgorithm, QFlow
from flowpolicies.data import RewardTransform
from flowpolicies.diagnostics import DIAGNOSTICS, DiagnosisCallback, diagnose


def read(model: OfflineAlgorithm, name: str, env: Any = None) -> Any:
    return diagnose(model, env, samples=128, only=(name,))[name]


class Always:
    """A sampler of one action."""

    def __init__(self, action: float) -> None:
        self.action = action

    def __call__(self, nets: Any, observations: Any, noise: Any) -> Any:
        return torch.full((*observations.shape[:-1], noise.action_dim), self.action)


def check_all(algorithm: type[OfflineAlgorithm], data: Any) -> None:
    model = tiny(algorithm, dataset=data, horizon=3)
    model.learn_offline(1)
    found = diagnose(model, samples=32)
    assert [reading.name for reading in found.readings] == list(DIAGNOSTICS)
    for reading in found.readings:
        assert (reading.value is None) == (reading.judgement == "not applicable"), reading
        assert len(reading.sentence) > 20
        assert reading.judgement not in ("look", "bad") or len(reading.remedy) > 20
    for name in ("gradient_norms", "action_saturation", "behavior_distance"):
        assert found[name].value is not None
    assert json.loads(json.dumps(found.to_json()))["readings"][0]["name"] == "value_range"


@pytest.mark.parametrize("cls", [BC, CGQL, RQL], ids=lambda cls: cls.name)
def test_a_model_of_any_kind_is_diagnosed(cls: type[OfflineAlgorithm], data: Any) -> None:
    check_all(cls, data)


@pytest.mark.more
def test_a_model_of_every_algorithm_is_diagnosed(algorithm: type[OfflineAlgorithm], data: Any) -> None:
    check_all(algorithm, data)


def test_what_an_algorithm_lacks_does_not_apply_and_the_sentence_says_why(data: Any) -> None:
    found = diagnose(tiny(BC, dataset=data), samples=32)
    assert found["value_range"].sentence == "BC learns no values of actions."
    assert found["guidance_norm"].sentence == "no value guides the flow of BC."
    assert "pass --env" in found["realized_return"].sentence
    assert "learns no values" in str(found)


@pytest.mark.parametrize("with_env", [True, False])
def test_values_that_sag_behind_the_start_are_found(model: OfflineAlgorithm, corridors: Any, with_env: bool) -> None:
    env = corridors if with_env else None
    right = read(model, "start_values", env)
    assert right.judgement == "ok"
    assert right.details["first"] == pytest.approx(-(1 - GAMMA**20) / (1 - GAMMA), abs=0.1)
    assert right.details["best"] <= -(1 - GAMMA**19) / (1 - GAMMA)
    model.policy.networks["critic"] = Known(lambda x, a: true_value(x, a) + 4 * torch.exp(-x / 3))
    sags = read(model, "start_values", env)
    assert sags.judgement == "bad"
    assert "rho=0.5" in sags.remedy
    assert sags.details["mean_2"] < sags.details["mean_0"]


def test_start_values_need_successes(model: OfflineAlgorithm, data: Any) -> None:
    reading = read(tiny(FQL, dataset=data), "start_values")
    assert reading.judgement == "not applicable"
    assert "masks of 0 do not mark success" in reading.sentence


def test_values_beyond_what_returns_can_be_are_found(model: OfflineAlgorithm) -> None:
    assert read(model, "value_range").judgement == "ok"
    model.policy.networks["critic"] = Known(lambda x, a: true_value(x, a) + 3)
    assert read(model, "value_range").judgement == "look"
    model.policy.networks["critic"] = Known(lambda x, a: true_value(x, a) * torch.nan)
    assert read(model, "value_range").judgement == "bad"


def test_values_above_realized_returns_are_found(model: OfflineAlgorithm, corridors: Any) -> None:
    model.policy.sampler = Always(1.0)
    right = read(model, "realized_return", corridors)
    assert right.judgement == "ok"
    assert right.details["realized"] == pytest.approx(-(1 - GAMMA**19) / (1 - GAMMA), abs=0.2)
    model.policy.sampler = Always(-1.0)  # It never arrives: after 60 steps the return is -10.
    model.policy.networks["critic"] = Known(lambda x, a: x / 4 - 5)
    stuck = read(model, "realized_return", corridors)
    assert stuck.details["realized"] < -9.9
    assert stuck.judgement == "bad"


def test_critics_that_disagree_off_the_data_are_found(model: OfflineAlgorithm) -> None:
    model.policy.sampler = Always(0.75)
    model.policy.networks["critic"] = Known(true_value, apart=1.0)
    assert read(model, "ensemble_disagreement").judgement == "ok"
    model.policy.networks["critic"] = Known(true_value)
    model.policy.networks["critic"].forward = lambda s, a: torch.stack([a[:, 0] < 0.6, 10.0 * (a[:, 0] > 0.7)]).float()
    assert read(model, "ensemble_disagreement").value > 1


def test_actions_at_bounds_and_far_from_the_data_are_found(model: OfflineAlgorithm) -> None:
    model.policy.sampler = Always(0.75)
    assert read(model, "action_saturation").value == 0
    assert read(model, "behavior_distance").judgement == "ok"
    model.policy.sampler = Always(-1.0)
    assert read(model, "action_saturation").judgement == "bad"
    assert read(model, "behavior_distance").judgement == "bad"


def test_an_inner_value_that_does_not_follow_the_critic_is_found(model: OfflineAlgorithm) -> None:
    model.policy.targets["critic"] = Known(true_value)
    model.policy.networks["inner_value"] = Known(true_value)
    assert read(model, "flow_consistency").value < 0.05
    model.policy.networks["inner_value"] = Known(lambda x, a: -true_value(x, a))
    assert read(model, "flow_consistency").judgement == "bad"


def test_guidance_that_outweighs_the_data_is_found(walks: Any) -> None:
    weak, strong = (read(tiny(QFlow, dataset=walks, guidance_lambda=x), "guidance_norm") for x in (10.0, 1e-4))
    assert (weak.judgement, strong.judgement) == ("ok", "bad")
    assert strong.value == pytest.approx(1e5 * weak.value, rel=1e-3)


def test_gradients_that_explode_are_found(walks: Any, data: Any) -> None:
    assert read(tiny(QFlow, dataset=walks), "gradient_norms").judgement == "ok"
    large = RewardTransform(name="normalize", scale=1e6).apply(data)
    reading = read(tiny(FQL, dataset=large), "gradient_norms")
    assert reading.judgement == "bad"
    assert reading.details["critic"] == reading.value


def test_an_unknown_name_and_a_model_without_data_are_refused(model: OfflineAlgorithm, data: Any) -> None:
    with pytest.raises(ValueError, match="no diagnostic 'nothing' \\(known: value_range, "):
        diagnose(model, only=("nothing",))
    alone = tiny(FQL, dataset=data)
    alone.transitions.offline = None
    with pytest.raises(ValueError, match="no transitions to look at"):
        diagnose(alone)


def test_the_callback_logs_and_leaves_the_training_as_it_is(data: Any, tmp_path: Any) -> None:
    plain, watched = tiny(QFlow, dataset=data), tiny(QFlow, dataset=data)
    callback = DiagnosisCallback(every=2, samples=32)
    watched.set_logger(configure(str(tmp_path), ["csv"]))
    plain.learn_offline(4)
    watched.learn_offline(4, callback=callback, log_interval=3)
    assert_close(dict(watched.policy.state_dict()), dict(plain.policy.state_dict()), rtol=0, atol=0)
    np.testing.assert_array_equal(plain.predict(np.zeros(3))[0], watched.predict(np.zeros(3))[0])
    header = (tmp_path / "progress.csv").read_text().splitlines()[0]
    assert "diagnosis/flow_consistency," in header
    assert "diagnosis/flow_consistency_judgement" in header
    assert callback.latest is not None
    assert callback.latest.steps == {"offline": 4, "online": 0}


def test_the_callback_warns_once_when_a_reading_turns_bad(walks: Any) -> None:
    model = tiny(QFlow, dataset=walks, guidance_lambda=1e-6)
    with pytest.warns(UserWarning, match="step 1: guidance_norm is bad") as caught:
        model.learn_offline(3, callback=DiagnosisCallback(1, samples=32, only=("guidance_norm",)))
    assert len([one for one in caught if "guidance_norm" in str(one.message)]) == 1
