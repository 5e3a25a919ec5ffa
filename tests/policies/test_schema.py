"""Stored policies of every version of the declaration, and migration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from flowpolicies import FlowPolicy
from flowpolicies.artifacts import ArtifactError
from flowpolicies.policies.schema import FORMAT, MIGRATIONS, VERSION, newest

SAVED = Path(__file__).parents[1] / "saved" / "pretrained"
STORED = sorted(folder.name for folder in SAVED.iterdir() if folder.is_dir())


def declared(name: str) -> tuple[dict[str, Any], str]:
    """The declaration of a stored policy as it is in its file, and the key of its version."""
    path = SAVED / name / "policy"
    if path.is_dir():
        return json.loads((path / "config.json").read_text()), "schema_version"
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["config"]), "version"


@pytest.mark.parametrize("name", STORED)
def test_a_stored_policy_acts_as_it_did(name: str) -> None:
    policy = FlowPolicy.from_pretrained(SAVED / name / "policy", device="cpu")
    with np.load(SAVED / name / "actions.npz") as file:
        observations = {key: file[key] for key in ("position", "goal")}
        np.testing.assert_allclose(policy.predict(observations, deterministic=True)[0], file["actions"], atol=1e-6)
    assert policy.execute == 1


@pytest.mark.parametrize("name", STORED)
def test_a_stored_policy_becomes_one_of_this_version(name: str, tmp_path: Path) -> None:
    before = FlowPolicy.from_pretrained(SAVED / name / "policy", device="cpu")
    after = FlowPolicy.from_pretrained(before.save_pretrained(tmp_path / "a"), device="cpu")
    assert after.declaration() == before.declaration()
    found = newest(declared(name)[0], "p", "", declared(name)[1])
    assert {key: value for key, value in found.items() if key not in ("name", "flowpolicies")} == before.declaration()


def test_there_is_a_stored_policy_and_a_migration_of_every_version() -> None:
    versions = {declaration[key] for declaration, key in map(declared, STORED)}
    assert versions == set(range(1, VERSION + 1))
    assert set(MIGRATIONS) == set(range(1, VERSION))


def test_an_old_file_is_not_rewritten() -> None:
    path = SAVED / "schema-1" / "policy"
    before = path.read_bytes()
    FlowPolicy.from_pretrained(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("space", [None, 3, [], {"type": "Dict"}, {"type": "Dict", "spaces": [1]}])
def test_a_damaged_old_declaration_is_an_artifact_error(space: Any) -> None:
    declaration = {"format": FORMAT, "version": 1, "observation_space": space, "action_space": {"type": "Box"}}
    with pytest.raises(ArtifactError, match="'p', metadata: "):
        newest(declaration, "p", "metadata")
