"""`save_pretrained` and `from_pretrained`: folders for others, their model cards, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import pendulum_data

from flowpolicies import Evaluation, FlowPolicy, evaluate
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.core import Network
from flowpolicies.networks import VelocityField
from flowpolicies.policies.schema import VERSION
from flowpolicies.policies.sharing import finding
from flowpolicies.samplers import Integrate

OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
FILES = {"config.json", "model.safetensors", "README.md", "results.json"}


def make(seed: int = 0, **options: Any) -> FlowPolicy:
    """A small policy for Pendulum."""
    torch.manual_seed(seed)
    networks = {"actor_flow": Network(partial(VelocityField, hidden_dims=(8, 8)), target_rate=0.005)}
    high = np.array([1, 1, 8], np.float32)
    return FlowPolicy(
        spaces.Box(-high, high),
        spaces.Box(-2, 2, (1,)),
        networks=networks,
        sampler=Integrate(steps=3),
        **options,
    )


def act(policy: FlowPolicy) -> np.ndarray:
    return policy.predict(OBSERVATIONS, deterministic=True)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make().save_pretrained(tmp_path / "folder")


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON file."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("options", [{}, {"horizon": 3, "execute": 2, "act_with": ["actor_flow"]}])
def test_a_policy_acts_as_before(options: dict[str, Any], tmp_path: Path) -> None:
    policy = make(**options)
    folder = policy.save_pretrained(tmp_path / "a" / "folder")
    assert {path.name for path in folder.iterdir()} == FILES
    for source in (folder, str(folder), folder / "model.safetensors", str(folder / "model.safetensors")):
        loaded = FlowPolicy.from_pretrained(source, device="cpu")
        np.testing.assert_array_equal(act(loaded), act(policy))
        assert loaded.declaration() == policy.declaration()
        assert str(loaded.origin) == str(source)
    np.testing.assert_array_equal(act(FlowPolicy.load(folder / "model.safetensors")), act(policy))


def test_a_policy_file_is_enough(tmp_path: Path) -> None:
    make().save(tmp_path / "policy.safetensors")
    loaded = FlowPolicy.from_pretrained(tmp_path / "policy.safetensors")
    np.testing.assert_array_equal(act(loaded), act(make()))


def test_the_config_is_readable_and_names_only_registered_things(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "flowpolicies.policy"
    assert config["schema_version"] == VERSION
    assert config["networks"]["actor_flow"]["type"] == "VelocityField"
    assert config["sampler"]["type"] == "Integrate"
    assert (folder / "config.json").read_text().count("\n") > 20


def test_card_and_results_say_what_was_given(tmp_path: Path) -> None:
    policy, data = make(), pendulum_data()
    evaluation = evaluate(policy, "Pendulum-v1", 3, seed=7)
    software = {"python": "3.9", "flowpolicies_commit": "f00d"}
    training = {"algorithm": "bc", "commands": ["flowpolicies train bc"], "seed": 3, "steps": {"offline": 10}}
    folder = policy.save_pretrained(
        tmp_path / "mine",
        license="cc-by-4.0",
        evaluation=evaluation,
        dataset=data,
        training={**training, "software": software},
    )
    results = json.loads((folder / "results.json").read_text())
    (found,) = results["evaluations"]
    low, high = evaluation.mean_return()[1:]
    assert found["mean_return"] == {"mean": evaluation.returns.mean(), "low": low, "high": high}
    assert (found["episodes"], found["seed"], found["environment"]) == (3, 7, "Pendulum-v1")
    assert found["success"] is None
    assert results["dataset"]["fingerprint"] == data.fingerprint
    assert results["training"]["steps"] == {"offline": 10}
    assert {"torch", "flowpolicies"} <= results["software"].keys()
    assert "cpu_count" in results["hardware"]
    card = (folder / "README.md").read_text()
    for text in (data.fingerprint, f"[{low:.0f}, {high:.0f}]", "flowpolicies train bc", "`f00d`", "`cc-by-4.0`"):
        assert text in card, text
    assert "from_pretrained(" in card


def test_leaderboards_read_the_card(tmp_path: Path) -> None:
    first = evaluate(make(), "Pendulum-v1", 3, seed=0)
    rates = Evaluation(np.array([0.0, 1.0, 1.0, 1.0]), np.ones(4), np.array([0.0, 1.0, 1.0, 1.0]), True, "Reach-v0")
    make().save_pretrained(tmp_path / "mine", name="me/mine", license="mit", evaluation=[first, rates])
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "flowpolicies"
    assert {"reinforcement-learning", "flowpolicies", "Pendulum-v1", "Reach-v0"} <= set(card.data.tags)
    assert card.data.model_name == "me/mine"
    found = {(one.dataset_name, one.metric_type): one for one in card.data.eval_results}
    assert {one.task_type for one in found.values()} == {"reinforcement-learning"}
    assert (
        found["Pendulum-v1", "mean_reward"].metric_value == f"{first.returns.mean():.2f} +/- {first.returns.std():.2f}"
    )
    success = found["Reach-v0", "success_rate"]
    assert success.metric_value == 0.75
    assert success.metric_args["low"] == rates.success_rate().low
    assert "4 episodes" in success.metric_name
    assert ("Pendulum-v1", "success_rate") not in found
    assert 'from_pretrained("me/mine")' in card.text


def test_what_was_not_given_is_said(folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    assert card.data.license is None
    assert card.text.count("Not recorded.") == 3
    assert "Not stated" in card.text
    assert card.data.eval_results is None


def test_names_cannot_break_the_card(tmp_path: Path) -> None:
    awkward = 'a: "b"\n---\n# | `c` \x1b[31m\u2028é😀 #{[*&!'
    evaluation = Evaluation(np.ones(2), np.ones(2), None, False, awkward)
    make().save_pretrained(
        tmp_path / "a", name=awkward, license=awkward, evaluation=evaluation, training={"algorithm": awkward}
    )
    card = ModelCard.load(tmp_path / "a" / "README.md")
    assert card.data.license == card.data.model_name == "a: \"b\" --- # | 'c' [31m é😀 #{[*&!"
    assert len(card.data.eval_results) == 1


@pytest.mark.parametrize("value", [1e-7, 1e20, -3.0, 0.1])
def test_numbers_of_the_card_are_numbers(value: float, tmp_path: Path) -> None:
    evaluation = Evaluation(np.full(3, value), np.ones(3), np.zeros(3), False, "X-v0")
    make().save_pretrained(tmp_path / "a", evaluation=evaluation)
    reward, success = ModelCard.load(tmp_path / "a" / "README.md").data.eval_results
    assert reward.metric_args["low"] == evaluation.mean_return().low
    assert success.metric_value == 0.0


def test_the_home_folder_of_the_user_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    training = {"commands": ["flowpolicies train bc --data-dir /home/alice/data"]}
    folder = make().save_pretrained(tmp_path / "a", dataset={"address": "npz:/home/alice/x.npz"}, training=training)
    texts = [(folder / name).read_text() for name in ("README.md", "results.json", "config.json")]
    assert not any("alice" in text for text in texts)
    assert "npz:~/x.npz" in texts[0]


def test_a_policy_that_was_loaded_says_from_where(folder: Path, tmp_path: Path) -> None:
    again = FlowPolicy.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert json.loads((again / "results.json").read_text())["loaded_from"] == str(folder)


def test_an_exported_folder_is_replaced(folder: Path) -> None:
    other = make(seed=1)
    other.save_pretrained(folder)
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained(folder)), act(other))
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_folder_is_filled_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make().save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained(tmp_path / "real")), act(make()))


def test_files_of_others_are_not_deleted(folder: Path, tmp_path: Path) -> None:
    (folder / ".git").mkdir()
    with pytest.raises(FileExistsError, match=r"holds other files \(\.git\), which would be deleted"):
        make(seed=1).save_pretrained(folder)
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained(folder)), act(make()))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds other files \(README\.md\)"):
        make().save_pretrained(tmp_path / "notes")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        make().save_pretrained(tmp_path / "file")


def test_nothing_is_left_of_a_failed_attempt(tmp_path: Path) -> None:
    policy = make()
    policy.sampler = lambda nets, observations, noise: None
    with pytest.raises(TypeError, match="cannot be saved without pickle"):
        policy.save_pretrained(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(horizon=2), r"horizon: config\.json and model\.safetensors declare different"),
        (lambda config: config["sampler"].update(steps=9), "sampler: .* declare different policies"),
        (lambda config: config.pop("encoder"), "encoder: .* declare different policies"),
        (lambda config: config.update(more=1), "more: .* declare different policies"),
        (
            lambda config: config.update(schema_version=99),
            "schema_version is 99, .* pip install --upgrade flowpolicies",
        ),
        (lambda config: config.update(schema_version="2"), "schema_version is '2', but must be a number from 1"),
        (lambda config: config.update(schema_version=True), "schema_version is True, but must be a number"),
        (lambda config: config.pop("schema_version"), "schema_version is None"),
        (lambda config: config.update(format="bert"), "its format is 'bert', but must be 'flowpolicies.policy'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change: Callable[..., Any], message: str, folder: Path) -> None:
    edit(folder / "config.json", change)
    with pytest.raises(ArtifactError, match=message):
        FlowPolicy.from_pretrained(folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"[]", b"null", b'"text"', b"{", b'{"format": 1, "format": 2}', b"[" * 10**5, b" " * 1_000_001],
    ids=["empty", "utf-16", "list", "null", "text", "cut", "twice", "deep", "large"],
)
def test_a_damaged_config_is_refused(text: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(text)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        FlowPolicy.from_pretrained(folder)


def test_any_damage_of_the_config_is_refused_or_harmless(folder: Path) -> None:
    rng, whole, expected = np.random.default_rng(0), (folder / "config.json").read_bytes(), act(make())
    loaded = 0
    for _ in range(200):
        text = bytearray(whole)
        for place in rng.integers(len(text), size=rng.integers(1, 4)):
            text[place] = rng.integers(256)
        (folder / "config.json").write_bytes(text)
        try:
            policy = FlowPolicy.from_pretrained(folder, device="cpu")
        except ArtifactError:
            continue
        np.testing.assert_array_equal(act(policy), expected)  # The name, or a blank.
        loaded += 1
    assert loaded < 100


def test_damaged_or_foreign_weights_are_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for content in (b"", whole[:100], whole[:-1], b"\xff" * 1000):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"model\.safetensors"):
            FlowPolicy.from_pretrained(folder)
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="its format is None"):
        FlowPolicy.from_pretrained(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        FlowPolicy.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        FlowPolicy.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"no such folder or file.* Did you mean 'folder'"):
        FlowPolicy.from_pretrained(tmp_path / "foldr")
    with pytest.raises(FileNotFoundError, match="Names of repositories are user/name"):
        FlowPolicy.from_pretrained("one-word")


def test_a_run_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "fql", "settings": {}}))
    with pytest.raises(ArtifactError, match=r"is the folder of a training run. .*flowpolicies export"):
        FlowPolicy.from_pretrained(tmp_path)


def test_a_revision_is_for_repositories_only(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a folder or file of this machine, which has no revision 'main'"):
        FlowPolicy.from_pretrained(folder, revision="main")


def test_policies_of_the_package_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "BOX", tmp_path / "box")
    monkeypatch.chdir(tmp_path)
    policy = make()
    policy.save_pretrained(tmp_path / "box" / "pendulum-flow")
    loaded = FlowPolicy.from_pretrained("flowpolicies/pendulum-flow")
    np.testing.assert_array_equal(act(loaded), act(policy))
    assert str(loaded.origin) == "flowpolicies/pendulum-flow"
    with pytest.raises(FileNotFoundError, match=r"it brings: pendulum-flow\). Did you mean 'pendulum-flow'"):
        FlowPolicy.from_pretrained("flowpolicies/pendulum-flw")
    with pytest.raises(FileNotFoundError, match="hf://flowpolicies/"):
        FlowPolicy.from_pretrained("flowpolicies/..")


def test_a_folder_comes_before_the_package_and_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("flowpolicies/a", "user/a"):
        shutil.copytree(folder, name)
        assert FlowPolicy.from_pretrained(name).origin == (name, None)


def test_every_policy_of_the_package_is_complete_and_small() -> None:
    for name in finding.list_box():
        policy = FlowPolicy.from_pretrained(f"flowpolicies/{name}", device="cpu")
        folder = finding.BOX / name
        assert {path.name for path in folder.iterdir()} == FILES
        assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
        card = ModelCard.load(folder / "README.md")
        assert card.data.license
        assert card.data.eval_results
        assert f'"flowpolicies/{name}"' in card.text
        assert np.isfinite(policy.predict(policy.observation_space.sample())[0]).all()


def test_the_metadata_of_the_weights_are_the_declaration(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["config"])["networks"] == make().declaration()["networks"]


def test_commands_take_shared_policies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finding, "BOX", tmp_path / "box")
    monkeypatch.setattr("flowpolicies.comparison.runs.BOX", tmp_path / "box")
    monkeypatch.chdir(tmp_path)
    policy = make()
    evaluation = evaluate(policy, "Pendulum-v1", 1, seed=0)
    policy.save_pretrained(tmp_path / "box" / "pendulum", evaluation=evaluation)
    policy.save_pretrained(tmp_path / "mine", evaluation=evaluation)
    words = ("--episodes", "1", "--seed", "0", "--device", "cpu")
    assert main(["evaluate", "flowpolicies/pendulum", *words]) == 0
    expected = f"Pendulum-v1: {evaluation}\n"
    assert capsys.readouterr().out == expected
    assert main(["evaluate", "mine", *words, "--env", "Pendulum-v1"]) == 0
    assert capsys.readouterr().out == expected
    assert main(["evaluate", "mine", *words]) == 2  # The address of a stranger could import a module.
    assert "Pass --env. Its author evaluated it in 'Pendulum-v1'." in capsys.readouterr().err
    assert main(["rollout", "--policy", "mine", "--env", "Pendulum-v1", "--out", "npz:a.npz", "--episodes", "1"]) == 0
    assert (tmp_path / "a.npz").is_file()
    assert main(["evaluate", "hf://me", *words, "--env", "Pendulum-v1"]) == 2
    assert "'hf://me' is not an address of the Hub" in capsys.readouterr().err
