"""Every cell of the specs' tables is in the presets, and every value of the presets is in a cell.

The tables in tests/presets_tables are verbatim copies from the specs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.algorithms import get_algorithm
from flowpolicies.training import Knobs, TrainSettings
from flowpolicies.training.presets import Preset, iterate_presets, load_preset, stand_in

TABLES = Path(__file__).parents[1] / "presets_tables"
Cells = dict[tuple[str, str], dict[str, Any]]  # Algorithm and preset (without task: all of them) -> field -> value.

DEFAULT_TASKS = {"antmaze": 1, "humanoidmaze": 1, "antsoccer": 4, "cube": 2, "scene": 2, "puzzle": 4, "visual": 1}
"""Flow family, 2.1; the pixel runs are task 1 only (4.6)."""

WIDE = [256, 256, 256, 256]
FQL_EVALUATION = {"eval_every": 100_000, "eval_episodes": 50}
"""Flow family, 2.7."""

COMMON: dict[tuple[str, str], dict[str, Any]] = {
    # Flow family 2.7, 4.1: FQL's protocol; two critics without pessimism.
    ("ogbench", "*"): {"steps": 1_000_000, "eval_every": 100_000, "eval_episodes": 50, "ensemble": 2, "rho": 0.0},
    # 4.6, the heading.
    ("ogbench-pixels", "*"): {
        "steps": 500_000,
        "eval_every": 100_000,
        "eval_episodes": 50,
        "gamma": 0.99,
        "ensemble": 2,
        "encoder": "impala_small",
        "frame_stack": 3,
        "p_aug": 0.5,
    },
    ("ogbench-pixels", "fql"): {"q_agg": "mean"},
    # 4.8, the heading; 2.5: updates from the first online step.
    ("ogbench-online", "*"): {
        "steps": 1_000_000,
        "online_steps": 1_000_000,
        "learning_starts": 0,
        "eval_every": 100_000,
        "eval_episodes": 50,
        "ensemble": 2,
        "rho": 0.0,
    },
    ("ogbench-online", "rlpd"): {"q_agg": "min"},  # 3.6
    # 2.7, 4.1, 4.2: QAM's protocol.
    ("ogbench-advanced", "*"): {
        "steps": 1_000_000,
        "online_steps": 500_000,
        "learning_starts": 5000,
        "eval_every": 50_000,
        "eval_episodes": 50,
        "ensemble": 10,
    },
    ("ogbench-advanced", "ifql"): {"q_agg": "mean", "critic_weight": 1.0, "num_samples": 32},  # 3.3
    ("ogbench-advanced", "rlpd"): {"steps": 0},  # 4.4, below the table.
    ("ogbench-advanced", "rql"): {"online_steps": 0, "eval_every": 100_000},  # RQL family 1.9
    ("ogbench-advanced", "qflow"): {"online_steps": 0, "eval_every": 100_000},  # An offline table (12.3).
    # 4.7, the heading.
    ("d4rl", "fql"): {
        "steps": 500_000,
        "eval_every": 100_000,
        "eval_episodes": 50,
        "gamma": 0.99,
        "ensemble": 2,
    },
    # 2.7: 500k steps on D4RL; 4.1, FQL's column. QFQL's own runs have 1M (RQL family 11.2).
    **{
        ("d4rl", name): {**FQL_EVALUATION, "steps": steps, "ensemble": 2, "rho": 0.0}
        for name, steps in (("fawac", 500_000), ("fbrac", 500_000), ("ifql", 500_000), ("qfql", 1_000_000))
    },
    # RQL family 6, "Order" and below the table.
    ("d4rl", "dac_d4rl"): {
        "steps": 2_000_000,
        "batch_size": 256,
        "gamma": 0.99,
        "reward_transform": "iql_locomotion",
    },
    ("d4rl", "bdpo"): {"steps": 4_000_000, "batch_size": 256, "gamma": 0.99},  # 3.5: 2M of pretraining, 2M.
    ("d4rl", "idql"): {"steps": 3_000_000, "batch_size": 512},  # 4
    # 9: 600k of behaviour, 1M of critic and energy; the README's temperature.
    ("d4rl", "qgpo"): {
        "steps": 1_600_000,
        "batch_size": 256,
        "q_alpha": 1.0,
        "eval_every": 40_000,
        "eval_episodes": 10,
    },
    # 4.8, as above.
    ("d4rl-online", "*"): {
        "steps": 1_000_000,
        "online_steps": 1_000_000,
        "learning_starts": 0,
        "eval_every": 100_000,
        "eval_episodes": 50,
        "ensemble": 2,
        "rho": 0.0,
    },
    ("d4rl-online", "qflow"): {"actor_hidden_dims": WIDE, "value_hidden_dims": WIDE},
    # Q-Flow: below the table and below "Networks".
    ("d4rl", "qflow"): {
        "steps": 1_000_000,
        "batch_size": 256,
        "actor_hidden_dims": WIDE,
        "value_hidden_dims": WIDE,
    },
}


# ---------------------------------------------------------------------- reading


def table(name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    lines = (TABLES / f"{name}.md").read_text().splitlines()
    cells = [[cell.strip().strip("*") for cell in line.strip().strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]


def numbers(cell: str) -> list[float]:
    return [float(part) for part in cell.split(",")]


def unfold(cell: str) -> list[str]:
    """ "a-{b, c}-v2, d" as ["a-b-v2", "a-c-v2", "d"]."""
    names = []
    for part in re.split(r",(?![^{]*})", cell):
        match = re.fullmatch(r"(.*)\{(.*)\}(.*)", part.strip())
        names += [match[1] + middle.strip() + match[3] for middle in match[2].split(",")] if match else [part.strip()]
    return names


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("antmaze-{large-play, large-diverse}-v2", ["antmaze-large-play-v2", "antmaze-large-diverse-v2"]),
        ("pen-cloned-v1, door-cloned-v1", ["pen-cloned-v1", "door-cloned-v1"]),
    ],
)
def test_unfolding(cell: str, names: list[str]) -> None:
    assert unfold(cell) == names


SHORT = {
    "u": "umaze",
    "u-div": "umaze-diverse",
    "m-play": "medium-play",
    "m-div": "medium-diverse",
    "l-play": "large-play",
    "l-div": "large-diverse",
}
KINDS = {"m": "medium", "mr": "medium-replay", "me": "medium-expert"}


def d4rl_names(task: str) -> list[str]:
    """The data sets that a row of the diffusion family's tables is about, in the order of its slashes."""
    if match := re.fullmatch(r"(halfcheetah|hopper|walker2d)[- ](\{m,mr,me\}-v2|[a-z/ ]+)", task):
        kinds = re.findall(r"me|mr|m", match[2])
        return [f"{match[1]}-{KINDS[kind]}-v2" for kind in kinds]
    if task.startswith("antmaze"):
        if "{" in task or "umaze" in task:
            return ["antmaze-umaze-v0", "antmaze-umaze-diverse-v0"] if "umaze" in task else unfold(task)
        shorts = [part.strip().removeprefix("antmaze-").removesuffix("-v0") for part in task.split(",")]
        return [f"antmaze-{SHORT[short]}-v0" for short in shorts]
    family, _, kinds_ = task.removesuffix("-v1").partition("-")
    version = {"pen": "v1", "kitchen": "v0"}[family]
    return [f"{family}-{kind.strip()}-{version}" for kind in kinds_.split("/")]


