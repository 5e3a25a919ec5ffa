"""Algorithms with phases: the later ones, which the contract tests of a single update do not reach."""

from __future__ import annotations

import pytest
import torch
from tiny import known, tiny
from trees import clone, stack

from flowpolicies.algorithms import BDPO, QGPO, OfflineAlgorithm, QIPOFull
from flowpolicies.core import Batch, Learner
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState

LAST_PHASE = {"bdpo": BDPO, "qipo_full": QIPOFull, "qgpo": QGPO}
each = pytest.mark.parametrize("algorithm", LAST_PHASE.values(), ids=LAST_PHASE)

FREE = "inner_value.net.output.bias"
"""QGPO's energy counts up to a constant: the gradient of this bias is rounding, which Adam blows up to its rate."""


@pytest.mark.slow
@each
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.more)])
def test_main_phase_eager_equals_compiled(algorithm: type[OfflineAlgorithm], backend: str, data) -> None:
    """Traced in `make test`, and compiled in `make more`."""
    sizes = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "energy_hidden_dims": (8,)}
    sizes |= {"pretrain_steps": 0, "critic_warmup": 0, "diffusion_steps": 2}
    models = [tiny(algorithm, dataset=data, compile=choice, **known(algorithm, sizes)) for choice in (False, backend)]
    for model in models:
        torch._dynamo.reset()
        model.learn_offline(1)
    a, b = (model.policy.state_dict() for model in models)
    for key in a:
        if algorithm is not QGPO or not key.endswith(FREE):
            torch.testing.assert_close(a[key], b[key], atol=1e-5, rtol=0)


@each
def test_all_phases_over_seeds_equal_single_runs(algorithm: type[OfflineAlgorithm], data) -> None:
    """Two seeds share the modules, and so the fixed frequencies, which are no parameters."""
    models = [tiny(algorithm, dataset=data, seed=seed) for seed in (0, 1)]
    modules = dict(models[0].policy.networks.items())
    options = {"action_dim": 1, "clip_grad_norm": models[0].cfg.clip_grad_norm}
    parts = (modules, models[0].policy.specs, algorithm.losses, models[0].cfg)
    single, both = Learner(*parts, **options), Learner(*parts, **options, n_seeds=2)
    params, targets = ([clone(getattr(m._state, part)) for m in models] for part in ("params", "targets"))
    stacked = stack(params)
    together = LearnerState(stacked, stack(targets), initial_moments(stacked))
    apart = [LearnerState(p, t, initial_moments(p)) for p, t in zip(params, targets, strict=True)]
    rate, generators = torch.tensor(3e-4), [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    for i in range(3):
        step, batches = models[0].cfg.update_spec(i), [model.replay_buffer.sample(16) for model in models]
        batch = Batch(*(torch.stack(columns) for columns in zip(*batches, strict=True)))
        draws = both.draws(together, batch, step, generators)
        metrics = both.update(together, batch, draws, step, rate)
        for s, (state, one) in enumerate(zip(apart, batches, strict=True)):
            single.update(state, one, [[draw[s] for draw in stage] for stage in draws], step, rate)
        assert all(value.shape == (2,) for value in metrics.values())
    for s, state in enumerate(apart):
        for part in ("params", "targets"):
            for name, tree in getattr(state, part).items():
                for key, p in tree.items():
                    if algorithm is QGPO and f"{name}.{key}" == FREE:
                        continue
                    torch.testing.assert_close(getattr(together, part)[name][key][s], p, atol=1e-5, rtol=0)
