"""Model zips and replay buffers of attackers, and damaged ones: nothing in them is executed without trust."""

from __future__ import annotations

import base64
import builtins
import copy
import functools
import io
import json
import os
import pickle
import random
import subprocess
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DDPG, DQN, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.utils import LinearSchedule

from flowpolicies import FQL
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.networks import ENCODERS
from flowpolicies.pickles import read_pickle
from flowpolicies.shell.saved import read_buffer
from flowpolicies.shell.vocabulary import vocabulary
from flowpolicies.training import RunFolder, load_policy
from tests.support.audit import assert_harmless
from tests.support.tiny import tiny

CASES = int(os.environ.get("FLOWPOLICIES_FUZZ", "100"))
"""Number of damaged files of each kind."""
REDUCED: list[Any] = []
"""What a hostile pickle appends to when it is run."""


def note(text: str) -> str:
    REDUCED.append(text)
    return text


class Call:
    """Pickles as a call of any function, with any state afterwards."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        made = (self.function, self.arguments)
        return made if self.state is None else (*made, self.state)


@pytest.fixture(scope="module")
def saved() -> bytes:
    """A small trained model."""
    model = tiny(FQL, env="Pendulum-v1", learning_starts=5, batch_size=4)
    model.learn(8)
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


def with_data(content: bytes, **changes: Any) -> bytes:
    """The model with other attributes; bytes are pickles."""
    parts = members(content)
    data = json.loads(parts["data"])
    for name, value in changes.items():
        coded = isinstance(value, bytes)
        data[name] = {":type:": "x", ":serialized:": base64.b64encode(value).decode()} if coded else value
    return zipped({**parts, "data": json.dumps(data).encode()})


def load(content: bytes, **options: Any) -> FQL:
    return FQL.load(io.BytesIO(content), device="cpu", **options)


class Local:
    """A class that no vocabulary knows."""


ATTACKS: dict[str, Any] = {
    "os.system": Call(os.system, "echo owned"),
    "subprocess": Call(subprocess.Popen, ("echo", "owned")),
    "eval": Call(builtins.eval, "1 + 1"),
    "getattr": Call(getattr, os, "system"),
    "import": Call(builtins.__import__, "antigravity"),
    "reduce": Call(functools.reduce, max, [1, 2]),
    "partial": functools.partial(os.system, "echo owned"),
    "torch.load": Call(torch.load, io.BytesIO(b"x")),
    "numpy.load": Call(np.load, "/etc/passwd"),
    "numpy.fromfile": Call(np.fromfile, "/etc/passwd"),
    "open": Call(open, "/etc/passwd"),
    "a function of this process": Call(note, "ran"),
    "a lambda": lambda progress: 1e-3,
    "an unknown class": Local(),
    "a known class is called": Call(TransitionBuffer, 10**12, None, None),
    "a class gets a state": Call(deque, state=(None, {"append": 1})),
    "a dict is called": Call(dict, [(1, 2)]),
    "objects of other types": np.array([Call(note, "in an array")], dtype=object),
    "a deque of callables": deque([Call(note, "in a deque")]),
    "a path": Call(os.getcwd),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("attribute", ["cfg", "learning_rate", "my_note"])
def test_no_pickle_in_a_zip_runs(name: str, attribute: str, saved: bytes, tmp_path: Path) -> None:
    try:
        hostile = cloudpickle.dumps(ATTACKS[name])
    except TypeError:  # An open file, for example; its call is what counts.
        hostile = cloudpickle.dumps(Call(os.system, "echo owned"))
    content = with_data(saved, **{attribute: hostile})
    REDUCED.clear()
    assert not assert_harmless(lambda: load(content), name)
    with pytest.raises(ArtifactError, match=f"attribute '{attribute}'.*trust=True .*--trust"):
        load(content)
    assert REDUCED == []
    (tmp_path / "policy.safetensors").write_bytes(content)
    if attribute == "cfg":
        assert main(["evaluate", str(tmp_path / "policy.safetensors"), "--env", "Pendulum-v1"]) == 2


def raw(text: bytes) -> bytes:
    return b"\x80\x04" + text + b"."


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


BOX = short("gymnasium.spaces.box") + short("Box") + b"\x93"
DEQUE = short("collections") + short("deque") + b"\x93"
CODECS = short("_codecs") + short("encode") + b"\x93\x94"
TEXT = b"X" + (1_000_000).to_bytes(4, "little") + b"a" * 1_000_000 + b"\x94"
HUGE = b"\x8b" + (400_000).to_bytes(4, "little") + b"\x01" * 400_000
PROGRAMS: dict[str, bytes] = {
    "attributes of a class": raw(BOX + b"N}" + short("sample") + DEQUE + b"s\x86b"),
    "items of a class": raw(DEQUE + b"(K\x01e"),
    "a class as a function with state": raw(BOX + b")\x81" + b"N}\x86b"),
    "a persistent id": raw(b"Pos\n"),
    "an extension": raw(b"\x82\x01"),
    "a missing memo": raw(b"h\x05"),
    "an empty stack": raw(b"0000"),
    "a nested name": raw(short("stable_baselines3.common.save_util") + short("io.open") + b"\x93"),
    "a module that a module imports": raw(short("stable_baselines3.common.utils") + short("th.load") + b"\x93"),
    "an imported function": raw(short("stable_baselines3.common.base_class") + short("load_from_zip_file") + b"\x93"),
    "hashing nested tuples": raw(b"}" + b"(K\x01K\x01t\x94" + b"".join(b"h%c\x86" % 0 for _ in range(40)) + b"K\x01s"),
    "repetition": raw(b"]\x94" + b"".join(b"]\x94(h%ch%ch%ce" % (n, n, n) for n in range(60))),
    "itself": raw(b"]\x94h\x00a"),
    "a byte array of a terabyte": raw(b"\x96" + (1 << 40).to_bytes(8, "little") + b"x"),
    "depth": raw(b"]" * 50_000 + b"a" * 49_999),
    "a protocol of the future": b"\x80\x09N.",
    "an opcode of protocol 0": raw(b"I1\n"),
    "a list of protocol 0": raw(b"(l"),
    "hashing a long tuple": raw(b"}(" + b"N" * 100_000 + b"t\x94" + b"h\0Ns" * 100_000),
    "hashing a huge number": raw(b"}" + HUGE + b"\x94" + b"h\0Ns" * 50_000),
    "copies of a text": raw(CODECS + TEXT + short("latin1") + b"\x86\x94" + b"]" + b"h\0h\2Ra" * 50_000),
    "no end": b"\x80\x04N",
    "nothing": b"",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_the_stack_machine_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "buffer.pkl"
    file.write_bytes(PROGRAMS[name])
    assert not assert_harmless(lambda: read_buffer(file), name)


def test_arrays_with_a_wrong_content_are_refused() -> None:
    reconstruct = np.zeros(1).__reduce__()[0]
    for state in [
        (1, (10**9,), np.dtype("f8"), False, b"12345678"),
        (1, (1,), np.dtype("O"), False, b"12345678"),
        (1, (-1,), np.dtype("f8"), False, b"12345678"),
        (1, (1,), np.dtype([("a", "f8")]), False, b"12345678"),
    ]:
        with pytest.raises(ValueError, match=r"array|type"):
            read_pickle(pickle.dumps(Call(reconstruct, np.ndarray, (0,), b"b", state=state)), vocabulary())


class Filled:
    """Pickles as an array of some bytes, which is made anew each time."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments, _ = np.zeros(1).__reduce__()
        return make, arguments, (1, (len(self.content),), np.dtype("u1"), False, self.content)


