"""Real episodes of Pendulum are clean, and every fault that is put into them is found, alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from flowpolicies.data import TransitionDataset, open_memmap, write_memmap
from flowpolicies.data.inspection import Finding, Histogram, Resimulated, inspect_dataset
from flowpolicies.data.inspection.dynamics import explained
from flowpolicies.data.inspection.environment import unexplained
from flowpolicies.data.inspection.inspect import _count
from flowpolicies.data.report import draw, to_html, to_text

Array = np.ndarray[Any, Any]
Columns = dict[str, Array]

EPISODES, STEPS = 12, 100
SPACES = {"observation_space": Box(-np.inf, np.inf, (3,)), "action_space": Box(-2.0, 2.0, (1,))}


@pytest.fixture(scope="module")
def episodes() -> list[Columns]:
    """Pendulum under a controller with noise, as T+1 observations and T actions."""
    env, rng = gym.make("Pendulum-v1"), np.random.default_rng(0)
    found = []
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=episode)
        observations, actions, rewards = [observation], [], []
        for _ in range(STEPS):
            action = np.clip(rng.normal(-observation[1:2] - 0.3 * observation[2:], 0.5), -2, 2).astype(np.float32)
            observation, reward, _, _, _ = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(np.float32(reward))
        found.append(
            {"observations": np.array(observations), "actions": np.array(actions), "rewards": np.array(rewards)}
        )
    return found


@pytest.fixture
def columns(episodes: list[Columns]) -> Columns:
    """The same, as transitions."""
    end = np.arange(EPISODES * STEPS) % STEPS == STEPS - 1
    return {
        "observations": np.concatenate([episode["observations"][:-1] for episode in episodes]),
        "next_observations": np.concatenate([episode["observations"][1:] for episode in episodes]),
        "actions": np.concatenate([episode["actions"] for episode in episodes]),
        "rewards": np.concatenate([episode["rewards"] for episode in episodes]),
        "masks": np.ones(len(end), np.float32),
        "terminals": end.astype(np.float32),
    }


def as_dataset(columns: Columns, **options: Any) -> TransitionDataset:
    """Without the checks of the constructor, as from a folder that another program wrote into."""
    ends = np.flatnonzero(columns["terminals"])
    known = {"provenance": {"name": "pendulum"}, "fingerprint": "", "episode_ends": ends}
    return TransitionDataset.trusted(columns, **{**SPACES, **known, **options})


def problems(columns: Columns, severity: str = "fault", **options: Any) -> list[Finding]:
    """What is found of this severity."""
    return [f for f in inspect_dataset(as_dataset(columns), **options).findings if f.severity == severity]


def test_real_episodes_are_clean(columns: Columns) -> None:
    inspection = inspect_dataset(as_dataset(columns), env=gym.make("Pendulum-v1", max_episode_steps=STEPS))
    assert [(f.severity, f.check, f.message) for f in inspection.findings] == [
        ("info", "flags", "no transition terminates (masks are 1 everywhere)")
    ]
    assert inspection.num_faults == 0
    assert inspection.facts["trajectories"] == "12, of 100 steps"
    assert inspection.facts["terminated"] == "0 of 12 trajectories; the others were cut"


def shift(key: str, by: int) -> Callable[[Columns, list[Columns]], None]:
    def corrupt(columns: Columns, episodes: list[Columns]) -> None:
        columns[key] = np.roll(columns[key], by, axis=0)

    return corrupt


def drift(*keys: str) -> Callable[[Columns, list[Columns]], None]:
    """All T+1 observations in a row beside T actions, as d3rlpy's Minari loader puts them."""

    def corrupt(columns: Columns, episodes: list[Columns]) -> None:
        all_observations = np.concatenate([episode["observations"] for episode in episodes])
        length = len(columns["actions"])
        shifted = {"observations": all_observations[:length], "next_observations": all_observations[1 : length + 1]}
        columns.update({key: shifted[key] for key in keys})

    return corrupt


def join(columns: Columns, episodes: list[Columns]) -> None:
    columns["terminals"][4 * STEPS - 1] = 0