def test_names_of_d4rl_rows() -> None:
    assert d4rl_names("halfcheetah-m") == ["halfcheetah-medium-v2"]
    assert d4rl_names("hopper m/mr/me") == d4rl_names("hopper-{m,mr,me}-v2") == d4rl_names("hopper-m / mr / me")
    assert d4rl_names("walker2d-mr") == ["walker2d-medium-replay-v2"]
    assert d4rl_names("antmaze-u, u-div, m-play, m-div")[1] == "antmaze-umaze-diverse-v0"
    assert d4rl_names("antmaze-umaze / -diverse-v0") == ["antmaze-umaze-v0", "antmaze-umaze-diverse-v0"]
    assert d4rl_names("antmaze-medium-{play,diverse}-v0")[0] == "antmaze-medium-play-v0"
    assert d4rl_names("pen-human / cloned-v1") == ["pen-human-v1", "pen-cloned-v1"]
    assert d4rl_names("kitchen-complete / partial / mixed")[2] == "kitchen-mixed-v0"


def share(cell: str, index: int, count: int) -> str:
    """What a cell says for one of its row's data sets."""
    parts = [part.strip() for part in cell.split("/")]
    return parts[index] if len(parts) == count else cell


REWARDS = {"no": "none", "cql": "cql_antmaze", "normalize": "normalize"}
IS = {"y": True, "n": False, "yes": True, "no": False}