def test_a_pickle_makes_no_more_bytes_than_a_few_times_its_own() -> None:
    content = b"x" * 1_000_000
    found = read_pickle(pickle.dumps([Filled(content) for _ in range(4)]), vocabulary())
    assert [array.nbytes for array in found] == [1_000_000] * 4
    with pytest.raises(ValueError, match="unpacks to far more than it holds"):
        read_pickle(pickle.dumps([Filled(content) for _ in range(5_000)]), vocabulary())
    low = np.zeros(1_000_000, np.float32)
    box = spaces.Box(low, low + 1, dtype=np.float32)
    assert read_pickle(pickle.dumps(box), vocabulary()) == box
    boxes = [copy.copy(box) for _ in range(500)]  # They share their arrays.
    with pytest.raises(ValueError, match="unpacks to far more than it holds"):
        read_pickle(pickle.dumps(boxes), vocabulary())


def test_methods_and_environments_do_not_come_from_a_file(saved: bytes) -> None:
    for name, text in (("predict", "replace a method"), ("__class__", "replace a method"), ("env", "an environment")):
        with pytest.raises(ArtifactError, match=text):
            load(with_data(saved, **{name: "os:Evil-v0"}))


def test_data_are_not_followed_to_files_that_need_trust(saved: bytes) -> None:
    record = {"name": "x", "address": "sb3:x.pkl,trust=true", "fingerprint": "0" * 64, "rows": 1}
    with pytest.raises(ValueError, match="asks to run code in a file"):
        load(with_data(saved, dataset_record=record), dataset="auto")