def join_by_shift(columns: Columns, episodes: list[Columns]) -> None:
    """s' made from the next row, so that it leads from one trajectory into another."""
    join(columns, episodes)
    columns["next_observations"][4 * STEPS - 1] = columns["observations"][4 * STEPS]


def swap_flags(columns: Columns, episodes: list[Columns]) -> None:
    columns["masks"], columns["terminals"] = columns["terminals"], columns["masks"]


def invert(key: str) -> Callable[[Columns, list[Columns]], None]:
    def corrupt(columns: Columns, episodes: list[Columns]) -> None:
        columns[key] = 1 - columns[key]
        columns["terminals"][-1] = 1

    return corrupt


def invert_terminations(columns: Columns, episodes: list[Columns]) -> None:
    columns["masks"] = columns["terminals"].copy()


def scale_actions(columns: Columns, episodes: list[Columns]) -> None:
    columns["actions"] = 4 * columns["actions"]


def put(key: str, value: float) -> Callable[[Columns, list[Columns]], None]:
    def corrupt(columns: Columns, episodes: list[Columns]) -> None:
        columns[key][437] = value

    return corrupt


def copy_episode(columns: Columns, episodes: list[Columns]) -> None:
    for column in columns.values():
        column[7 * STEPS : 8 * STEPS] = column[2 * STEPS : 3 * STEPS]


def shuffle(columns: Columns, episodes: list[Columns]) -> None:
    order = np.append(np.random.default_rng(0).permutation(len(columns["actions"]) - 1), len(columns["actions"]) - 1)
    for key in ("observations", "next_observations", "actions", "rewards"):
        columns[key] = columns[key][order]


def interleave(columns: Columns, episodes: list[Columns]) -> None:
    for key, column in columns.items():
        columns[key] = np.stack([column[: 6 * STEPS], column[6 * STEPS :]], 1).reshape(column.shape)


def of_one(key: str, by: int) -> Callable[[Columns, list[Columns]], None]:
    """Shifted in trajectory 3 alone."""

    def corrupt(columns: Columns, episodes: list[Columns]) -> None:
        columns[key][3 * STEPS : 4 * STEPS] = np.roll(columns[key][3 * STEPS : 4 * STEPS], by, axis=0)

    return corrupt


def of_every_other(columns: Columns, episodes: list[Columns]) -> None:
    actions = columns["actions"].reshape(EPISODES, STEPS, 1)
    actions[::2] = np.roll(actions[::2], 1, axis=1)


def reset_for_last(columns: Columns, episodes: list[Columns]) -> None:
    """What a vector environment returns with the last step: the first state of the next trajectory."""
    columns["next_observations"][:-1] = columns["observations"][1:]


def ends_beside(by: int) -> Callable[[Columns, list[Columns]], None]:
    def corrupt(columns: Columns, episodes: list[Columns]) -> None:
        reset_for_last(columns, episodes)
        columns["terminals"] = np.roll(columns["terminals"], by)
        columns["terminals"][[0, -1]] = [0, 1]

    return corrupt


def double(columns: Columns, episodes: list[Columns]) -> None:
    order = np.sort(np.append(np.arange(len(columns["actions"])), [150, 437, 900]))
    columns.update({key: column[order] for key, column in columns.items()})


