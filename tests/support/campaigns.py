"""Runs a module of this folder in a process of its own, whose limits and audit hooks end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_module(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m name words`, with the package of this checkout."""
    path = os.pathsep.join(
        map(str, (ROOT, ROOT / "integrations", ROOT / "tests" / "support", ROOT / "tests" / "parity"))
    )
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "FLOWPOLICIES_OFFLINE": "1"}
    command = [sys.executable, "-P", "-m", name, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT)
