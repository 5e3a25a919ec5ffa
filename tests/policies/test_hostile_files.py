"""Policy files of attackers, and damaged ones: ArtifactError, in time, without running or building anything."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load, save

from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.core import Network
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.policies import FlowPolicy
from flowpolicies.samplers import BestOfN, Guided, Integrate
from flowpolicies.training import load_policy
from tests.support.audit import assert_harmless

CASES = int(os.environ.get("FLOWPOLICIES_FUZZ", "300"))
"""Number of damaged files of each kind."""


def policy_bytes(sampler: Any = None) -> bytes:
    networks = {
        "critic": Network(partial(Critic, hidden_dims=(8,)), target_rate=0.005),
        "actor_flow": Network(partial(VelocityField, hidden_dims=(8, 8))),
    }
    policy = FlowPolicy(
        spaces.Box(-1, 1, (3,)),
        spaces.Box(-2, 2, (1,)),
        networks=networks,
        sampler=sampler or BestOfN(Guided(), n=4),
        act_with=("critic",),
        seed=0,
    )
    file = io.BytesIO()
    policy.save(file)
    return file.getvalue()


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_config(change: Callable[[dict[str, Any]], Any], content: bytes | None = None) -> bytes:
    """A policy file whose declaration was changed."""
    header, data = split(content or policy_bytes())
    config = json.loads(header["__metadata__"]["config"])
    change(config)
    header["__metadata__"]["config"] = json.dumps(config)
    return joined(header, data)


def refused(content: bytes) -> str:
    """The error of a file."""
    with pytest.raises(ArtifactError) as caught:
        FlowPolicy.load(io.BytesIO(content), device="cpu")
    return str(caught.value)


def small_zip(command: str = "echo owned") -> bytes:
    """A model zip that runs a command when it is unpickled."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (command,)

    import base64

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        data = {"cfg": {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(Evil())).decode()}}
        archive.writestr("data", json.dumps(data))
    return file.getvalue()