FAULTS = {
    "actions of the step before": (shift("actions", 1), "alignment", "actions are shifted by one row: the next one", 0),
    "actions of the next step": (
        shift("actions", -1),
        "alignment",
        "actions are shifted by one row: the one before",
        0,
    ),
    "next observations one on": (shift("next_observations", -1), "alignment", "observation of 2 rows on", 0),
    "next observations one back": (shift("next_observations", 1), "alignment", "the observation of the same row", 0),
    "drift of both": (drift("observations", "next_observations"), "alignment", "actions and observations drift", 100),
    "drift of observations": (drift("observations"), "alignment", "next_observations drift apart", 100),
    "drift of next observations": (drift("next_observations"), "alignment", "next_observations drift apart", 100),
    "shuffled rows": (shuffle, "alignment", "differ from the observations of the next row", 0),
    "interleaved environments": (interleave, "alignment", "the rows of 2 environments are interleaved", 0),
    "joined, true next": (join, "trajectories", "trajectories are joined: next_observations differ", 399),
    "joined, by shift": (join_by_shift, "trajectories", "jumps inside trajectories", 399),
    "masks and terminals swapped": (swap_flags, "flags", "masks and terminals are exchanged", 0),
    "terminals inverted": (invert("terminals"), "flags", "terminals are 1 in 99.1% of the transitions", 0),
    "masks all 0": (invert("masks"), "flags", "masks are 0 in 100.0% of the transitions", 0),
    "terminations as masks": (invert_terminations, "flags", "masks are 0 in 99.0% of the transitions", 0),
    "mask of a half": (put("masks", 0.5), "flags", "masks are neither 0 nor 1 in 1 transitions", 437),
    "rewards of the step before": (shift("rewards", 1), "rewards", "each belongs to the row before it", 0),
    "rewards of the next step": (shift("rewards", -1), "rewards", "each belongs to the row after it", 0),
    "actions scaled": (scale_actions, "actions", "actions lie outside the bounds of action_space", None),
    "NaN": (put("observations", np.nan), "values", "observations are NaN or infinite in 1 transitions", 437),
    "infinity": (put("rewards", np.inf), "values", "rewards are NaN or infinite in 1 transitions", 437),
    "actions two rows late": (shift("actions", 2), "alignment", "actions are shifted: the one 2 rows on explains", 0),
    "actions two rows early": (shift("actions", -2), "alignment", "the one 2 rows back explains", 0),
    "next of one, one on": (of_one("next_observations", -1), "alignment", "observation of 2 rows on", 300),
    "actions of one, late": (
        of_one("actions", 1),
        "alignment",
        "shifted by one row: 1 (3); those of the row after",
        300,
    ),
    "actions of one, early": (of_one("actions", -1), "alignment", "by one row: 1 (3); those of the row before", 300),
    "actions of every other": (
        of_every_other,
        "alignment",
        "trajectories whose actions are shifted by one row: ",
        None,
    ),
    "resets as last states": (reset_for_last, "trajectories", "in 11 of 11: the true one was lost", 99),
    "ends one early": (ends_beside(-1), "trajectories", "stand in the row after a terminal", 98),
    "ends one late": (ends_beside(1), "trajectories", "stand in the row before a terminal", 100),
    "rows twice": (double, "duplicates", "rows are there twice, one after the other: about 3", 150),
    "copied episode": (copy_episode, "duplicates", "copies of other trajectories, bit for bit: 1 (7 of 2)", 700),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_alone(name: str, columns: Columns, episodes: list[Columns]) -> None:
    corrupt, check, message, row = FAULTS[name]
    corrupt(columns, episodes)
    (finding,) = problems(columns)
    assert finding.check == check
    assert message in finding.message
    assert finding.advice
    assert finding.count > 0
    if row is not None:
        assert finding.row == row


def test_the_place_of_a_finding_counts_from_zero(columns: Columns, episodes: list[Columns]) -> None:
    put("actions", np.nan)(columns, episodes)
    (finding,) = problems(columns)
    assert (finding.row, finding.episode, finding.step, finding.count) == (437, 4, 37, 1)


def constant_observation(columns: Columns) -> None:
    columns["observations"][:, 1] = columns["next_observations"][:, 1] = 3.0


def clipped_twice(columns: Columns) -> None:
    columns["actions"] = np.clip(20 * columns["actions"], -2, 2)


def constant_action(columns: Columns) -> None:
    columns["actions"][:] = 1.5


def narrow_actions(columns: Columns) -> None:
    columns["actions"] *= 0.05


def constant_rewards(columns: Columns) -> None:
    columns["rewards"][:] = -1


def clock_as_death(columns: Columns) -> None:
    columns["masks"] = 1 - columns["terminals"]


def terminal_on_the_way(columns: Columns) -> None:
    columns["masks"][437:440] = 0


def frozen(columns: Columns) -> None:
    columns["observations"][300:400] = columns["next_observations"][300:400] = columns["observations"][300]
    columns["actions"][300:400] = np.linspace(-2, 2, 100)[:, None]


def other_actions(columns: Columns) -> None:
    columns["actions"][300:400] = -columns["actions"][300:400]


def rounded(columns: Columns) -> None:
    columns["next_observations"] = columns["next_observations"].astype(np.float16).astype(np.float32)


WARNINGS = {
    "constant observation": (constant_observation, "observations", "1 of 3 components of observations never change: 1"),
    "saturated actions": (clipped_twice, "actions", "components 0 of the actions are at a bound in"),
    "constant action": (constant_action, "actions", "components 0 of the actions never change"),
    "narrow actions": (narrow_actions, "actions", "components 0 of the actions use less than 20% of their bounds"),
    "constant rewards": (constant_rewards, "rewards", "all rewards are -1"),
    "time limits as terminations": (clock_as_death, "flags", "all 12 trajectories of the greatest length, 100 steps"),
    "terminal on the way": (terminal_on_the_way, "flags", "masks are 0 in 3 transitions after which the trajectory"),
    "actions of another sign in one": (
        other_actions,
        "alignment",
        "explain their steps worse than no action does: 1 (3)",
    ),
    "half precision": (rounded, "alignment", "by little"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_may_be_meant_so_is_a_warning(name: str, columns: Columns) -> None:
    corrupt, check, message = WARNINGS[name]
    corrupt(columns)
    assert problems(columns) == []
    (finding,) = problems(columns, "warning")
    assert finding.check == check
    assert message in finding.message


def test_a_frozen_trajectory_is_named(columns: Columns) -> None:
    frozen(columns)
    assert problems(columns) == []
    assert [(f.row, f.count) for f in problems(columns, "warning") if f.check == "observations"] == [(300, 1)]


def test_resets_as_last_states_are_harmless_where_nothing_looks_at_them(columns: Columns) -> None:
    reset_for_last(columns, [])
    columns["masks"] = 1 - columns["terminals"]
    assert problems(columns) == []
    (finding,) = (f for f in problems(columns, "warning") if f.check == "trajectories")
    assert finding.message.endswith("in 11 of 11: the true one was lost; all masks are 0 there")


def test_pieces_of_longer_trajectories_are_right(columns: Columns) -> None:
    columns["terminals"] = (np.arange(EPISODES * STEPS) % 10 == 9).astype(np.float32)
    assert problems(columns) == problems(columns, "warning") == []
    (finding,) = (f for f in problems(columns, "info") if f.check == "trajectories")
    assert finding.message == "s' of the last row is the first s of the next trajectory in 108 of 119"


def test_an_outlier_and_rare_rewards_are_no_shift(columns: Columns) -> None:
    columns["rewards"][777] = 1e6
    assert problems(columns) == []
    columns["rewards"] = -np.ones(EPISODES * STEPS, np.float32)
    columns["rewards"][440:446] = 0
    columns["actions"] = -columns["actions"]  # A model of rewards that fits badly is no evidence.
    assert problems(columns) == []


def test_hidden_state_is_no_wrong_action(columns: Columns) -> None:
    """Of a pendulum that is seen from one side, actions tell where it is, in some trajectories the wrong way."""
    columns["observations"][:, 1] = columns["next_observations"][:, 1] = 3.0
    assert [f.check for f in problems(columns, "warning")] == ["observations"]


def test_masks_inside_trajectories_are_right_where_the_source_judges_the_state_before(columns: Columns) -> None:
    terminal_on_the_way(columns)
    provenance = {"name": "x", "reward_timing": "state before the step"}
    inspection = inspect_dataset(as_dataset(columns, provenance=provenance))
    assert [(f.severity, f.count) for f in inspection.findings] == [("info", 3)]
    assert inspection.facts["success"] == "1 of 12 trajectories (8.3%)"


@pytest.mark.parametrize(("by", "side"), [(1, "after"), (-1, "before")])
def test_best_rewards_beside_the_masks_of_0_are_a_fault(by: int, side: str, columns: Columns) -> None:
    reached = np.arange(len(columns["rewards"])) % 50 == 20
    columns["masks"], columns["rewards"] = 1 - reached.astype(np.float32), reached.astype(np.float32) - 1
    assert problems(columns) == []
    columns["rewards"] = np.roll(columns["rewards"], by)
    (finding,) = problems(columns)
    assert finding.check == "rewards"
    assert f"stands in the row {side} each mask of 0 (48 rows disagree, 0 after a shift)" in finding.message


def test_deterministic_feedback_is_no_shift() -> None:
    """The next action tells where the state went, and still nothing is reported."""
    env, rows = gym.make("Pendulum-v1"), []
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=episode)
        for step in range(STEPS):
            push = (
                np.sign(observation[2:] + 1e-3) * 2
                if observation[0] < 0.8
                else -8 * observation[1:2] - 2 * observation[2:]
            )
            action = np.clip(push, -2, 2).astype(np.float32)
            following, reward, _, _, _ = env.step(action)
            rows.append(
                (observation, action, np.float32(reward), following, np.float32(1), np.float32(step == STEPS - 1))
            )
            observation = following
    names = ("observations", "actions", "rewards", "next_observations", "masks", "terminals")
    columns = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    assert problems(columns) == []
    columns["actions"] = np.roll(columns["actions"], 1, axis=0)
    assert [finding.check for finding in problems(columns)] == ["alignment"]


def test_too_few_rows_are_not_judged(columns: Columns) -> None:
    few = {key: column[:50].copy() for key, column in columns.items()}
    few["terminals"][-1] = 1
    few["actions"] = np.roll(few["actions"], 1, axis=0)
    assert problems(few) == []
    assert "cannot be judged: fewer than 300 rows" in problems(few, "info")[1].message


def test_images_and_dict_observations(columns: Columns) -> None:
    rng, length = np.random.default_rng(0), len(columns["actions"])
    images = rng.integers(0, 255, (length + 1, 3, 4, 4), np.uint8)
    images[:, 0] = 7  # Pixels that never change are no finding.
    vectors = {key: columns[key] for key in ("observations", "next_observations")}
    arrays = {key: column for key, column in columns.items() if key not in vectors}
    for key, pixels in (("observations", images[:-1]), ("next_observations", images[1:].copy())):
        arrays |= {f"{key}/camera": pixels, f"{key}/state": vectors[key]}
    space = Dict({"camera": Box(0, 255, (3, 4, 4), np.uint8), "state": SPACES["observation_space"]})
    dataset = as_dataset(arrays, observation_space=space)
    assert {f.severity for f in inspect_dataset(dataset).findings} == {"info"}
    arrays["next_observations/camera"][437, 1, 0, 0] += 1
    (finding,) = (f for f in inspect_dataset(dataset).findings if f.severity != "info")
    assert (finding.check, finding.row) == ("trajectories", 437)


def test_a_memory_mapped_dataset_gives_the_same_findings(
    columns: Columns, episodes: list[Columns], tmp_path: Path
) -> None:
    copy_episode(columns, episodes)
    dataset = TransitionDataset(**columns, **SPACES, provenance={"name": "pendulum"})
    titles: list[str] = []

    def track(blocks: Any, title: str) -> Any:
        titles.append(title)
        return blocks

    mapped = inspect_dataset(open_memmap(write_memmap(tmp_path / "data", dataset)), track=track)
    assert mapped.findings == inspect_dataset(dataset).findings
    assert {"observations", "observations: order", "duplicates"} <= set(titles)


def test_blocks_do_not_hide_what_lies_across_them(
    columns: Columns, episodes: list[Columns], monkeypatch: pytest.MonkeyPatch
) -> None:
    join(columns, episodes)
    expected = inspect_dataset(as_dataset(columns)).findings
    monkeypatch.setattr("flowpolicies.data.rows.BLOCK_BYTES", 240)  # 10 rows; 400 begins a block.
    assert inspect_dataset(as_dataset(columns)).findings == expected


def test_spaces_bounds_and_starts_are_those_of_the_environment(columns: Columns) -> None:
    env = gym.make("Pendulum-v1", max_episode_steps=50)
    dataset = as_dataset(columns, action_space=Box(-4.0, 4.0, (1,)))
    (finding,) = (f for f in inspect_dataset(dataset, env=env).findings if f.severity == "fault")
    assert (finding.check, "the action_space of the dataset is Box(-4.0, 4.0" in finding.message) == (
        "environment",
        True,
    )
    assert "50 steps" in problems(columns, "info", env=env)[-1].message
    columns["observations"][:, 2] += 100
    columns["next_observations"][:, 2] += 100
    (warning,) = problems(columns, "warning", env=env)
    assert warning.check == "environment"
    assert "1 components of observations start outside of what the data covers (number 2 at" in warning.message


def test_values_outside_the_observation_space(columns: Columns) -> None:
    dataset = as_dataset(columns, observation_space=Box(-1.0, 1.0, (3,)))
    (finding,) = (f for f in inspect_dataset(dataset).findings if f.severity == "warning")
    assert "1 components of observations leave the observation space: 2 (number 2 ranges from" in finding.message


def simulator(
    columns: Columns, *, off: float = 0.0, actions: Array | None = None
) -> Callable[[Array, Array], Resimulated]:
    """Steps by the true dynamics of Pendulum from the true states, with an error that an older version may have."""
    states = columns["observations"].astype(np.float64)
    true_rewards, true_masks = columns["rewards"].copy(), columns["masks"].copy()

    def resimulate(rows: Array, given: Array) -> Resimulated:
        angle, speed = np.arctan2(states[rows, 1], states[rows, 0]), states[rows, 2]
        speed = np.clip(speed + (15 * np.sin(angle) + 3 * given[:, 0].astype(np.float64)) * 0.05, -8, 8)
        angle = angle + speed * 0.05 * (1 + off)
        following = np.stack([np.cos(angle), np.sin(angle), speed], 1)
        return Resimulated(following, true_rewards[rows], true_masks[rows])

    return resimulate


def test_resimulation_agrees_with_real_data(columns: Columns) -> None:
    (finding,) = (f for f in problems(columns, "info", resimulate=simulator(columns)) if f.check == "resimulation")
    assert finding.message.endswith("re-simulated transitions, 0.0% disagree with the stored next observation")
    assert problems(columns, resimulate=simulator(columns)) == []


def test_resimulation_finds_a_scaled_action_and_a_shifted_one(columns: Columns) -> None:
    resimulate = simulator(columns)
    true = columns["actions"]
    columns["actions"] = 0.5 * true
    (finding,) = problems(columns, resimulate=resimulate)
    assert finding.check == "resimulation"
    assert "with 2 times the actions 0.0% do: actions were scaled" in finding.message
    columns["actions"] = np.roll(true, 1, axis=0)
    regression, simulated = problems(columns, resimulate=resimulate)
    assert (regression.check, simulated.check) == ("alignment", "resimulation")
    assert "with the action of the row after it" in simulated.message


@pytest.mark.parametrize("which", [slice(3, 4), slice(None, None, 2)])
def test_resimulation_finds_shifted_actions_of_some_trajectories(which: slice, columns: Columns) -> None:
    resimulate = simulator(columns)
    actions = columns["actions"].reshape(EPISODES, STEPS, 1)
    actions[which] = np.roll(actions[which], 1, axis=1)
    (finding,) = (f for f in problems(columns, resimulate=resimulate) if f.check == "resimulation")
    assert "with the action of the row after it" in finding.message
    assert finding.episode == (which.start or 0)


def test_a_simulator_that_parts_in_a_first_row_shows_no_lost_end(columns: Columns) -> None:
    """Objects that were put into each other fly apart, in any direction."""
    rows = np.array([0, 99, 100, 437])
    result = simulator(columns)(rows, columns["actions"][rows])
    away = Resimulated(result.next_observations + 5, result.rewards, result.masks)
    assert unexplained(as_dataset(columns), lambda *_: away, rows).tolist() == [99, 437]


def test_masks_beside_the_environment_s_are_found_where_they_change(columns: Columns) -> None:
    columns["rewards"][:] = 0
    resimulate = simulator(columns)
    columns["masks"] = 1 - columns["terminals"]
    (finding,) = problems(columns, resimulate=resimulate, sample=1200)
    assert (finding.check, finding.row) == ("rewards", 99)


def test_a_slightly_different_simulator_is_a_warning(columns: Columns) -> None:
    resimulate = simulator(columns, off=0.1)
    assert problems(columns, resimulate=resimulate) == []
    (finding,) = problems(columns, "warning", resimulate=resimulate)
    assert finding.message.endswith("by little")


@pytest.mark.parametrize(("by", "side"), [(1, "before"), (-1, "after")])
def test_resimulation_finds_rewards_of_another_step(by: int, side: str, columns: Columns) -> None:
    columns["rewards"] = (np.arange(len(columns["rewards"])) % 7 == 0).astype(np.float32)
    resimulate = simulator(columns)
    columns["rewards"] = np.roll(columns["rewards"], by)
    (finding,) = problems(columns, resimulate=resimulate)
    assert finding.message.endswith(f"but those of the row {side} them: rewards are one step off")


def test_a_jump_that_the_simulator_makes_too_is_none(columns: Columns, episodes: list[Columns]) -> None:
    join_by_shift(columns, episodes)
    true, teleport = simulator(columns), columns["observations"][4 * STEPS]

    def resimulate(rows: Array, given: Array) -> Resimulated:
        result = true(rows, given)
        jumps = (rows == 4 * STEPS - 1)[:, None]
        return result._replace(next_observations=np.where(jumps, teleport, result.next_observations))

    assert problems(columns, resimulate=resimulate) == []
    assert [f.check for f in problems(columns, resimulate=true)] == ["trajectories"]


def test_explained_variance_is_that_of_unseen_rows() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2000, 2))
    outputs = np.stack([inputs[:, 0], inputs[:, 0] + rng.normal(size=2000), rng.normal(size=2000)], 1)
    np.testing.assert_allclose(explained(inputs, outputs), [1, 0.5, 0], atol=0.08)


