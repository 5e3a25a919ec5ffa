"""The online part of the buffer: methods and attributes of Stable-Baselines3's ReplayBuffer, refusals by name."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer

BOX, ACT = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (3, 5, 4), np.uint8)
WIDE = spaces.Box(-1, 1, (2,), np.float64)
BOTH = spaces.Dict({"vector": BOX, "image": IMAGE, "wide": WIDE, "table": spaces.Box(-9, 9, (2, 2), np.float32)})
SPACES = {"vector": BOX, "image": IMAGE, "wide": WIDE, "dict": BOTH}


def make(space: spaces.Space[Any] = BOX, n_envs: int = 1, size: int = 10, **options: Any) -> TransitionBuffer:
    return TransitionBuffer(size, space, ACT, "cpu", n_envs, **{"seed": 0, **options})


def drawn(space: spaces.Space[Any], n: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: np.stack([part.sample() for _ in range(n)]) for key, part in space.spaces.items()}
    return np.stack([space.sample() for _ in range(n)])


def step(space: spaces.Space[Any] = BOX, n: int = 1, **changes: Any) -> list[Any]:
    """The arguments of `add`."""
    rng = np.random.default_rng(space.np_random.integers(1000))
    given = {
        "obs": drawn(space, n),
        "next_obs": drawn(space, n),
        "action": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        "reward": rng.normal(size=n),
        "done": rng.random(n) < 0.5,
        "infos": [{"TimeLimit.truncated": bool(rng.random() < 0.5)} for _ in range(n)],
    }
    return list({**given, **changes}.values())


def assert_same(mine: TransitionBuffer, stock: ReplayBuffer) -> None:
    """All attributes agree. A time limit without the end of an episode, which no environment reports, is not kept."""
    names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    for name in names:
        a, b = getattr(mine, name), getattr(stock, name)
        b = b * stock.dones if name == "timeouts" else b
        for first, second in zip(a.values(), b.values(), strict=True) if isinstance(b, dict) else [(a, b)]:
            assert first.dtype == second.dtype
            np.testing.assert_allclose(first, second, rtol=1e-6)
    for name in ("buffer_size", "pos", "full", "n_envs", "action_dim", "obs_shape", "optimize_memory_usage"):
        assert getattr(mine, name) == getattr(stock, name), name


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("time_limits", [True, False])
def test_attributes_are_those_of_stable_baselines3(name: str, n_envs: int, time_limits: bool) -> None:
    space = SPACES[name]
    kind = DictReplayBuffer if name == "dict" else ReplayBuffer
    stock = kind(10, space, ACT, "cpu", n_envs, handle_timeout_termination=time_limits)
    mine = make(space, n_envs, handle_timeout_termination=time_limits)
    space.seed(0)
    assert_same(mine, stock)
    for count in range(1, 14):
        given = step(space, n_envs)
        stock.add(*given)
        mine.add(*given)
        assert mine.size() == stock.size() * n_envs == min(count, 10 // n_envs) * n_envs
        assert_same(mine, stock)
    stock.reset()
    mine.reset()
    assert (mine.pos, mine.full, mine.size()) == (stock.pos, stock.full, stock.size()) == (0, False, 0)


def test_time_limits_as_terminations() -> None:
    for kept, discount in ((True, 0.99), (False, 0)):
        buffer = make(handle_timeout_termination=kept)
        buffer.add(*step(done=np.array([True]), infos=[{"TimeLimit.truncated": True}]))
        assert float(buffer.sample(1).discounts) == pytest.approx(discount)


def test_attributes_cannot_be_written() -> None:
    buffer = make()
    with pytest.raises(ValueError, match="read-only"):
        buffer.rewards[0] = 1
    with pytest.raises(AttributeError):
        buffer.rewards = np.zeros(1)


def test_reset_keeps_the_dataset() -> None:
    buffer = make()
    data = TransitionDataset.from_arrays(
        *(drawn(BOX, 4), np.zeros((4, 2)), np.zeros(4), drawn(BOX, 4)),
        terminations=[0, 0, 0, 1],
        observation_space=BOX,
        action_space=ACT,
    )
    buffer.attach(data)
    buffer.add(*step())
    assert buffer.size() == 5
    buffer.reset()
    assert buffer.size() == 4
    assert set(buffer.sample(50).rewards.tolist()) == {0.0}


@pytest.mark.parametrize("name", ["vector", "dict"])
def test_extend_adds_step_by_step(name: str) -> None:
    space, n = SPACES[name], 2
    one, all_at_once = make(space, n), make(space, n)
    steps = [step(space, n) for _ in range(3)]
    for each in steps:
        one.add(*each)
    columns = list(zip(*steps, strict=True))
    for i, column in enumerate(columns[:-1]):
        is_dict = isinstance(column[0], dict)
        columns[i] = {k: np.stack([c[k] for c in column]) for k in column[0]} if is_dict else np.stack(column)
    all_at_once.extend(*columns)
    for a, b in zip(one.sample(50), all_at_once.sample(50), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"equally many steps, got .*'reward': 2"):
        all_at_once.extend(*columns[:3], columns[3][:2], *columns[4:])
    with pytest.raises(TypeError, match="extend takes the arguments obs, next_obs, action, reward, done, infos"):
        all_at_once.extend(*columns[:3])


@pytest.mark.parametrize(
    "changes",
    [
        {"obs": np.zeros(3)},
        {"obs": [[0, 1, 2]], "next_obs": torch.zeros(1, 3)},
        {"obs": np.zeros((1, 3), np.int64), "next_obs": np.zeros((1, 3), np.float16)},
        {"action": np.zeros(2)},
        {"action": np.zeros((1, 2, 1)), "reward": 1.0, "done": True},
        {"reward": np.ones((1, 1)), "done": np.array([[False]])},
        {"done": np.array([1.0], np.float32), "reward": [1]},
        {"done": np.array([0]), "reward": np.array([1], np.int32), "infos": ({},)},
    ],
    ids=str,
)
def test_what_one_environment_may_give(changes: dict[str, Any]) -> None:
    buffer = make()
    buffer.add(*step(**changes))
    batch = buffer.sample(1)
    assert batch.observations.shape == (1, 3)
    assert batch.observations.dtype == batch.rewards.dtype == torch.float32


REFUSED = [
    (BOX, 1, {"obs": np.zeros((1, 4))}, r"^obs has the shape \(1, 4\), but 1 environments .* need \(1, 3\)"),
    (BOX, 1, {"obs": np.zeros((1, 1))}, r"^obs has the shape \(1, 1\)"),
    (BOX, 1, {"obs": 0.0}, r"^obs has the shape \(\)"),
    (BOX, 2, {"next_obs": np.zeros((1, 3))}, r"^next_obs has the shape \(1, 3\), but 2 .* need \(2, 3\)"),
    (BOX, 2, {"next_obs": np.zeros(3)}, r"^next_obs has the shape \(3,\)"),
    (BOX, 1, {"obs": {"vector": np.zeros((1, 3))}}, r"^obs is a mapping .*'vector'.* but the observation space is Box"),
    (BOX, 1, {"obs": np.array([["a", "b", "c"]])}, r"^obs must hold numbers of type float32, got <U1"),
    (BOX, 1, {"obs": np.zeros((1, 3), complex)}, r"^obs must hold numbers of type float32, got complex128"),
    (BOX, 1, {"action": np.zeros((1, 3))}, r"^action has the shape \(1, 3\), but .* need \(1, 2\)"),
    (BOX, 2, {"action": np.zeros((1, 2))}, r"^action has the shape \(1, 2\), but .* need \(2, 2\)"),
    (BOX, 2, {"action": np.zeros((1, 2, 2))}, r"^action has the shape \(1, 2, 2\)"),
    (BOX, 1, {"action": np.array([[2.0, 0]])}, r"^action must be between -1 and 1, got .* 0 to 2.*scale_action"),
    (BOX, 1, {"action": np.array([[np.nan, 0]])}, r"^action must be between -1 and 1"),
    (BOX, 2, {"reward": 1.0}, r"^reward has the shape \(\), but 2 environments need \(2,\)"),
    (BOX, 2, {"reward": np.zeros(1)}, r"^reward has the shape \(1,\)"),
    (BOX, 2, {"reward": np.zeros((2, 2))}, r"^reward has the shape \(2, 2\)"),
    (BOX, 2, {"done": True}, r"^done has the shape \(\)"),
    (BOX, 1, {"done": np.array([0.5])}, r"^done must be 0 or 1"),
    (BOX, 2, {"infos": [{}]}, r"^infos must be a list of 2 dicts, .* got 1 elements"),
    (BOX, 1, {"infos": []}, r"^infos must be a list of 1 dicts"),
    (BOX, 1, {"infos": {}}, r"^infos must be a list of 1 dicts, .* got one dict"),
    (IMAGE, 1, {"obs": np.full((1, 3, 5, 4), 0.5)}, r"^obs holds images of type float64, .* 0 to 255\. Scale"),
    (IMAGE, 1, {"obs": np.ones((1, 5, 4, 3), np.uint8)}, r"^obs has the shape \(1, 5, 4, 3\)"),
    (IMAGE, 1, {"obs": np.full((1, 3, 5, 4), 300)}, r"^obs holds numbers that uint8, .* cannot hold"),
    (BOTH, 1, {"obs": np.zeros((1, 3))}, r"^obs must be a mapping with the keys \['image'.*got ndarray"),
    (BOTH, 1, {"obs": {"vector": np.zeros((1, 3))}}, r"^obs has the keys \['vector'\], but the observation space has"),
]


@pytest.mark.parametrize(("space", "n_envs", "changes", "message"), REFUSED)
def test_what_is_refused_by_name(space: Any, n_envs: int, changes: dict[str, Any], message: str) -> None:
    buffer = make(space, n_envs)
    with pytest.raises(ValueError, match=message):
        buffer.add(*step(space, n_envs, **changes))
    assert (buffer.size(), buffer.pos) == (0, 0), "nothing may be stored"


@pytest.mark.parametrize("key", ["vector", "image", "table"])
def test_parts_of_dicts_are_refused_by_name(key: str) -> None:
    obs = drawn(BOTH, 2)
    obs[key] = obs[key][:1]
    with pytest.raises(ValueError, match=rf"^next_obs\['{key}'\] has the shape \(1, "):
        make(BOTH, 2).add(*step(BOTH, 2, next_obs=obs))
    obs = drawn(BOTH, 2)
    obs["image"] = obs["image"] / 255
    with pytest.raises(ValueError, match=r"^next_obs\['image'\] holds images of type float64"):
        make(BOTH, 2).add(*step(BOTH, 2, next_obs=obs))


def test_what_is_added_is_copied() -> None:
    buffer, given = make(), step()
    buffer.add(*given)
    for array in given[:4]:
        array[:] = 0
    batch = buffer.sample(1)
    assert batch.observations.all()
    assert batch.actions.all()
    assert batch.rewards.all()


def test_other_methods() -> None:
    buffer = make()
    assert buffer.to_torch(np.ones(2, np.float32)).tolist() == [1, 1]
    assert buffer.swap_and_flatten(np.zeros((5, 2, 3))).shape == (10, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        buffer.sample(0)
    with pytest.raises(NotImplementedError, match="batches come from sample"):
        buffer._get_samples(np.zeros(1))
    assert TransitionBuffer(3, BOX, ACT, "cpu", 4).buffer_size == ReplayBuffer(3, BOX, ACT, "cpu", 4).buffer_size == 1
    assert TransitionBuffer(3, BOX, ACT, "cpu", horizon=5).buffer_size == 5, "a chunk must fit"
    buffer = make(n_envs=2)
    buffer.add(*step(n=2))
    buffer.set_n_envs(5)
    assert (buffer.buffer_size, buffer.pos, buffer.size(), buffer.rewards.shape) == (2, 0, 0, (2, 5))


def test_the_discount_can_change() -> None:
    data = TransitionDataset.from_arrays(
        *(drawn(BOX, 30), np.zeros((30, 2)), np.ones(30), drawn(BOX, 30)),
        terminations=np.arange(30) == 29,
        observation_space=BOX,
        action_space=ACT,
    )
    for first, second in (({"horizon": 3}, {"horizon": 3}), ({"n_steps": 3}, {"n_steps": 5}), ({}, {"n_steps": 2})):
        changed, fresh = make(gamma=0.9, **first), make(gamma=0.5, **second)
        for buffer in (changed, fresh):
            buffer.attach(data)
            buffer.add(*step(done=np.array([False]), reward=np.ones(1)))
        changed.gamma = 0.5
        changed.set_discount(0.5, second.get("n_steps"))
        assert (changed.gamma, changed.n_steps) == (0.5, second.get("n_steps", 1))
        for a, b in zip(changed.sample(100)[4:6], fresh.sample(100)[4:6], strict=True):
            assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"gamma must be between 0 and 1, got 1\.5"):
        changed.gamma = 1.5
    with pytest.raises(ValueError, match=r"horizon=3 .* n_steps=2 exclude each other"):
        make(horizon=3).set_discount(0.9, 2)
    with pytest.raises(ValueError, match="must be at least 1, got 1 and 0"):
        make(n_steps=0)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("steps", [1, 6, 10, 17])
def test_batches_of_single_steps_are_the_stored_steps(n_envs: int, steps: int) -> None:
    """Each number of a step says which step of which environment it is, before and after the ring is full."""
    buffer = make(n_envs=n_envs, size=10 * n_envs, gamma=0.9)
    for t in range(steps):
        ids = np.arange(n_envs) * 100 + t
        end = t % 4 == 3
        buffer.add(
            np.repeat(ids[:, None], 3, 1).astype(np.float32),
            np.repeat(ids[:, None] + 0.5, 3, 1).astype(np.float32),
            np.stack([ids, -ids], 1) / 1000,
            ids + 0.25,
            np.full(n_envs, end),
            [{"TimeLimit.truncated": t % 8 == 7}] * n_envs,
        )
    batch = buffer.sample(500)
    ids = batch.observations[:, 0]
    env, t = ids // 100, ids % 100
    oldest = max(steps - 10, 0)
    assert {(int(e), int(s)) for e, s in zip(env, t, strict=True)} == {
        (e, s) for e in range(n_envs) for s in range(oldest, steps)
    }
    assert torch.equal(batch.next_observations, batch.observations + 0.5)
    torch.testing.assert_close(batch.actions, torch.stack([ids, -ids], 1) / 1000)
    torch.testing.assert_close(batch.rewards, ids + 0.25)
    terminated = (t % 4 == 3) & (t % 8 != 7)
    torch.testing.assert_close(batch.discounts, torch.where(terminated, 0.0, 0.9))
    following = torch.where(t < steps - 1, ids + 1, ids)  # After the newest step its own action stands in.
    torch.testing.assert_close(batch.next_actions, torch.stack([following, -following], 1) / 1000)
    for ones in (batch.valid, batch.action_mask):
        assert torch.equal(ones, torch.ones_like(ones, dtype=torch.float32))


def test_single_steps_are_sampled_without_a_summary_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = make()
    for _ in range(4):
        buffer.add(*step())
    monkeypatch.setattr("flowpolicies.data.replay.store.Store.windows", None)
    assert len(buffer.sample(5).rewards) == 5


def test_what_was_added_is_a_copy() -> None:
    buffer, given = make(), step()
    buffer.add(*given)
    before = buffer.sample(3)
    for values in given[:4]:
        values += 1
    after = buffer.sample(3)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("change", ["read_only", "fortran", "strided"])
def test_observations_of_any_memory_layout_are_stored(change: str) -> None:
    space = spaces.Box(-9, 9, (2, 3), np.float32)
    values = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    given = {
        "read_only": values.copy(),
        "fortran": np.asfortranarray(values),
        "strided": np.repeat(values, 2, 1)[:, ::2],
    }
    given["read_only"].flags.writeable = False
    buffer = make(space)
    buffer.add(given[change], given[change], np.zeros(2), 0.0, False, [{}])
    assert torch.equal(buffer.sample(1).observations, torch.arange(6.0).unsqueeze(0))