def test_trust_runs_what_needs_it(saved: bytes) -> None:
    model = tiny(FQL, env="Pendulum-v1", learning_rate=lambda progress: 0.5 * progress)
    file = io.BytesIO()
    model.save(file)
    content = file.getvalue()
    with pytest.raises(ArtifactError, match=r"saved as code.*learning_rate=.*LinearSchedule.*trust=True.*--trust"):
        load(content)
    assert load(content, trust=True).lr_schedule(0.5) == 0.25
    assert load(content, learning_rate=1e-3).lr_schedule(0.5) == 1e-3
    assert load(content, custom_objects={"learning_rate": 0.25}).lr_schedule(0.5) == 0.25
    REDUCED.clear()
    assert load(with_data(saved, my_note=cloudpickle.dumps(Call(note, "ran"))), trust=True).my_note == "ran"
    assert REDUCED == ["ran"]


def test_what_models_consist_of_needs_no_trust(tmp_path: Path) -> None:
    model = tiny(
        FQL,
        env="Pendulum-v1",
        learning_rate=LinearSchedule(1e-3, 1e-4, 0.5),
        action_noise=NormalActionNoise(np.zeros(1), np.ones(1)),
        policy_kwargs={"activation_fn": torch.nn.ReLU},
        learning_starts=5,
    )
    model.my_path, model.my_array = tmp_path, np.arange(3)
    model.learn(8)
    model.save(tmp_path / "model")
    loaded = FQL.load(tmp_path / "model", device="cpu")
    assert loaded.lr_schedule(0.75) == model.lr_schedule(0.75)
    assert isinstance(loaded.action_noise, NormalActionNoise)
    assert loaded.my_path == tmp_path
    np.testing.assert_array_equal(loaded.my_array, [0, 1, 2])
    np.testing.assert_array_equal(loaded.observation_space.low, model.observation_space.low)


@pytest.mark.parametrize("kind", ["own", "stock", "hindsight"])
def test_replay_buffers_need_no_trust(kind: str, tmp_path: Path) -> None:
    if kind == "own":
        model: Any = tiny(FQL, env="Pendulum-v1", learning_starts=50)
    elif kind == "stock":
        model = DDPG("MlpPolicy", "Pendulum-v1", buffer_size=50, learning_starts=50)
    else:
        options = {"replay_buffer_class": HerReplayBuffer, "buffer_size": 50, "learning_starts": 50}
        model = DQN("MultiInputPolicy", BitFlippingEnv(), **options)
    model.learn(20)
    model.save_replay_buffer(tmp_path / "buffer")
    found = read_buffer(tmp_path / "buffer")
    assert found.size() == 20
    assert type(found) is type(model.replay_buffer)
    np.testing.assert_array_equal(found.rewards[:20], model.replay_buffer.rewards[:20])
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Call(note, "ran")))
    REDUCED.clear()
    with pytest.raises(ArtifactError, match=r"needs .*note, .*trust=True"):
        tiny(FQL, env="Pendulum-v1").load_replay_buffer(tmp_path / "evil.pkl")
    assert REDUCED == []


