"""Batches from a dataset on the model's device, for which the CPU takes the place of a GPU here."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from flowpolicies.core import Batch
from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay import on_device
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.on_device import DeviceWindows
from flowpolicies.data.replay.sampling import sample_together

OPTIONS: list[dict[str, Any]] = [
    {},
    {"horizon": 4},
    {"horizon": 4, "next_actions": False},
    {"n_steps": 3, "gamma": 0.9},
    {"rotate_every": None, "offline_share": 0.5},
]


def buffer(data: TransitionDataset, **options: Any) -> TransitionBuffer:
    made = TransitionBuffer(100, data.observation_space, data.action_space, "cpu", seed=0, **options)
    made.attach(data)
    return made


def collect(made: TransitionBuffer, steps: int = 30) -> None:
    rng = np.random.default_rng(1)
    for i in range(steps):
        row, action = rng.normal(size=(2, 1, 3)).astype(np.float32), rng.uniform(-1, 1, (1, 1)).astype(np.float32)
        made.add(row[0], row[1], action, rng.normal(size=1), np.array([i % 10 == 9]), [{}])


def check_equal(found: Batch, expected: Batch) -> None:
    for name, ours, theirs in zip(Batch._fields, found, expected, strict=True):
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("online", [False, True], ids=["offline", "mixed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_batches_come_from_either_device(options: dict[str, Any], online: bool, data: Any) -> None:
    host, device = (buffer(data, data_device=place, **options) for place in ("cpu", "model"))
    assert host.on_device is None
    assert device.on_device is not None
    if online:
        collect(host)
        collect(device)
    for _ in range(3):
        check_equal(device.sample(64), host.sample(64))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("place", ["cpu", "model"])
def test_buffers_with_one_dataset_draw_together_what_each_draws_alone(
    place: Any, options: dict[str, Any], data: Any
) -> None:
    alone, together = ([buffer(data, data_device=place, **options) for _ in range(3)] for _ in range(2))
    for group in (alone, together):
        for number, one in enumerate(group):
            one.share_dataset(group[0])
            one.generator.manual_seed(number)
            one.reward_factor = 1.0 + number
    assert {id(one.on_device) for one in together} == {id(together[0].on_device)}
    for _ in range(3):
        each = [one.sample(16) for one in alone]
        check_equal(sample_together(together, 16), Batch(*(torch.stack(part) for part in zip(*each, strict=True))))


def test_another_discount_reaches_the_device(data: Any) -> None:
    host, device = (buffer(data, data_device=place) for place in ("cpu", "model"))
    for made in (host, device):
        made.set_discount(0.5, 3)
    check_equal(device.sample(64), host.sample(64))


def test_a_copy_shares_the_windows_and_draws_on(data: Any) -> None:
    device = buffer(data, data_device="model")
    twin = deepcopy(device)
    assert twin.on_device is device.on_device
    check_equal(twin.sample(16), device.sample(16))
    assert device.__getstate__()["on_device"] is None  # The dataset is not saved.


def test_auto_leaves_the_data_where_they_are_without_a_gpu(data: Any) -> None:
    assert buffer(data).on_device is None


@pytest.mark.parametrize(("free", "fits"), [(10**9, True), (1000, False)])
def test_auto_moves_the_data_to_a_gpu_if_they_fit(
    free: int, fits: bool, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = buffer(data).offline
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**10))
    monkeypatch.setattr(on_device.DeviceWindows, "__init__", lambda *_, **__: None)
    found = DeviceWindows.where_asked(store, "auto", torch.device("cuda"), 1, next_actions=True, cut=False)
    assert (found is not None) == fits


def test_what_cannot_be_on_the_device_is_refused_by_name(data: Any) -> None:
    with pytest.raises(ValueError, match=r'data_device="model" needs a dataset in memory.*data_device="auto"'):
        buffer(data, data_device="model", windows="episodes")
    with pytest.raises(ValueError, match="one of 'auto', 'cpu', 'model', got 'gpu'"):
        TransitionBuffer(10, Box(-1, 1, (3,)), Box(-1, 1, (1,)), data_device="gpu")


def test_windows_that_share_memory_are_pinned_as_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch pins no tensor of which several elements are one number in memory, such as overlapping windows."""
    pinned: list[torch.Tensor] = []

    class Pinned:
        def to(self, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
            return pinned[-1]

    def pin_memory(column: torch.Tensor) -> Pinned:
        pinned.append(torch.empty_strided(column.shape, column.stride()).copy_(column))  # Refuses what torch refuses.
        return Pinned()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    rows = torch.arange(10.0)
    for column in (rows.as_strided((4, 3), (1, 1)), rows[:4, None].expand(4, 3)):
        assert torch.equal(on_device.moved(column, torch.device("cuda")), column)
