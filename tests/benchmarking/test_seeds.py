"""The measurement of seeds that are trained together."""

from __future__ import annotations

import json

from flowpolicies.benchmarking.seeds import describe, measure_seeds


def test_ratios_are_relative_to_one_seed_alone() -> None:
    sizes = {"seeds": 2, "hidden_dims": [8], "batch_size": 4, "observation_dim": 2, "action_dim": 1, "rounds": 2}
    found = measure_seeds("fql", **sizes)
    assert json.loads(json.dumps(found)) == found
    assert found["settings"] == {"algorithm": "fql", "horizon": 1, "device": "cpu", **sizes}
    assert found["kind"] == "vectorized"
    assert found["alone"]["ratio"] == 1
    for way in ("vectorized", "chosen"):
        assert found[way]["ratio"] == found[way]["min_us"] / found["alone"]["min_us"]
        assert 0 < found[way]["min_us"] <= found[way]["median_us"]
    assert describe(found)[0] == "2 seeds (vectorized is chosen): us per update and seed, ratio"
    assert measure_seeds("bc", **{**sizes, "batch_size": 4000})["kind"] == "in_turn"
