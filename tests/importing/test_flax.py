"""Checkpoints of the authors' code act as recorded, and what cannot be imported is refused with a reason."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from authors import agent, recording, write_checkpoint
from gymnasium import spaces

from flowpolicies import FlowPolicy
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.core import ReplayedNoise
from flowpolicies.importing import import_flax, importable

RECORDED = {
    "fql_a": "fql",
    "qam_fql_a": "fql",
    "qam_a": "qam",
    "qam_e_a": "qam_e",
    "qam_f_a": "qam_f",
    "qflow_a": "qflow",
    "qflow_official_fourier_a": "qflow",
    "qflow_official_adv_best_a": "qflow",
    "rql_a": "rql",
}
"""Recording -> algorithm."""


def difference(policy: FlowPolicy, name: str) -> float:
    """Largest difference between the policy's actions and the recorded ones, from the recorded noise."""
    _, arrays = recording(name)
    keys = sorted(key for key in arrays if key.startswith("sample_draw/"))
    drawn = [torch.from_numpy(arrays[key]) for key in keys]
    # TensorFlow Probability draws a diagonal normal with its event axis in front.
    draws = [draw.movedim(0, -1) if "_normal_jax" in key else draw for key, draw in zip(keys, drawn, strict=True)]
    observations = torch.from_numpy(arrays["sample/observations"])
    with torch.no_grad():
        actions = policy.sampler(policy.view(), observations, ReplayedNoise(policy.chunk_dim, draws)).numpy()
    return float(np.abs(actions.reshape(-1) - arrays["sample/actions"].reshape(-1)).max())


def test_every_importable_algorithm_has_a_recording() -> None:
    assert set(RECORDED.values()) == set(importable())


@pytest.mark.parametrize("name", RECORDED)
def test_the_policy_acts_as_recorded(name: str, tmp_path: Path) -> None:
    imported = import_flax(write_checkpoint(tmp_path, name), RECORDED[name])
    assert difference(imported.policy, name) < 1e-5
    horizon = recording(name)[0].get("horizon_length", recording(name)[0].get("h", 1))
    assert imported.policy.horizon == imported.config.horizon == horizon
    assert imported.policy.action_space == spaces.Box(-1.0, 1.0, (3,), np.float32)
    assert imported.policy.observation_space.shape == (6,)


@pytest.mark.parametrize("name", RECORDED)
def test_the_written_policy_acts_as_recorded_too(name: str, tmp_path: Path) -> None:
    out = tmp_path / "policy.safetensors"
    path = write_checkpoint(tmp_path, name)
    assert main(["import", "flax", str(path), "--algorithm", RECORDED[name], "--out", str(out)]) == 0
    policy = FlowPolicy.load(out)
    assert difference(policy, name) < 1e-5
    actions, _ = policy.predict(np.zeros((2, 6), np.float32))
    assert actions.shape == (2, 3)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_is_read(protocol: int, tmp_path: Path) -> None:
    assert difference(import_flax(write_checkpoint(tmp_path, "fql_a", protocol), "fql").policy, "fql_a") < 1e-5


def test_fql_needs_no_file_of_hyperparameters(tmp_path: Path) -> None:
    imported = import_flax(write_checkpoint(tmp_path, "fql_a", flags=False), "fql")
    assert difference(imported.policy, "fql_a") < 1e-5
    assert imported.config.actor_hidden_dims == imported.config.value_hidden_dims == (24, 24, 24)
    assert imported.config.value_layer_norm
    assert not imported.config.actor_layer_norm


@pytest.mark.parametrize("name", ["qam_a", "qam_e_a", "qam_f_a", "qflow_a", "rql_a"])
def test_options_take_the_place_of_the_file_of_hyperparameters(name: str, tmp_path: Path) -> None:
    path, (config, _) = write_checkpoint(tmp_path, name, flags=False), recording(name)
    horizon = config.get("horizon_length", config.get("h", 1))
    options: dict[str, Any] = {"flow_steps": 10, "horizon_length": horizon}
    if name == "qam_e_a":
        options["edit_scale"] = 0.1
    imported = import_flax(path, RECORDED[name], **options)
    assert difference(imported.policy, name) < 1e-5
    assert imported.config.ensemble == config.get("num_qs", config.get("ensemble_ct", config.get("num_ensembles")))


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "qam_a", flow_steps=3)
    assert difference(import_flax(path, "qam").policy, "qam_a") > 1e-3
    assert difference(import_flax(path, "qam", flow_steps=10).policy, "qam_a") < 1e-5


def test_steps_of_the_return_are_not_a_chunk(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "qam_a", action_chunking=False, horizon_length=4)
    policy = import_flax(path, "qam").policy
    assert policy.horizon == 1
    assert policy.action_space.shape == (12,)


def test_candidates_are_chosen_by_the_critics(tmp_path: Path) -> None:
    config = import_flax(write_checkpoint(tmp_path, "qam_a", best_of_n=4), "qam").config
    assert config.best_of_n == 4
    assert config.sampler().n == 4


@pytest.mark.parametrize(("name", "missing"), [("qam_a", "horizon_length and flow_steps"), ("qflow_a", "flow_steps")])
def test_a_missing_hyperparameter_is_asked_for(name: str, missing: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"says what {missing} was, .* Pass --.* N, or .*--flags FILE"):
        import_flax(write_checkpoint(tmp_path, name, flags=False), RECORDED[name])