def polyglots() -> dict[str, bytes]:
    """Files that are a policy file and a zip, or nearly so."""
    content, evil = policy_bytes(), small_zip()
    header, data = split(content)
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    pad = -len(evil) % 4
    extra = {"dtype": "F32", "shape": [(len(evil) + pad) // 4], "data_offsets": [end, end + len(evil) + pad]}
    inside = joined({**header, "zz": extra}, data + b"\0" * pad + evil)
    tail = {"dtype": "F32", "shape": [4], "data_offsets": [end + len(evil) + pad, end + len(evil) + pad + 16]}
    return {
        "a tensor ends in a zip": inside,
        "a tensor holds a zip, another follows": joined(
            {**header, "zz": extra, "zzz": tail}, data + b"\0" * pad + evil + b"\0" * 16
        ),
        "a zip is appended": content + evil,
        "a zip is prepended": evil + content,
        "the end of an empty zip": content + b"PK\5\6" + b"\0" * 18,
    }


@pytest.mark.parametrize("name", polyglots())
@pytest.mark.parametrize("suffix", ["policy.safetensors", "policy.zip", "policy"])
def test_a_file_of_two_kinds_is_refused_everywhere(name: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / suffix
    file.write_bytes(polyglots()[name])
    assert not assert_harmless(lambda: load_policy(file, "cpu"), name)
    assert not assert_harmless(lambda: FlowPolicy.load(file, "cpu"), name)
    assert main(["evaluate", str(file), "--env", "Pendulum-v1", "--device", "cpu"]) == 2


def test_a_whole_file_is_read_under_any_name(tmp_path: Path) -> None:
    for name in ("policy.zip", "policy.pkl", "policy"):
        (tmp_path / name).write_bytes(policy_bytes())
        assert load_policy(tmp_path / name, "cpu").specs.keys() == {"critic", "actor_flow"}


def huge(config: dict[str, Any]) -> None:
    config["networks"]["critic"]["options"]["hidden_dims"] = [60_000] * 60


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "huge networks": (huge, "more than the 389 parameters of the file"),
    "wide": (lambda c: c["networks"]["critic"]["options"].update(hidden_dims=[10**9]), "hidden_dims must be .* 65,536"),
    "deep": (lambda c: c["networks"]["critic"]["options"].update(hidden_dims=[1] * 10**5), "at most 64 elements"),
    "ensemble": (lambda c: c["networks"]["critic"]["options"].update(ensemble=60_000), "ensemble must be .* 1,000"),
    "true width": (lambda c: c["networks"]["critic"]["options"].update(hidden_dims=[True]), "hidden_dims must be"),
    "real width": (lambda c: c["networks"]["critic"]["options"].update(hidden_dims=[8.0]), "hidden_dims must be"),
    "zero": (lambda c: c["networks"]["critic"]["options"].update(hidden_dims=[0]), "from 1 to"),
    "unknown option": (lambda c: c["networks"]["critic"]["options"].update(hiden_dims=[8]), "Did you mean"),
    "activation": (lambda c: c["networks"]["critic"]["options"].update(activation="tan"), "activation must be"),
    "rate": (lambda c: c["networks"]["critic"].update(target_rate=float("nan")), "target_rate must be finite"),
    "steps": (lambda c: c["sampler"]["inner"].update(steps=10**9), "steps must be .* 10,000, got 1000000000"),
    "true steps": (lambda c: c["sampler"]["inner"].update(steps=True), "steps must be int"),
    "candidates": (lambda c: c["sampler"].update(n=10**12), "n must be"),
    "product": (lambda c: (c["sampler"].update(n=10_000), c["sampler"]["inner"].update(steps=1000)), "1,000,000"),
    "beta": (lambda c: c["sampler"]["inner"].update(beta=float("nan")), "beta must be finite"),
    "method": (lambda c: c["sampler"]["inner"].update(method="leap"), "method must be"),
    "network": (lambda c: c["sampler"].update(critic="nobody"), "critic is the network 'nobody'"),
    "no inner": (lambda c: c["sampler"].update(inner=3), "inner must be"),
    "horizon": (lambda c: c.update(horizon=10**9), "horizon must be"),
    "no horizon": (lambda c: c.update(horizon=None), "horizon must be"),
    "execute": (lambda c: c.update(execute=0), "execute must be"),
    "act_with": (lambda c: c.update(act_with=["actor_flow"]), "act_with must list"),
    "encoder": (lambda c: c.update(encoder="ampala"), "unknown encoder"),
    "space": (lambda c: c["observation_space"].update(shape=[10**9], low=-1.0, high=1.0), "4,194,304"),
    "endless space": (lambda c: c["observation_space"].update(low=float("nan")), "NaN"),
    "type of space": (lambda c: c["observation_space"].update(dtype="object"), "type of a space"),
    "no space": (lambda c: c.update(observation_space=7), "described by an object"),
    "Discrete": (
        lambda c: c.update(observation_space={"type": "Discrete", "n": 10**18, "start": 0, "dtype": "int64"}),
        "",
    ),
    "no networks": (lambda c: c.pop("networks"), "lacks networks"),
    "list of networks": (lambda c: c.update(networks=[]), "an object"),
    "version": (lambda c: c.update(version="2"), "must be a number from 1"),
    "class": (
        lambda c: c["networks"]["critic"].update({"type": "x", "class": "os:system", "package": None}),
        "not registered",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_declarations_are_checked_before_anything_is_built(name: str) -> None:
    change, text = HOSTILE[name]
    content = with_config(change)
    tracemalloc.start()
    assert not assert_harmless(lambda: FlowPolicy.load(io.BytesIO(content), device="cpu"), name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6, "memory of Python and NumPy"
    with pytest.raises(ArtifactError, match=text):
        FlowPolicy.load(io.BytesIO(content), device="cpu")


def test_samplers_inside_each_other_have_a_bound() -> None:
    def nest(config: dict[str, Any]) -> None:
        for _ in range(9):
            config["sampler"] = {"type": "BestOfN", "inner": config["sampler"], "n": 1, "critic": "critic"}

    assert "more than 8 deep" in refused(with_config(nest))


def test_weights_must_be_finite_whole_and_those_of_the_networks() -> None:
    content = policy_bytes()
    header, _ = split(content)
    weights = load(content)
    key = next(iter(weights))
    for value in (float("nan"), float("inf")):
        changed = {**weights, key: torch.full_like(weights[key], value)}
        assert "NaN or infinite" in refused(save(changed, header["__metadata__"]))
    assert "is missing" in refused(save({k: v for k, v in weights.items() if k != key}, header["__metadata__"]))
    assert "none of the declared" in refused(save({**weights, "more": torch.zeros(1)}, header["__metadata__"]))
    assert "float16 of shape" in refused(save({**weights, key: weights[key].half()}, header["__metadata__"]))
    other = {**weights, key: torch.zeros(3, 3, 3)}
    assert "of shape (3, 3, 3)" in refused(save(other, header["__metadata__"]))


def test_the_tensors_cover_the_file() -> None:
    header, data = split(policy_bytes())
    names = [name for name in header if name != "__metadata__"]
    first = header[names[0]]
    gap = {**header, names[0]: {**first, "data_offsets": [n + 4 for n in first["data_offsets"]]}}
    for changed, rest in ((gap, data), (header, data + b"\0"), (header, data[:-1])):
        refused(joined(changed, rest))
    assert "occurs twice" in refused(joined(json.dumps(header)[:-1].encode() + b',"__metadata__":{}}', data))
    assert "does not begin with the length" in refused(struct.pack("<Q", 1 << 40) + b"{}" + data)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three random faults, in bytes, in the header or in the declaration."""
    kind = rng.randrange(4)
    if kind == 0:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed) if rng.random() < 0.3 else min(len(changed), 3000))] = rng.randrange(256)
        return bytes(changed)
    if kind == 1:
        return content[: rng.randrange(len(content))]
    header, data = split(content)
    if kind == 2:
        mutate(header, rng)
        return joined(header, data)
    config = json.loads(header["__metadata__"]["config"])
    for _ in range(rng.randint(1, 3)):
        mutate(config, rng)
    header["__metadata__"]["config"] = json.dumps(config)
    return joined(header, data)


def mutate(tree: Any, rng: random.Random) -> None:
    """Changes one place of JSON data."""
    odd = [None, True, -1, 0, 1, 10**9, 10**30, 0.5, float("nan"), float("inf"), "", "x", "critic", [], {}, [[]]]
    odd += [{"type": "BestOfN"}, {"type": "Critic"}, {"dict": {}}, [1] * 1000]
    while isinstance(tree, dict | list) and tree:
        key = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        inside = tree[key]
        if not isinstance(inside, dict | list) or not inside or rng.random() < 0.3:
            if isinstance(tree, dict) and rng.random() < 0.2:
                del tree[key]
            elif rng.random() < 0.3 and isinstance(inside, int):
                tree[key] = inside + rng.choice([-1, 1, 1000])
            else:
                tree[key] = rng.choice(odd)
            return
        tree = inside


def test_damaged_policy_files_fail_with_one_error_and_run_nothing() -> None:
    rng, content = random.Random(0), policy_bytes()
    files = (damaged(content, rng) for _ in range(CASES))
    read = sum(
        assert_harmless(lambda f=file: FlowPolicy.load(io.BytesIO(f), "cpu"), f"case {number}")
        for number, file in enumerate(files)
    )
    assert read < CASES / 2, "the faults must be faults"


def test_what_is_read_acts(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(policy_bytes(Integrate(steps=2)))
    actions, _ = FlowPolicy.load(tmp_path / "p", "cpu").predict(np.zeros((4, 3), np.float32))
    assert np.isfinite(actions).all()