# ---------------------------------------------------------------------- what the tables say


def standard() -> Iterator[tuple[str, str, dict[str, Any]]]:
    _, rows = table("fql_ogbench")
    gammas = {}
    for environment, gamma, q_agg, alpha, default in rows:
        assert DEFAULT_TASKS[environment.split("-")[0]] == int(default)
        gammas[environment] = float(gamma)
        yield "*", f"ogbench/{environment}", {"gamma": float(gamma)}
        yield "fql", f"ogbench/{environment}", {"q_agg": q_agg, "alpha": float(alpha)}
    online = {cell.removesuffix("-singletask-v0") for row in table("fql_online")[1] for cell in unfold(row[0])}
    for environment, weight, dim, q_agg, gamma in table("qflow")[1]:
        values = {"guidance_lambda": float(weight), "time_dim": int(dim), "q_agg": q_agg}
        if environment.startswith("D4RL antmaze "):
            for kind in environment.removeprefix("D4RL antmaze ").split(", "):
                name = f"antmaze-{kind}-v2"
                yield "qflow", f"d4rl/{name}", {**values, "gamma": float(gamma), "reward_transform": "iql_antmaze"}
                yield "qflow", f"d4rl-online/{name}", {**values, "online_steps": 200_000}
        else:
            assert gammas[environment] == float(gamma)
            yield "qflow", f"ogbench/{environment}", values
            if environment in online:
                yield "qflow", f"ogbench-online/{environment}", values


def online() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for cell, gamma, q_agg, alpha in table("fql_online")[1]:
        for environment in unfold(cell):
            suite = "ogbench-online" if "singletask" in environment else "d4rl-online"
            name = f"{suite}/{environment.removesuffix('-singletask-v0')}"
            rewards = {"reward_transform": "iql_antmaze"} if "antmaze-" in environment and "-v2" in environment else {}
            yield "*", name, {"gamma": float(gamma), **rewards}
            yield "fql", name, {"q_agg": q_agg, "alpha": float(alpha)}


def pixels_and_examples() -> Iterator[tuple[str, str, dict[str, Any]]]:
    header, (row,) = table("fql_pixels")
    for environment, cell in zip(header, row, strict=True):
        yield "fql", f"ogbench-pixels/{environment}", {"alpha": float(cell.removeprefix("α="))}
    state, image = table("fql_baselines")[1]
    for cells, names in ((state, ("ogbench", "ogbench-online")), (image, ("ogbench-pixels",))):
        environment = cells[0].split()[0].removesuffix("-task1")
        actor, critic = numbers(cells[2])
        for suite in names:
            yield "iql", f"{suite}/{environment}", {"alpha": float(cells[1])}
            yield "rebrac", f"{suite}/{environment}", {"alpha_actor": actor, "alpha_critic": critic}
            yield "ifql", f"{suite}/{environment}", {"num_samples": int(cells[3])}
    assert "offline_steps 0" in state[4]
    yield "rlpd", "ogbench-online/humanoidmaze-medium-navigate", {"steps": 0}


QUALITY = ("qam", "qam_e", "qam_f", "rebrac_qam", "fedit", "fql", "qsm", "dsrl", "bam")
"""Flow family, below 4.4: methods of the data-quality runs."""
QUALITY_DOMAINS = ("antmaze-large", "humanoidmaze-medium", "cube-double", "cube-triple", "scene", "puzzle-3x3")


