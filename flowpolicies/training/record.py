"""What it takes to repeat a run, as JSON data."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import flowpolicies
from flowpolicies.data import TransitionDataset

PACKAGES = ("torch", "numpy", "gymnasium", "stable_baselines3", "ogbench", "mujoco", "minari")


def describe_dataset(dataset: TransitionDataset) -> dict[str, Any]:
    """Fingerprint, provenance and summary numbers."""
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
    """Versions of Python and of the packages that results depend on, as far as they are installed."""
    versions = {"python": platform.python_version(), "flowpolicies": flowpolicies.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = source_commit(Path(flowpolicies.__file__).parent)
    return versions if commit is None else {**versions, "flowpolicies_commit": commit}


def describe_hardware() -> dict[str, Any]:
    """Processor, number of cores and threads, and accelerator; nothing that names the machine."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    """Linux tells the model only in a file."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def source_commit(folder: Path) -> str | None:
    """Git commit of the checkout that `folder` is part of, with "-dirty" if it was changed; None without one.

    A package that is merely installed below some repository, in its virtual environment, is not part of it.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
