"""Policies in repositories of the Hugging Face Hub, against a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hub_server import READ_ONLY, TOKEN, HubServer, Repository, running_hub
from huggingface_hub import ModelCard, constants

from flowpolicies import Evaluation, FlowPolicy
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.core import Network
from flowpolicies.networks import VelocityField
from flowpolicies.policies.sharing.hub import HubId, parse_hub_id
from flowpolicies.samplers import Integrate

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # In huggingface_hub.
OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def make(seed: int = 0) -> FlowPolicy:
    torch.manual_seed(seed)
    networks = {"actor_flow": Network(partial(VelocityField, hidden_dims=(8, 8)))}
    box = spaces.Box(-1, 1, (3,))
    return FlowPolicy(box, spaces.Box(-2, 2, (1,)), networks=networks, sampler=Integrate(steps=3))


def act(policy: FlowPolicy) -> np.ndarray:
    return policy.predict(OBSERVATIONS, deterministic=True)[0]


def push(seed: int = 0, repo: str = "me/reach", **options: Any) -> str:
    """Uploads a policy, and returns the commit."""
    return make(seed).push_to_hub(repo, token=TOKEN, **options).rpartition("/")[2]


def test_a_policy_comes_back_from_the_hub(hub: HubServer) -> None:
    evaluation = Evaluation(np.arange(4.0), np.ones(4), np.ones(4), False, "Reach-v0", 0)
    commit = push(license="mit", evaluation=evaluation, commit_message="First policy")
    for source in ("me/reach", "hf://me/reach", "hf://me/reach@main", f"me/reach@{commit}"):
        loaded = FlowPolicy.from_pretrained(source)
        np.testing.assert_array_equal(act(loaded), act(make()))
        assert loaded.origin == ("hf://me/reach", commit)
        assert str(loaded.origin) == f"hf://me/reach@{commit}"
    repository = hub.repositories["me/reach"]
    files = repository.commits[commit]
    assert files.keys() == {"config.json", "model.safetensors", "README.md", "results.json"}
    assert repository.messages[-1] == "First policy"
    card = ModelCard(files["README.md"].decode())
    assert hub.validated == [files["README.md"].decode()]
    assert card.data.model_name == "me/reach"
    assert {result.metric_type for result in card.data.eval_results} == {"mean_reward", "success_rate"}
    assert 'from_pretrained("me/reach")' in card.text


def test_only_what_loading_needs_is_downloaded_once(hub: HubServer) -> None:
    commit = push()
    hub.requests.clear()
    FlowPolicy.from_pretrained("me/reach")
    downloaded = [path.rpartition("/")[2] for kind, path in hub.requests if kind == "GET" and "/cdn/" not in path]
    assert downloaded == ["config.json"]
    assert len([path for _, path in hub.requests if "/cdn/" in path]) == 1
    assert not any("README" in path or "results" in path for _, path in hub.requests)
    hub.requests.clear()
    FlowPolicy.from_pretrained("me/reach", revision=commit)
    assert hub.requests == []
    FlowPolicy.from_pretrained("me/reach")
    assert {kind for kind, _ in hub.requests} == {"HEAD"}


def test_a_revision_pins_the_policy(hub: HubServer) -> None:
    first, second = push(0), push(1)
    push(2, revision="trial")
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach", revision=first)), act(make(0)))
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained(f"hf://me/reach@{second}")), act(make(1)))
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach")), act(make(1)))
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach@trial")), act(make(2)))
    with pytest.raises(FileNotFoundError, match="'hf://me/reach' has no revision 'nothing'"):
        FlowPolicy.from_pretrained("me/reach@nothing")
    with pytest.raises(ValueError, match="names the revision 'a', but revision='b' is given"):
        FlowPolicy.from_pretrained("me/reach@a", revision="b")


def test_a_branch_that_moves_while_downloading_does_no_harm(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = push(0)
    import huggingface_hub

    usual = huggingface_hub.hf_hub_download

    def between(repo: str, file: str, **options: Any) -> str:
        path = usual(repo, file, **options)
        if file == "config.json":
            hub.repositories["me/reach"].commit({"model.safetensors": b"other"}, "moved")
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", between)
    loaded = FlowPolicy.from_pretrained("me/reach")
    np.testing.assert_array_equal(act(loaded), act(make(0)))
    assert loaded.origin.commit == first


def test_offline_the_cache_is_used(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    push()
    FlowPolicy.from_pretrained("me/reach")
    hub.requests.clear()
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach", local_files_only=True)), act(make()))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach")), act(make()))
    for options in ({"local_files_only": True}, {}):
        with pytest.raises(
            FileNotFoundError, match=r"'hf://me/other' is not in the cache, .* pass the path of a folder"
        ):
            FlowPolicy.from_pretrained("hf://me/other", **options)
    with pytest.raises(FileNotFoundError, match="is not in the cache"):
        FlowPolicy.from_pretrained("me/reach", cache_dir=tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"cannot reach|offline"):
        push()
    assert hub.requests == []


def test_a_failing_server_does_not_matter_if_the_policy_is_there(hub: HubServer) -> None:
    commit = push()
    FlowPolicy.from_pretrained("me/reach")
    hub.broken = 500
    assert FlowPolicy.from_pretrained("me/reach").origin.commit == commit
    with pytest.raises(OSError, match=r"failed with 'hf://me/reach': .*500"):
        push()


def test_what_is_not_there_is_named(hub: HubServer) -> None:
    push()
    with pytest.raises(FileNotFoundError, match=r"no repository 'me/raech' at http://127.* or it is private"):
        FlowPolicy.from_pretrained("hf://me/raech")
    with pytest.raises(FileNotFoundError, match="there is no folder or file 'runs/a' here, and there is no repository"):
        FlowPolicy.from_pretrained("runs/a")
    hub.repositories["me/empty"] = Repository()
    with pytest.raises(ArtifactError, match=r"'hf://me/empty': .* not both config\.json and model\.safetensors"):
        FlowPolicy.from_pretrained("me/empty")
    hub.repositories["me/half"] = Repository()
    config = hub.repositories["me/reach"].commits[hub.repositories["me/reach"].branches["main"]]["config.json"]
    hub.repositories["me/half"].commit({"config.json": config}, "half")
    with pytest.raises(ArtifactError, match=r"not both config\.json and model\.safetensors"):
        FlowPolicy.from_pretrained("me/half")


def test_a_mistyped_path_is_not_looked_up(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "runs" / "fql").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"Did you mean 'fql'\? A repository of that name would be hf://runs/fqk"
    ):
        FlowPolicy.from_pretrained("runs/fqk")
    with pytest.raises(FileNotFoundError, match=r"would be hf://mine/policy\.safetensors"):
        FlowPolicy.from_pretrained("mine/policy.safetensors")
    assert hub.requests == []
    push(repo="runs/fqk")
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("hf://runs/fqk")), act(make()))


def test_private_and_gated_repositories_need_a_token(hub: HubServer, tmp_path: Path) -> None:
    push(private=True)
    assert hub.repositories["me/reach"].private
    with pytest.raises(FileNotFoundError, match=r"or it is private.* log in with `hf auth login` or pass token="):
        FlowPolicy.from_pretrained("me/reach")
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach", token=READ_ONLY)), act(make()))
    hub.repositories["me/reach"].gated = True
    with pytest.raises(PermissionError, match=r"is gated: ask for access at http://.*/me/reach"):
        FlowPolicy.from_pretrained("me/reach", token=READ_ONLY, cache_dir=tmp_path / "new")


def test_what_the_hub_holds_is_not_trusted(hub: HubServer) -> None:
    push()
    repository = hub.repositories["me/reach"]
    config = json.loads(repository.commits[repository.branches["main"]]["config.json"])
    for files in (
        {"config.json": b"not json"},
        {"config.json": json.dumps({**config, "schema_version": 99}).encode()},
        {"config.json": json.dumps(config).encode(), "model.safetensors": b"PK\x03\x04"},
    ):
        repository.commit(files, str(files))
        with pytest.raises(ArtifactError):
            FlowPolicy.from_pretrained("me/reach")


def test_pushing_needs_the_right_token(hub: HubServer) -> None:
    with pytest.raises(PermissionError, match=r"does not allow this for 'hf://me/reach'.*hf auth login"):
        make().push_to_hub("me/reach")
    with pytest.raises(PermissionError, match="this token does not allow writing"):
        make().push_to_hub("me/reach", token=READ_ONLY)
    with pytest.raises(ValueError, match="'reach' is not the name of a repository: it must be user/name"):
        make().push_to_hub("reach", token=TOKEN)
    assert hub.repositories == {}


def test_a_change_can_be_proposed_and_other_files_stay(hub: HubServer) -> None:
    first = push(0)
    hub.repositories["me/reach"].commit({"video.mp4": b"film"}, "film")
    url = make(1).push_to_hub("hf://me/reach", token=TOKEN, create_pr=True)
    assert url.endswith("/discussions/1")
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach", revision="refs/pr/1")), act(make(1)))
    np.testing.assert_array_equal(act(FlowPolicy.from_pretrained("me/reach")), act(make(0)))
    last = push(1)
    assert "video.mp4" in hub.repositories["me/reach"].commits[last]
    assert first != last


def test_the_command_uploads_a_folder(hub: HubServer, capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    make().save_pretrained("mine", name="me/reach", license="mit")
    assert main(["push", "mine", "me/reach", "--message", "From the shell", "--private"]) == 0
    assert "/me/reach/commit/" in capsys.readouterr().out
    assert hub.repositories["me/reach"].messages[-1] == "From the shell"
    assert hub.repositories["me/reach"].private
    loaded = FlowPolicy.from_pretrained("me/reach")
    np.testing.assert_array_equal(act(loaded), act(make()))
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"junk")
    assert main(["push", "mine", "me/junk"]) == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert "me/junk" not in hub.repositories


def test_without_huggingface_hub_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (partial(FlowPolicy.from_pretrained, "hf://me/reach"), partial(make().push_to_hub, "me/reach")):
        with pytest.raises(ImportError, match=r"pip install 'flowpolicies\[hub\]'"):
            call()
    with pytest.raises(ImportError, match="there is no folder or file 'me/reach' here, and addresses of the Hub"):
        FlowPolicy.from_pretrained("me/reach")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("me/reach", HubId("me/reach", None)),
        ("hf://me/reach@v1", HubId("me/reach", "v1")),
        ("my-org/a.b_c-2@refs/pr/3", HubId("my-org/a.b_c-2", "refs/pr/3")),
        ("reach", None),
        ("a/b/c", None),
        ("../me", None),
        ("/me", None),
        ("me/.hidden", None),
        ("me/reach@", None),
        ("me/r each", None),
        ("https://me/reach", None),
        ("", None),
    ],
)
def test_names_of_repositories(text: str, expected: HubId | None) -> None:
    assert parse_hub_id(text) == expected


@pytest.mark.parametrize("text", ["hf://", "hf://me", "hf://me/reach/config.json", "hf:///me/reach", "hf://me/re ach"])
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be hf://user/name"):
        FlowPolicy.from_pretrained(text)


def test_another_process_with_the_environment_variables(tmp_path: Path) -> None:
    """Nothing is patched here: HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE of huggingface_hub do it."""
    code = """
import os, sys
from huggingface_hub import constants
from flowpolicies import FlowPolicy
policy = FlowPolicy.load(sys.argv[1])
print(policy.push_to_hub("me/reach", license="mit"))
print(FlowPolicy.from_pretrained("hf://me/reach").origin)
constants.HF_HUB_OFFLINE = True
print(FlowPolicy.from_pretrained("hf://me/reach").origin)
"""
    make().save(tmp_path / "policy.safetensors")
    with running_hub() as server:
        environment = {**os.environ, **server.environment(tmp_path / "home"), "HF_TOKEN": TOKEN}
        command = [sys.executable, "-c", code, str(tmp_path / "policy.safetensors")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    url, online, offline = done.stdout.split()
    commit = url.rpartition("/")[2]
    assert url == f"{server.url}/me/reach/commit/{commit}"
    assert online == offline == f"hf://me/reach@{commit}"