def advanced() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for algorithm, environment, values in _advanced():
        yield algorithm, f"ogbench-advanced/{environment}", values
        other = environment.replace("navigate", "stitch").replace("play", "noisy")
        if algorithm in (*QUALITY, "*") and environment.rpartition("-")[0] in QUALITY_DOMAINS:
            yield algorithm, f"ogbench-advanced/{other}", values


def _advanced() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for domain, pattern, horizon, gamma, rho, sparse, data in table("qam_environments")[1]:
        environment = domain.removesuffix("-sparse")
        assert pattern.startswith(environment)
        values: dict[str, Any] = {"horizon": int(horizon), "gamma": float(gamma), "rho": float(rho)}
        values |= {"rotate_every": 1000} if "-100m-" in data else {}  # 2.6
        yield "*", environment, values | ({"reward_transform": "sparse"} if IS[sparse] else {})
        yield "qflow", environment, {"time_dim": 16} if environment.startswith("cube-double") else {}
    for domain, fbrac, fql, bam, fawac, ifql, rebrac, dsrl, fedit, dac, qsm in table("qam_a")[1]:
        environment = domain.removesuffix(" (sparse)")
        yield "fbrac", environment, {"alpha": float(fbrac)}
        yield "fql", environment, {"alpha": float(fql)}
        yield "bam", environment, {"inv_temp": float(bam)}
        yield "fawac", environment, {"inv_temp": float(fawac)}
        yield "ifql", environment, {"expectile": float(ifql)}
        yield "rebrac_qam", environment, dict(zip(("alpha_actor", "actor_noise"), numbers(rebrac), strict=True))
        yield "dsrl", environment, {"noise_scale": float(dsrl)}
        yield "fedit", environment, {"edit_scale": float(fedit)}
        yield "dac", environment, {"alpha": float(dac)}
        yield "qsm", environment, dict(zip(("inv_temp", "alpha"), numbers(qsm), strict=True))
    guided = ("inv_temp", "guidance_coef", "noisy_coef")
    for domain, cgql, cgql_m, cgql_l, qam, qam_f, qam_e, rlpd in table("qam_b")[1]:
        environment = domain.removesuffix(" (sparse)")
        yield "cgql", environment, dict(zip(guided[:2], numbers(cgql), strict=True))
        yield "cgql_m", environment, dict(zip(guided, numbers(cgql_m), strict=True))
        yield "cgql_l", environment, dict(zip(guided, numbers(cgql_l), strict=True))
        yield "qam", environment, {"inv_temp": float(qam)}
        for algorithm, field, (inv_temp, own) in (
            ("qam_f", "alpha", numbers(qam_f)),
            ("qam_e", "edit_scale", numbers(qam_e)),
        ):
            if own == 0:  # Below the table: "are plain QAM".
                yield "qam", environment, {"inv_temp": inv_temp}
            else:
                yield algorithm, environment, {"inv_temp": inv_temp, field: own}
        yield "rlpd", environment, {"bc_alpha": float(rlpd)}
    for scene, data, alpha, kappa, rho, horizon, gamma, sparse in table("rql")[1]:
        values = {"alpha": float(alpha), "expectile": float(kappa), "rho": float(rho), "horizon": int(horizon)}
        rewards = {"reward_transform": "sparse"} if IS[sparse] else {}
        yield "rql", f"{scene}-{data.split()[0]}", {**values, "gamma": float(gamma), **rewards}


def qfql() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for task, cac, fawac, fbrac, ifql, fql, beta in table("qfql")[1]:
        name = f"ogbench/{task}" if "-task" in task else f"d4rl/{task}"
        cells = {"cac": ("eta", cac), "fawac": ("inv_temp", fawac), "fbrac": ("alpha", fbrac), "qfql": ("beta", beta)}
        rewards = {} if "-task" in task else {"reward_transform": "iql_antmaze"}
        if "-task" not in task:
            yield "cac", name, {**FQL_EVALUATION, "steps": 500_000}  # Flow family 2.7: these are FQL's paper's runs.
        for algorithm, (field, cell) in cells.items():
            if cell != "-":
                yield algorithm, name, {field: float(cell), **rewards}
        yield "ifql", name, {"num_samples": int(ifql), **rewards}
        yield "fql", name, {"alpha": float(fql)}


