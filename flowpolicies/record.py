"""Descriptions of dataset, software and hardware for the record of a run, as JSON data."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from flowpolicies.data import TransitionDataset
from flowpolicies.version import __version__

PACKAGES = ("torch", "numpy", "gymnasium", "stable_baselines3", "ogbench", "mujoco", "minari")


def describe_dataset(dataset: TransitionDataset) -> dict[str, Any]:
    """Fingerprint, size, rewards and provenance of a dataset."""
    rewards = dataset.rewards
    return {
        "fingerprint": dataset.fingerprint,
        "transitions": len(dataset),
        "episodes": dataset.num_episodes,
        "reward": {"min": float(rewards.min()), "mean": float(rewards.mean()), "max": float(rewards.max())},
        "terminations": int((dataset.masks == 0).sum()),
        "provenance": dataset.provenance,
    }


def describe_software() -> dict[str, str]:
    """Versions of Python and of the installed packages that influence results."""
    versions = {"python": platform.python_version(), "flowpolicies": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = source_commit(Path(__file__).parent)
    return versions if commit is None else {**versions, "flowpolicies_commit": commit}


def describe_hardware() -> dict[str, Any]:
    """Platform, processor, number of cores and threads, and GPU, without names of the machine or of its user."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    """Model of the processor, which Linux reports in a file only."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def source_commit(folder: Path) -> str | None:
    """Git commit of the checkout that contains `folder`, with "-dirty" if files were changed; None without a checkout.

    A package in a virtual environment inside a repository is not part of that repository.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
