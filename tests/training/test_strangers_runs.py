"""Run folders of strangers: reading and continuing them imports and executes nothing, and stays in the folder."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from audit import audited
from same_runs import OFFLINE

from flowpolicies.algorithms import FQL
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.comparison.evaluating import reference_scores
from flowpolicies.comparison.runs import NamedRun
from flowpolicies.data.dataset.transforms import REFERENCE
from flowpolicies.data.foreign import check_environment
from flowpolicies.policies import Evaluation
from flowpolicies.training import RunFolder, load_checkpoint
from flowpolicies.training.exact.physics import capture_model, restore_model

ONLINE = {"dataset": None, "steps": 0, "online_steps": 6, "checkpoint_every": 3, "eval_every": 0}


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when the module `trap_module` is imported, which registers an environment."""
    witness = tmp_path / "imported"
    (tmp_path / "trap_module.py").write_text(
        f"import gymnasium, pathlib\npathlib.Path({str(witness)!r}).touch()\n"
        "gymnasium.register('Trap-v0', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "trap_module", raising=False)
    return witness


@pytest.fixture
def stranger(folder: RunFolder, undisturbed: RunFolder) -> RunFolder:
    """A copy of a run, to be changed."""
    shutil.copytree(undisturbed.path, folder.path)
    return folder


@pytest.fixture
def online(folder: RunFolder, run: Callable[..., RunFolder], kept: Path) -> RunFolder:
    """A copy of a run with online steps, to be changed."""
    whole = RunFolder(kept / "online")
    if not whole.model.is_file():
        run(**ONLINE, run_dir=whole.path)
    shutil.copytree(whole.path, folder.path)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("trap_module:Trap-v0", "does not begin with a source"),
        ("trap_module:Trap-v0,g=9", "does not begin with a source"),
        ("minari:x,trust=true", "asks for trust itself"),
        ("Trap-v0", "is not registered"),
        ("Pendulum-v1,env_id=trap_module:Trap-v0", "may name a module"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_no_record_of_a_run_decides_what_is_imported(
    address: str, fault: str, command: str, stranger: RunFolder, trap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(stranger.config, env=address)
    words = [command, str(stranger.path), "--episodes", "1", "--device", "cpu"]
    words += ["--out", str(trap.parent / "out")] if command == "export" else []
    assert main(words) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert fault in text
    assert "pass --env ADDRESS yourself" in text
    assert not trap.exists()


def test_the_own_word_of_the_user_is_followed(stranger: RunFolder, trap: Path) -> None:
    edit(stranger.config, env="trap_module:Trap-v0")
    words = ["evaluate", str(stranger.path), "--episodes", "1", "--device", "cpu", "--env", "trap_module:Trap-v0"]
    main(words)  # Its spaces are not those of the policy.
    assert trap.exists()


def test_a_continued_run_makes_what_the_command_names(
    stranger: RunFolder, run: Callable[..., RunFolder], trap: Path
) -> None:
    settings = json.loads(stranger.config.read_text())["settings"]
    data = {"address": "sb3:x.pkl,trust=true", "provenance": {"env": "trap_module:Trap-v0"}}
    changed = {**settings, "env": "trap_module:Trap-v0", "dataset": "sb3:x.pkl,trust=true"}
    record = json.loads(stranger.config.read_text())
    edit(stranger.config, settings=changed, dataset={**record["dataset"], **data})
    run(**OFFLINE, resume=True)
    assert not trap.exists()
    edit(stranger.config, env="trap_module:Trap-v0")
    with pytest.raises(ValueError, match="other settings than it was started with"):
        run(**OFFLINE, resume=True)
    assert not trap.exists()


@pytest.mark.parametrize("address", ["Pendulum-v1", "Pendulum-v1,g=9.81"])
def test_environments_of_gymnasium_are_followed(address: str) -> None:
    assert check_environment(address, "config.json") == address


class Call:
    def __reduce__(self) -> Any:
        return os.system, ("echo owned",)


def test_a_checkpoint_is_read_without_executing_anything(
    online: RunFolder,
) -> None:
    with audited() as events:
        assert load_checkpoint(FQL, online, device="cpu").num_timesteps == 6
    # torch's own restricted reader looks its names up in a list.
    assert not [event for event in events if not event.startswith("pickle.find_class")]


@pytest.mark.parametrize("ending", [".buffer.pkl", ".state.npz", ".zip"])
def test_a_hostile_part_of_a_checkpoint_is_refused(
    ending: str, online: RunFolder, run: Callable[..., RunFolder], capfd: pytest.CaptureFixture[str]
) -> None:
    for checkpoint in online.list_checkpoints():
        part, manifest = checkpoint.with_suffix(ending), checkpoint.with_suffix(".json")
        if ending == ".state.npz":
            np.savez(part, plan=np.array([Call()], dtype=object))
        else:
            part.write_bytes(pickle.dumps(Call()))
        content = part.read_bytes()  # The checksums are those of the hostile file.
        known = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        edit(manifest, files={**json.loads(manifest.read_text())["files"], part.name: known})
    with audited() as events, pytest.raises(ArtifactError) as error:
        run(**{**ONLINE, "online_steps": 9}, resume=True)
    assert error.value.path.endswith(ending)
    assert not [event for event in events if "owned" in event or event.startswith(("os.system", "os.posix"))]
    assert "owned" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/passwd", "..", "", "step_1.zip", "a\0b", "step_000000012.zip/x"]
)
def test_a_manifest_names_files_of_its_checkpoint_only(name: str, stranger: RunFolder) -> None:
    newest = stranger.latest()
    assert newest is not None
    manifest = newest.with_suffix(".json")
    files = json.loads(manifest.read_text())["files"]
    edit(manifest, files={**files, name: {"bytes": 1, "sha256": "0"}})
    assert stranger.newest_whole() == stranger.list_checkpoints()[-2], "the manifest counts as damaged"


@pytest.mark.parametrize(
    "changes", [{"events": [1]}, {"events": {"x": "many"}}, {"pending": {"x": 1}}, {"progress": None}, {"more": 1}]
)
def test_a_manifest_with_a_wrong_state_of_the_logs_is_damaged(changes: dict[str, Any], stranger: RunFolder) -> None:
    newest = stranger.latest()
    assert newest is not None
    manifest = newest.with_suffix(".json")
    edit(manifest, log={**json.loads(manifest.read_text())["log"], **changes})
    assert stranger.newest_whole() == stranger.list_checkpoints()[-2]


@pytest.mark.parametrize(
    "name", ["progress.csv", ".lock", "tensorboard/offline/x", "tensorboard", "checkpoints/step_0.zip"]
)
@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_nothing_is_written_or_deleted_through_a_link(
    name: str, how: str, stranger: RunFolder, run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("precious\n")
    target = stranger.path / name
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    target.symlink_to(outside if name == "tensorboard" else outside / "mine")
    for options in ({how: True}, {}):
        with pytest.raises((ArtifactError, FileExistsError), match="symbolic link"):
            run(**OFFLINE, **options)
    assert (outside / "mine").read_text() == "precious\n"
    assert [entry.name for entry in outside.iterdir()] == ["mine"]


@pytest.mark.parametrize("wrong", [{"min": "low", "max": 1}, {}, [], None, 3, {"min": 1, "max": {}}])
def test_a_damaged_reference_of_the_score_is_one_error(
    wrong: object, stranger: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(stranger.config.read_text())
    edit(stranger.config, dataset={**record["dataset"], "provenance": {REFERENCE: wrong}})
    evaluation, run = Evaluation(np.ones(2), np.ones(2), None, deterministic=False), NamedRun(stranger.path, None)
    with pytest.raises(ArtifactError, match=r"config\.json', dataset, provenance"):
        reference_scores(run, record["env"], evaluation.returns)
    edit(stranger.config, dataset={**record["dataset"], "provenance": wrong})
    assert reference_scores(run, record["env"], evaluation.returns) is None


def test_a_state_does_not_change_the_indices_of_a_simulation() -> None:
    pytest.importorskip("mujoco")
    with closing(gym.make("Hopper-v5")) as env:
        model: Any = env.unwrapped.model  # type: ignore[attr-defined]
        state = capture_model(model)
        before = model.jnt_qposadr.copy()
        state["arrays"]["jnt_qposadr"] = before + 10**6
        state["arrays"]["geom_friction"] = 2 * model.geom_friction
        restore_model(model, state)
        np.testing.assert_array_equal(model.jnt_qposadr, before)
        np.testing.assert_array_equal(model.geom_friction, state["arrays"]["geom_friction"])
