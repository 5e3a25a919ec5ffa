"""The benchmark of online training: what is compared is equal, and the result is complete."""

import json
from typing import Any

import pytest

from flowpolicies import get_algorithm
from flowpolicies.benchmarking import online
from flowpolicies.benchmarking.online import ENVIRONMENT, REFERENCE, describe, interleaved, measure_online


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure_online(["sac"], hidden_dims=(8, 8), batch_size=4, n_envs=2, rounds=2, steps=4)


def test_the_result_is_plain_data_about_all_models(measured: dict[str, Any]) -> None:
    assert json.loads(json.dumps(measured)) == measured
    assert list(measured["learning"]) == [REFERENCE, "sac"]
    assert list(measured["collecting"]) == [REFERENCE, "sac", ENVIRONMENT]
    assert measured["settings"]["n_envs"] == 2


def test_every_model_has_a_line(measured: dict[str, Any]) -> None:
    lines = [line.split()[0] for line in describe(measured)]
    assert lines == ["learning:", REFERENCE, "sac", "collecting:", REFERENCE, "sac", ENVIRONMENT]


def test_numbers_fit_together(measured: dict[str, Any]) -> None:
    for kind in ("learning", "collecting"):
        reference = measured[kind][REFERENCE]["min_us"]
        for each in measured[kind].values():
            assert 0 < each["min_us"] <= each["median_us"]
            assert each["steps_per_second"] * each["min_us"] == pytest.approx(1e6)
            assert each["ratio"] == pytest.approx(each["min_us"] / reference)
    assert measured["collecting"][REFERENCE]["overhead_ratio"] == pytest.approx(1)


def test_both_sacs_have_networks_of_the_same_size_and_update_as_often() -> None:
    options = {"batch_size": 4, "device": "cpu", "seed": 0, "learning_starts": 10}
    theirs = online._reference("Pendulum-v1", 1, (8, 8), options)
    ours = online._model(get_algorithm("sac"), "Pendulum-v1", 1, (8, 8), options)
    for name in ("actor", "critic"):
        pair = ours.policy.networks[name], getattr(theirs.policy, name)
        sizes = [sum(weight.numel() for weight in module.parameters()) for module in pair]
        assert sizes[0] == sizes[1], name
    assert ours.policy.networks["actor"].trunk.activation == "relu"
    for model in (ours, theirs):
        model.learn(20)
    assert ours._n_updates == theirs._n_updates == 10
    assert ours.cfg.target_entropy_multiplier * ours.action_space.shape[0] == -theirs.target_entropy


def test_runs_take_turns() -> None:
    order = []

    def run(name: str) -> Any:
        return lambda: order.append(name) or 10

    times = interleaved({"a": run("a"), "b": run("b")}, rounds=3)
    assert order == ["a", "b"] * 3
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}


def test_an_unknown_algorithm_is_named() -> None:
    with pytest.raises(ValueError, match="qflo"):
        measure_online(["qflo"], rounds=1, steps=1)