def d4rl() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for row in table("fql_d4rl")[1]:
        for environment, q_agg, alpha in (row[:3], row[4:]):
            rewards = {"reward_transform": "iql_antmaze"} if environment.startswith("antmaze") else {}
            yield "fql", f"d4rl/{environment}", {"q_agg": q_agg, "alpha": float(alpha), **rewards}


def diffusion_family() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for task, rate, eta, steps, norm, best, reward, epochs, clip, top in table("cac")[1]:
        names = d4rl_names(task)
        for i, name in enumerate(names):
            values = _backpropagated(name, rate, eta, best, reward, epochs, clip, share(top, i, len(names)))
            yield "cac", f"d4rl/{name}", {**values, "consistency_steps": int(steps), "q_norm": IS[norm]}
    for task, *cells in table("diffusion_ql")[1]:
        names = d4rl_names(task)
        for i, name in enumerate(names):
            rate, eta, best, reward, epochs, clip, top = (share(cell, i, len(names)) for cell in cells)
            yield "diffusion_ql", f"d4rl/{name}", _backpropagated(name, rate, eta, best, reward, epochs, clip, top)
    for task, eta, rate, threshold, rho, other in table("dac")[1]:
        names = d4rl_names(task)
        for i, name in enumerate(names):
            values = {"eta": float(eta), "eta_lr": float(rate), "rho": float(rho), "max_q_backup": "maxQ" in other}
            values |= {} if threshold == "-" else {"threshold": float(share(threshold, i, len(names)))}
            values |= {"critic_learning_rate": 1e-3} if "critic lr 1e-3" in other else {}
            yield "dac_d4rl", f"d4rl/{name}", values
    for task, eta, rho, other in table("bdpo")[1]:
        for name in d4rl_names(task):
            values = {"eta": float(eta), "rho": float(rho)}
            values |= {"ensemble": 20} if other == "medium: E=20" and name == "hopper-medium-v2" else {}
            values |= {"temperature": "none"} if "temperature null" in other and "diverse" in name else {}
            # Below the table.
            antmaze = {
                "value_layer_norm": True,
                "max_q_backup": True,
                "gamma": 0.995,
                "reward_transform": "antmaze100",
                "actor_hidden_dims": [512, 512, 512, 512],
                "eval_episodes": 100,
                "behaviour_learning_rate": 1e-4,  # 3.5
            }
            values |= antmaze if name.startswith("antmaze") else {"reward_transform": "iql_mujoco"}
            yield "bdpo", f"d4rl/{name}", values


def _backpropagated(name: str, *cells: str) -> dict[str, Any]:
    rate, eta, best, reward, epochs, clip, top = cells
    return {
        "learning_rate": float(rate),
        "eta": float(eta),
        "max_q_backup": IS[best],
        "reward_transform": REWARDS[reward],
        "steps": 1000 * int(epochs),  # "An epoch is 1000 steps."
        "clip_grad_norm": float(clip),
        "eval_episodes": 10 if name.endswith("-v2") else 100,  # 5, "Acting".
        "notes": f"{epochs} epochs of 1000 steps; the authors report the checkpoint with top_k = {top}.",
    }


LOCOMOTION = [f"{robot}-{kind}-v2" for robot in ("halfcheetah", "hopper", "walker2d") for kind in KINDS.values()]
CLEAN_DIFFUSER = (5, 5, 3, 5, 4, 0.7, 3, 3, 5)
"""Guidance weights of QGPO in CleanDiffuser's rendition, in the same order (9)."""


def per_family() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """IDQL (4) and QGPO (9) say values for locomotion and for antmaze, not for each data set."""
    for name, scale in zip(LOCOMOTION, CLEAN_DIFFUSER, strict=True):
        yield "idql", f"d4rl/{name}", {"expectile": 0.7, "reward_transform": "iql_locomotion"}
        values = {"guidance_scale": float(scale), "alpha": 10.0, "num_samples": 16}
        yield "qgpo", f"d4rl/{name}", {**values, "reward_transform": "iql_locomotion"}
    for kind in SHORT.values():
        yield "idql", f"d4rl/antmaze-{kind}-v2", {"expectile": 0.9, "reward_transform": "iql_antmaze"}
        yield "qgpo", f"d4rl/antmaze-{kind}-v2", {"num_samples": 32, "alpha": 3.0, "reward_transform": "iql_antmaze"}


