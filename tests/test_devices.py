"""Names of devices, most of which are judged without torch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny import pendulum_data, tiny

from flowpolicies import FlowPolicy
from flowpolicies.algorithms import BC
from flowpolicies.choices import KINDS, check_device, require_device
from flowpolicies.data import to_sb3_buffer
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.training import TrainSettings, load_policy, train


def test_the_known_kinds_are_those_of_torch() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.device("gpu")
    listed = re.search(r"one of (.*) device type", str(error.value))
    assert listed is not None
    assert sorted(KINDS) == sorted(listed[1].split(", "))


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:7", "cuda:12", "mps", "meta"])
def test_devices(name: str) -> None:
    assert check_device(name) == name
    assert name == "auto" or torch.device(name)


def test_a_device_of_torch_is_taken() -> None:
    assert check_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "cuda:00", "CPU", "", "cuda 0"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown device .*: pass 'auto', 'cpu', 'cuda', or one such as 'cuda:1'"):
        check_device(name)
    with pytest.raises(RuntimeError):
        torch.device(name)


@pytest.mark.parametrize("name", ["auto", "cpu", "meta", torch.device("cpu")])
def test_devices_that_are_there(name: torch.device | str) -> None:
    assert require_device(name) == name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_missing_gpu_is_an_error(name: torch.device | str, tmp_path: Path) -> None:
    message = f"the device '{name}' is not available here: .*Pass 'cpu', or 'auto'"
    with pytest.raises(ValueError, match=message):
        require_device(name)
    model = tiny(BC, dataset=pendulum_data())
    model.save(tmp_path / "model.zip")
    model.policy.save(tmp_path / "policy.safetensors")
    for call in (
        lambda: tiny(BC, dataset=pendulum_data(), device=name),
        lambda: BC.load(tmp_path / "model.zip", device=name),
        lambda: FlowPolicy.load(tmp_path / "policy.safetensors", name),
        lambda: to_sb3_buffer(pendulum_data(), device=name),
        lambda: TransitionBuffer(10, model.observation_space, model.action_space, name),
        lambda: load_policy(tmp_path / "model.zip", str(name)),
        lambda: train(BC, BC.Config(), TrainSettings(dataset="npz:missing.npz", device=str(name))),
    ):
        with pytest.raises(ValueError, match=message):
            call()
