"""The benchmark of acting."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from flowpolicies.benchmarking.act import ACTION_DIM, CASES, OBSERVATION_DIM, _policy, measure_act
from flowpolicies.core import ReplayedNoise
from flowpolicies.samplers import candidates


def test_each_row_has_times_of_all_variants_and_a_target() -> None:
    lines: list[str] = []
    results = measure_act(("small_flow",), seconds=0.05, say=lines.append)
    row = results["results"]["small_flow"]
    assert {"flowpolicies", "sb3_sac", "target_p50_ms"} <= set(row)
    for found in (row["flowpolicies"], row["sb3_sac"], results["outside"]):
        assert 0 < found["min_ms"] <= found["p50_ms"] <= found["p99_ms"]
        assert found["calls"] >= 1
    assert any(line.startswith("small_flow") for line in lines)
    assert ("jax" in row) != any(line.startswith("without JAX") for line in lines)


def test_unknown_rows_are_refused() -> None:
    with pytest.raises(KeyError, match=r"there is no row 'fast' \(there are: flow, one_step"):
        measure_act(("fast",))


@pytest.mark.parametrize("name", CASES)
def test_the_policies_in_jax_compute_the_actions_of_ours(name: str) -> None:
    pytest.importorskip("jax")
    peers = pytest.importorskip("flowpolicies.benchmarking.jax_peers")
    peers.load_peers()
    theirs = importlib.import_module("peers.act").SAMPLERS[type(CASES[name].sampler).__name__]
    policy, n = _policy(CASES[name].sampler, 16, 2), candidates(CASES[name].sampler)
    tree = {
        key: {part: tensor.numpy(force=True) for part, tensor in network.state_dict().items()}
        for key, network in policy.networks.items()
    }
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((3, OBSERVATION_DIM), np.float32)
    noise = rng.standard_normal((3, n, ACTION_DIM), np.float32)
    given = torch.from_numpy(noise if n > 1 else noise[:, 0])
    with torch.no_grad():
        ours = CASES[name].sampler(policy.view(), torch.from_numpy(observations), ReplayedNoise(ACTION_DIM, [given]))
    found = theirs(tree, observations, noise.reshape(-1, ACTION_DIM), **CASES[name].jax)
    np.testing.assert_allclose(np.asarray(found), ours.numpy(), atol=1e-5)
