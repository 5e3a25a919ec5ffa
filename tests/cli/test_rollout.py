from __future__ import annotations

from pathlib import Path
from typing import Any

from flowpolicies.data import load_dataset


def test_what_was_rolled_out_can_be_shown_and_trained_on(
    call: Any, policy: Path, tiny_run: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "rollout.npz"
    words = ("rollout", policy, "--env", "Pendulum-v1", "--episodes", 2, "--output", file)
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert "2 episodes (sampled actions): return -" in answer.out
    assert call("data", "show", f"npz:{file}").out in answer.out
    dataset = load_dataset(f"npz:{file}")
    assert len(dataset) == 400
    assert dataset.provenance["policy"] == str(policy)
    assert dataset.provenance["env"] == "Pendulum-v1"
    refused = call(*words)
    assert refused.code == 2
    assert "exists. Pass --overwrite, or another --output." in refused.err
    assert call(*words, "--overwrite").code == 0
    assert load_dataset(f"npz:{file}").fingerprint == dataset.fingerprint
    assert call("train", "bc", *tiny_run, "--dataset", f"npz:{file}", "--eval-episodes", 0).code == 0


def test_the_file_must_be_an_npz(call: Any, policy: Path, tmp_path: Path) -> None:
    answer = call("rollout", policy, "--env", "Pendulum-v1", "--output", tmp_path / "a.hdf5")
    assert answer.code == 2
    assert "--output must end in .npz" in answer.err