@pytest.fixture(scope="module")
def expected() -> Cells:
    """All of it; tables that speak of the same thing must agree."""
    cells: Cells = {}
    sources = (standard, online, pixels_and_examples, advanced, qfql, d4rl, diffusion_family, per_family)
    for algorithm, name, values in (cell for source in sources for cell in source()):
        known = cells.setdefault((algorithm, name), {})
        assert {key: known[key] for key in values if key in known} == {
            key: value for key, value in values.items() if key in known
        }
        known |= values
    return cells


def of_preset(cells: Cells, preset: Preset) -> dict[str, Any]:
    """What the tables say about it: for its environment, for its algorithm there, for its task."""
    names = (f"{preset.suite}/{preset.environment}", preset.name)
    layers = [COMMON.get((preset.suite, "*"), {}), *(cells.get(("*", name), {}) for name in names)]
    layers += [COMMON.get((preset.suite, preset.algorithm), {})]
    layers += [cells.get((preset.algorithm, name), {}) for name in names]
    return {key: value for layer in layers for key, value in layer.items()}


def test_every_cell_is_in_a_preset(expected: Cells) -> None:
    presets = {(preset.algorithm, name): preset for preset in iterate_presets() for name in names_of(preset)}
    missing = [key for key in expected if key[0] != "*" and key not in presets]
    assert not missing
    for (algorithm, name), values in expected.items():
        for preset in [preset for key, preset in presets.items() if key[1] == name and algorithm in (key[0], "*")]:
            for field, value in values.items():
                if algorithm == "*" and (field not in preset.values or preset.values[field] != value):
                    own = of_preset(expected, preset)  # An algorithm may lack the field, or have a value of its own.
                    assert field not in preset.values or own[field] != value
                elif field == "notes":
                    assert value in preset.notes
                else:
                    assert preset.values[field] == value, f"{preset.name}: {algorithm} {field}"


def names_of(preset: Preset) -> tuple[str, str]:
    return f"{preset.suite}/{preset.environment}", preset.name


def test_every_value_is_in_a_cell(expected: Cells) -> None:
    for preset in iterate_presets():
        assert any((preset.algorithm, name) in expected for name in names_of(preset)), preset.name
        parts = (get_algorithm(preset.algorithm).Config, Knobs, TrainSettings)
        fields = {name for part in parts for name in part.__dataclass_fields__}
        known = {name: value for name, value in of_preset(expected, preset).items() if name in fields}
        values = {name: value for name, value in preset.values.items() if name != "dataset"}
        assert values == known, f"{preset.algorithm} {preset.name}"


def test_the_two_specs_agree_on_dac_and_qsm() -> None:
    """Flow family 4.3 and the RQL family's sections 6 and 7."""
    dac, qsm = (TABLES / "dac_qsm_ogbench.md").read_text().splitlines()
    full = {"antmaze": "navigate", "humanoid": "navigate", "cube": "play", "scene": "play", "puzzle": "play"}

    def environment(name: str) -> str:
        scene = name.replace("humanoid", "humanoidmaze")
        return f"{scene}-{full[name.split('-')[0]]}"

    cells = re.findall(r"([a-z0-9-]+) ([\d.]+)(?=[,.])", dac.rpartition("alpha: ")[2].partition(" 1M offline")[0])
    assert len(cells) == 10
    for name, alpha in cells:
        values = load_preset("dac", f"ogbench-advanced/{environment(name)}").values
        assert values["alpha"] == float(alpha.rstrip("."))
    pairs = re.findall(r"([a-z0-9-]+) \(([\d.]+),([\d.]+)\)", qsm)
    assert len(pairs) == 10
    for name, inv_temp, alpha in pairs:
        values = load_preset("qsm", f"ogbench-advanced/{environment(name)}").values
        assert (values["inv_temp"], values["alpha"]) == (float(inv_temp), float(alpha))


