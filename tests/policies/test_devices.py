"""Names of devices, most of which are judged without torch."""

from __future__ import annotations

import re

import pytest
import torch

from flowpolicies.policies.devices import KINDS, check_device


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
