"""The examples of docs/guides/pretrained.md run, in their order, against a hub on this machine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, HubServer
from tiny import pendulum_data

from flowpolicies.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # In huggingface_hub.
TEXT = (Path(__file__).parents[2] / "docs" / "guides" / "pretrained.md").read_text()
TRAIN = (
    "train bc --dataset npz:data.npz --env Pendulum-v1 --run-dir runs/pendulum --steps 10 --eval-episodes 2 "
    "--actor-hidden-dims 16 16 --flow-steps 2 --batch-size 16 --device cpu"
)


def test_the_guide(hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pendulum_data().save(Path("data.npz"))
    assert main(TRAIN.split()) == 0
    commands = [block.strip() for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)]
    assert [command.split()[1] for command in commands] == ["export", "push"]
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    assert hub.repositories["me/pendulum-bc"].private
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    capsys.readouterr()
    for block in blocks:
        exec(block, names)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("hf://me/pendulum-bc@")
    assert out[1].startswith("3 episodes (sampled actions): return -")
    assert {path.name for path in Path("pendulum-again").iterdir()} >= {"config.json", "model.safetensors"}
    assert set(hub.repositories["me/pendulum-bc"].branches) == {"main", "v2"}