def test_the_report_tells_what_where_and_what_to_do(columns: Columns, episodes: list[Columns]) -> None:
    put("observations", np.nan)(columns, episodes)
    dataset = as_dataset(columns, provenance={"name": "<pendulum>"})
    inspection = inspect_dataset(dataset)
    text, page = to_text(inspection), to_html(inspection)
    assert text.startswith("<pendulum>\n  transitions ")
    assert "FAULT [values] observations are NaN or infinite in 1 transitions." in text
    assert "  First in row 437 (episode 4, step 37)." in text
    assert text.endswith("1 fault, no warnings")
    assert max(map(len, text.splitlines())) <= 100
    assert "<h1>&lt;pendulum&gt;</h1>" in page
    assert page.count("<svg") == 1
    assert "Return of a trajectory" in page
    for outside in ("http-equiv", "<script", "<link", 'src="', "url(http"):
        assert outside not in page
    assert to_html(inspection) == page


def test_histograms_count_everything(columns: Columns) -> None:
    drawn = {h.title: h for h in inspect_dataset(as_dataset(columns)).histograms}
    assert drawn["Return of a trajectory"].counts.sum() == EPISODES
    assert drawn["Reward"].counts.sum() == drawn["Action 0"].counts.sum() == EPISODES * STEPS
    np.testing.assert_array_equal(drawn["Length of a trajectory (steps)"].edges, [STEPS - 0.5, STEPS + 0.5])


def test_a_sample_of_no_rows_is_refused(columns: Columns) -> None:
    with pytest.raises(ValueError, match="sample is 0; the checks need at least one row"):
        inspect_dataset(as_dataset(columns), sample=0)


@pytest.mark.parametrize(
    ("values", "most"), [([-200.0, -200 - 3e-14, -200 + 3e-14], 2), ([1e20] * 3, 3), ([3, 4, 4], 2), ([], 0)]
)
def test_histograms_of_equal_and_of_large_values(values: list[float], most: int) -> None:
    counts, edges = _count(np.array(values))
    assert counts.sum() == len(values)
    assert counts.max() == most
    assert np.all(np.diff(edges) > 0)


def test_titles_are_no_formulas() -> None:
    drawing = draw([Histogram("Observation/a$\\frac$<b> 0", np.array([1]), np.array([0.0, 1.0]))])
    assert "Observation/a$\\frac$&lt;b&gt; 0" in drawing