def test_common_defaults() -> None:
    """Flow family 4.1: what the presets do not say is what the fields say."""
    rows = {cells[0]: cells[1:] for cells in table("fql_defaults")[1]}
    knobs = Knobs()
    assert rows["lr / Adam"][:2] == ["3e-4"] * 2
    assert rows["batch"][0] == str(knobs.batch_size)
    assert rows["τ"][0] == str(knobs.tau)
    assert knobs.learning_rate == 3e-4
    assert rows["γ (default)"][0] == str(knobs.gamma)
    standard, advanced = COMMON["ogbench-online", "*"], COMMON["ogbench-advanced", "*"]
    assert rows["offline/online steps"][:2] == ["1M / 0", "1M / 500k"]
    assert (advanced["steps"], advanced["online_steps"]) == (1_000_000, 500_000)
    assert rows["start_training (online)"][:2] == [str(suite["learning_starts"]) for suite in (standard, advanced)]
    assert rows["eval every / episodes"][:2] == [
        f"{suite['eval_every'] // 1000}k / {suite['eval_episodes']}" for suite in (standard, advanced)
    ]
    assert [int(cell.partition(",")[0]) for cell in rows["K, aggregation"][:2]] == [
        suite["ensemble"] for suite in (standard, advanced)
    ]
    for preset in iterate_presets():
        if not preset.suite.startswith("ogbench"):
            continue
        config = get_algorithm(preset.algorithm).Config()
        assert getattr(config, "flow_steps", 10) == int(rows["flow steps"][0])
        if preset.algorithm not in ("cac",):  # Its own networks (RQL family 5).
            assert config.actor_hidden_dims == config.value_hidden_dims == (512,) * 4
            assert config.value_layer_norm
            assert not config.actor_layer_norm
        clips = preset.algorithm in ("qam", "qam_f", "qam_e", "bam", "dac", "qsm", "cac")
        assert (config.clip_grad_norm is not None) == clips, preset.algorithm


def test_runs_that_are_plain_qam() -> None:
    for domain, *_, qam_f, qam_e, _ in table("qam_b")[1]:
        name = f"ogbench-advanced/{domain.removesuffix(' (sparse)')}-task1"
        assert stand_in("qam_f", name) == ("qam" if numbers(qam_f)[1] == 0 else "qam_f")
        assert stand_in("qam_e", name) == ("qam" if numbers(qam_e)[1] == 0 else "qam_e")


def test_tasks_and_data(expected: Cells) -> None:
    big = {row[0].removesuffix("-sparse") for row in table("qam_environments")[1] if "100m" in row[6]}
    assert big == {"puzzle-4x4-play", "cube-quadruple-play"}
    per_task = {key for key in expected if "-task" in key[1]}
    tasks: dict[tuple[str, str], list[int | None]] = {}
    for preset in iterate_presets():
        tasks.setdefault((preset.algorithm, names_of(preset)[0]), []).append(preset.task)
        if preset.suite.startswith("d4rl"):
            assert preset.dataset == f"d4rl:{preset.environment}"
        else:
            size = "-100m" if preset.suite == "ogbench-advanced" and preset.environment in big else ""
            assert preset.dataset == f"ogbench:{preset.environment}{size}-singletask-task{preset.task}-v0"
            assert preset.default_task == DEFAULT_TASKS[preset.environment.split("-")[0]]
    for (algorithm, name), found in tasks.items():
        suite = name.partition("/")[0]
        default = DEFAULT_TASKS.get(name.partition("/")[2].split("-")[0])
        if suite in ("ogbench-pixels", "ogbench-online"):
            assert found == [default]
        elif suite.startswith("d4rl"):
            assert found == [None]
        elif any(key[0] == algorithm and key[1].startswith(f"{name}-task") for key in per_task) and (
            (algorithm, name) not in expected
        ):
            assert found == [default]
        else:
            assert found == [1, 2, 3, 4, 5]