def test_the_environment_gives_the_spaces_and_the_length_of_the_chunks(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "qam_a", flags=False)
    with pytest.raises(ValueError, match="observations of 6 numbers, but Pendulum-v1 has Box"):
        import_flax(path, "qam", env="Pendulum-v1", flow_steps=10)
    with pytest.raises(ValueError, match="12 numbers, which are not 5 actions"):
        import_flax(path, "qam", flow_steps=10, horizon_length=5)


def test_another_algorithm_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "qam_f_a")
    with pytest.raises(ArtifactError, match=r"one_step_actor.*pass --algorithm qam_f"):
        import_flax(path, "qam")
    with pytest.raises(ValueError, match=r"cannot be imported; those of fql, .* can. Did you mean 'qflow'?"):
        import_flax(path, "q_flow")


def changed(folder: Path, **networks: Any) -> Path:
    """The checkpoint of FQL with some networks replaced, or left out if None."""
    state = agent(recording("fql_a")[1])
    state["network"]["params"] |= networks
    state["network"]["params"] = {key: value for key, value in state["network"]["params"].items() if value is not None}
    path = folder / "params_1.pkl"
    path.write_bytes(pickle.dumps({"agent": state}))
    return path


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    whole = agent(recording("fql_a")[1])["network"]["params"]["modules_critic"]["value_net"]
    with pytest.raises(ArtifactError, match=r"slow copies.*critic"):
        import_flax(changed(tmp_path, modules_target_critic=None), "fql")
    with pytest.raises(ArtifactError, match=r"actor_bc_flow_encoder.*flat observations"):
        import_flax(changed(tmp_path, modules_actor_bc_flow_encoder={"a": {"kernel": np.ones(2)}}), "fql")
    cut = {"value_net": {key: value for key, value in whole.items() if key != "LayerNorm_1"}}
    with pytest.raises(ArtifactError, match=r"critic lacks .*net.norms.1.bias"):
        import_flax(changed(tmp_path, modules_critic=cut), "fql")
    nan = {"value_net": {**whole, "Dense_3": {"kernel": np.full((2, 24, 1), np.nan, "f4"), "bias": np.zeros((2, 1))}}}
    with pytest.raises(ArtifactError, match=r"critic/value_net/Dense_3/kernel.*not finite"):
        import_flax(changed(tmp_path, modules_critic=nan), "fql")
    with pytest.raises(ArtifactError, match=r"actor_bc_flow.*str where an array"):
        import_flax(changed(tmp_path, modules_actor_bc_flow="text"), "fql")
    with pytest.raises(FileNotFoundError):
        import_flax(tmp_path / "nothing.pkl", "fql")


def test_sizes_are_compared_before_memory_is_used(tmp_path: Path) -> None:
    state = agent(recording("fql_a")[1])
    critic = state["network"]["params"]["modules_critic"]["value_net"]
    for layer in ("Dense_0", "Dense_1", "Dense_2"):
        critic[layer]["bias"] = np.zeros((2, 10**6), np.float32)  # Networks of such widths would have terabytes.
    path = tmp_path / "params_1.pkl"
    path.write_bytes(pickle.dumps({"agent": state}))
    with pytest.raises(ArtifactError, match=r"critic.*has the shape"):
        import_flax(path, "fql")


@pytest.mark.parametrize(
    "content", [{}, {"agent": {"network": {}}}, [1, 2], 3, {"agent": {"network": {"params": {"critic": {}}}}}]
)
def test_pickles_of_something_else_are_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "params_1.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ArtifactError, match="no networks"):
        import_flax(path, "fql")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("{", "flags.json"),
        ("[]", "key 'agent'"),
        (" " * 2_000_000, "2,000,000 bytes"),
        ('{"agent": {"flow_steps": "ten", "horizon_length": 4}}', "flow_steps"),
        ('{"agent": {"flow_steps": 10, "horizon_length": 4, "actor_hidden_dims": [24]}}', "is it of this checkpoint"),
        ('{"agent": {"flow_steps": 10, "horizon_length": 4, "value_hidden_dims": "wide"}}', "value_hidden_dims"),
        ('{"agent": {"flow_steps": 1000000000, "horizon_length": 4}}', "flow_steps must be a number from 1 to 10,000"),
        (
            '{"agent": {"flow_steps": 10, "horizon_length": 4, "actor_hidden_dims": [9000000, 9000000]}}',
            "is it of this",
        ),
    ],
)
def test_wrong_hyperparameters_are_refused(flags: str, message: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "qam_a")
    (tmp_path / "flags.json").write_text(flags)
    with pytest.raises(ArtifactError, match=message):
        import_flax(path, "qam")


def test_the_command_keeps_existing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_checkpoint(tmp_path, "fql_a"), tmp_path / "policy.safetensors"
    out.write_text("mine")
    command = ["import", "flax", str(path), "--algorithm", "fql", "--out", str(out)]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert "actions Box(-1.0, 1.0, (3,), float32), planned 1 at a time" in capsys.readouterr().out


def test_neither_jax_nor_flax_is_imported(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "fql_a")
    code = (
        "import sys\n"
        "from flowpolicies.importing import import_flax\n"
        f"import_flax({str(path)!r}, 'fql')\n"
        "print(sorted({'jax', 'flax', 'optax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
