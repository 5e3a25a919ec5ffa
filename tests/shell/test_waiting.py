"""The host never waits for a GPU between two updates, so that the GPU always has work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.flows import solvers

READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}
"""Operations whose result the host needs before it can go on."""


class Watch(TorchDispatchMode):
    """Records the operations of `READS` that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in READS:
            self.seen.append(function)
        return function(*args, **(kwargs or {}))


def test_the_watch_sees_what_it_looks_for() -> None:
    with Watch() as watch:
        bool(torch.ones(1) > 0)
        torch.ones(2).nonzero()
    assert len(watch.seen) == 2


def test_no_update_reads_a_number_from_the_device(
    algorithm: type[OfflineAlgorithm], data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, with the code that runs on GPUs where the two differ."""
    monkeypatch.setattr(solvers, "is_transformed", lambda: True)
    model = tiny(algorithm, dataset=data)
    model.train(2)  # It records which draws the losses ask for.
    batch, learner = model.transitions.sample(model.batch_size), model._learner  # Windows are chosen on the CPU.
    with Watch() as watch:
        for step in range(2, 5):
            spec = model.cfg.update_spec(step)
            draws = learner.draws(model._state, batch, spec, model._noise_generators)
            model._means.add(learner.update(model._state, batch, draws, spec, model._rate))
    assert not watch.seen


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("data_device", ["cpu", "model"])
def test_no_update_waits_for_a_gpu(algorithm: type[OfflineAlgorithm], data_device: str, data: Any) -> None:
    options: dict[str, Any] = {} if algorithm.windows == "episodes" else {"data_device": data_device}
    model = tiny(algorithm, dataset=data, device="cuda", replay_buffer_kwargs=options)
    model.train(3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.train(3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