def structures(content: bytes) -> dict[str, bytes]:
    """Zips whose structure is not that of one that Python writes."""
    parts = members(content)
    double = io.BytesIO()
    with zipfile.ZipFile(double, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("data", b"{}")
    commented = io.BytesIO(content)
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"PK\5\6" + b"\0" * 18
    return {
        "bytes before": b"MZ" + content,
        "bytes after": content + b"\0",
        "a comment": commented.getvalue(),
        "one name twice": double.getvalue(),
        "a bomb": zipped({**parts, "bomb": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED),
        "a bomb of tensors": zipped({**parts, "policy.pth": zipped({"x": b"\0" * 5_000_000}, zipfile.ZIP_DEFLATED)}),
        "packed by another method": zipped(parts, zipfile.ZIP_BZIP2),
        "a legacy file of tensors": zipped({**parts, "policy.pth": pickle.dumps({})}),
        "an odd name": zipped({**parts, "__class__.pth": parts["policy.pth"]}),
        "no data": zipped({name: part for name, part in parts.items() if name != "data"}),
        "data that are a list": zipped({**parts, "data": b"[]"}),
        "nothing in it": zipped({}),
    }


def test_zips_of_another_structure_are_refused(saved: bytes, tmp_path: Path) -> None:
    assert load(zipped(members(saved), zipfile.ZIP_DEFLATED)).num_timesteps == 8, "packed anew, it is still a model"
    for name, content in structures(saved).items():
        file = tmp_path / "model.zip"
        file.write_bytes(content)
        assert not assert_harmless(lambda f=file: load_policy(f, "cpu"), name)
        assert not assert_harmless(lambda f=file: FQL.load(f, device="cpu"), name)


def tensors(**state: torch.Tensor) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.mark.parametrize("part", ["policy.pth", "policy.optimizer.pth"])
def test_containers_that_hold_one_another_many_times_are_refused(saved: bytes, part: str) -> None:
    pair = b"\x80\x02]q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"."  # x = (x, x), sixty times: 2^60 leaves.
    parts = members(saved)
    hostile = zipped({**parts, part: zipped({"archive/data.pkl": pair, "archive/version": b"3\n"})})
    with pytest.raises(ArtifactError, match="more than 1,000,000 objects"):
        load(hostile)


class CountingExtractor(BaseFeaturesExtractor):
    """A user's extractor that cannot be built without memory, because it asks for the value of a tensor."""

    def __init__(self, observation_space: Any, features_dim: int = 6) -> None:
        super().__init__(observation_space, features_dim)
        self.layer = torch.nn.Linear(int(torch.tensor(observation_space.shape).prod()), features_dim)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layer(observations.flatten(1))  # type: ignore[no-any-return]


def test_a_users_extractor_is_loaded(tmp_path: Path) -> None:
    kwargs = {"features_extractor_class": CountingExtractor, "net_arch": [4]}
    model = FQL("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs=kwargs)
    model.save(tmp_path / "model")
    loaded = FQL.load(tmp_path / "model")
    observation = np.zeros(3, np.float32)
    a, b = (one.predict(observation, deterministic=True)[0] for one in (model, loaded))
    np.testing.assert_array_equal(a, b)


def test_tensors_are_those_of_the_declared_networks(saved: bytes) -> None:
    parts = members(saved)
    weights = torch.load(io.BytesIO(parts["policy.pth"]), weights_only=True)
    key = next(iter(weights))
    for value, text in [
        (torch.full_like(weights[key], float("nan")), "NaN or infinite"),
        (torch.zeros(1).expand(10**5, 10**5), "repeat their numbers"),
        (torch.zeros(2, 2), "of shape"),
        (weights[key].double(), "float64 of shape"),
    ]:
        with pytest.raises(ArtifactError, match=text):
            load(zipped({**parts, "policy.pth": tensors(**{**weights, key: value})}))
        model = load(saved)
        changed = zipped({**parts, "policy.pth": tensors(**{**weights, key: value, "more": torch.zeros(1)})})
        with pytest.raises(ArtifactError):
            model.set_parameters(io.BytesIO(changed))


def test_tuples_that_hold_each_other_twice_are_refused_in_time(saved: bytes) -> None:
    value: tuple[object, ...] = ()
    for _ in range(60):
        value = (value, value)
    file = io.BytesIO()
    torch.save(value, file)
    content = zipped({**members(saved), "generators.pth": file.getvalue()})
    assert not assert_harmless(lambda: load(content), "tuples")


def test_a_config_that_declares_more_than_the_tensors_is_refused_in_time(saved: bytes) -> None:
    cfg = load(saved).cfg
    for changes in ({"actor_hidden_dims": (60_000,) * 50}, {"ensemble": 900}, {"horizon": 9000}, {"flow_steps": 10**9}):
        hostile = type(cfg).__new__(type(cfg))
        hostile.__dict__.update({**vars(cfg), **changes})
        content = with_data(saved, cfg=pickle.dumps(hostile))
        assert not assert_harmless(lambda c=content: load(c), str(changes))


def test_an_extractor_of_the_file_is_built_only_as_large_as_its_tensors(tmp_path: Path) -> None:
    space = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    kwargs = {"features_extractor_class": NatureCNN, "features_extractor_kwargs": {"features_dim": 8}}
    frames, ends = np.zeros((9, *space.shape), np.uint8), np.arange(8) % 4 == 3
    data = TransitionDataset.from_arrays(
        frames[:-1], np.zeros((8, 2)), np.zeros(8), frames[1:], terminations=ends & False, truncations=ends
    )
    model, file = tiny(FQL, dataset=data, policy_kwargs=kwargs), io.BytesIO()
    model.save(file)
    encoder = model.cfg.encoder
    del ENCODERS.declared[encoder]  # As in a process that only loads.
    assert load(file.getvalue()).policy.networks["critic"].encoder.out_dim == 8
    hostile = {**kwargs, "features_extractor_kwargs": {"features_dim": 10**7}}
    cfg = type(model.cfg).__new__(type(model.cfg))
    cfg.__dict__.update({**vars(model.cfg), "encoder": encoder.replace("features_dim.8", "features_dim.10000000")})
    content = with_data(file.getvalue(), policy_kwargs=cloudpickle.dumps(hostile), cfg=cloudpickle.dumps(cfg))
    assert not assert_harmless(lambda: load(content), "a wide extractor")
    with pytest.raises(ArtifactError, match="parameters of the file"):
        load(content)


def test_the_command_line_trusts_only_when_told(saved: bytes, tmp_path: Path) -> None:
    model = tiny(FQL, env="Pendulum-v1", learning_rate=lambda progress: 1e-3)
    model.save(tmp_path / "model.zip")
    command = ["evaluate", str(tmp_path / "model.zip"), "--env", "Pendulum-v1", "--episodes", "1", "--device", "cpu"]
    assert main(command) == 2
    assert main([*command, "--trust"]) == 0


def test_a_run_without_a_policy_file_does_not_run_its_checkpoint(saved: bytes, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config({"env": "Pendulum-v1", "dataset": {}})
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step_000000008.zip").write_bytes(with_data(saved, cfg=pickle.dumps(Call(note, "ran"))))
    REDUCED.clear()
    command = ["evaluate", str(tmp_path), "--episodes", "1", "--device", "cpu"]
    assert main(command) == 2
    assert REDUCED == []
    assert main([*command, "--trust"]) == 2, "it is trusted, and then no model"
    assert REDUCED == ["ran"]


def damages(content: bytes) -> list[Callable[[random.Random], bytes]]:
    """Kinds of faults: bytes of the zip, its end, JSON data, bytes of a pickle, bytes of a member."""
    parts = members(content)
    data = json.loads(parts["data"])
    pickled = [name for name, value in data.items() if isinstance(value, dict) and ":serialized:" in value]

    def flipped(given: bytes, rng: random.Random) -> bytes:
        changed = bytearray(given)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)

    def in_pickle(rng: random.Random) -> bytes:
        name = rng.choice(pickled)
        return with_data(content, **{name: flipped(base64.b64decode(data[name][":serialized:"]), rng)})

    def in_json(rng: random.Random) -> bytes:
        odd = [None, True, -1, 0, 10**9, 10**30, 0.5, float("nan"), "", "x", [], {}, [[]], {":serialized:": 3}]
        return with_data(content, **{rng.choice(list(data)): rng.choice(odd)})

    def in_member(rng: random.Random) -> bytes:
        name = rng.choice(list(parts))
        return zipped({**parts, name: flipped(parts[name], rng)})

    return [
        lambda rng: flipped(content, rng),
        lambda rng: content[: rng.randrange(len(content))],
        in_pickle,
        in_json,
        in_member,
    ]


def test_damaged_model_zips_fail_with_one_error_and_run_nothing(saved: bytes) -> None:
    rng, kinds = random.Random(0), damages(saved)
    for number in range(CASES):
        content = kinds[number % len(kinds)](rng)
        assert_harmless(lambda c=content: load(c), f"case {number}")


def test_damaged_replay_buffers_fail_with_one_error_and_run_nothing() -> None:
    model = tiny(FQL, env="Pendulum-v1", learning_starts=50)
    model.learn(8)
    file, rng = io.BytesIO(), random.Random(0)
    model.save_replay_buffer(file)
    for number in range(CASES):
        changed = bytearray(file.getvalue())
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        assert_harmless(lambda c=changed: model.load_replay_buffer(io.BytesIO(bytes(c))), f"case {number}")
