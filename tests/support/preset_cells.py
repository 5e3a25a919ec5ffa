"""Values of the published tables, and of the scripts around them, for each algorithm in each environment.

The tables are in tests/presets_tables; `preset_tables.SOURCES` says where each of them was published.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from preset_tables import KINDS, SHORT, d4rl_names, numbers, share, table, unfold

Cells = dict[tuple[str, str], dict[str, Any]]  # Algorithm and preset (without task: all of them) -> field -> value.
DEFAULT_TASKS = {"antmaze": 1, "humanoidmaze": 1, "antsoccer": 4, "cube": 2, "scene": 2, "puzzle": 4, "visual": 1}
"""Default tasks of OGBench, and task 1 for images, the only task of FQL's runs on images."""
WIDE = [256, 256, 256, 256]
FQL_EVALUATION = {"eval_every": 100_000, "eval_episodes": 50}
"""Evaluation protocol of FQL's main.py."""
ONLINE = {
    "steps": 1_000_000,
    "online_steps": 1_000_000,
    "learning_starts": 0,
    "ensemble": 2,
    "rho": 0.0,
    **FQL_EVALUATION,
}
"""FQL's offline-to-online runs, whose updates begin with the first online step (main.py)."""

COMMON: dict[tuple[str, str], dict[str, Any]] = {
    # FQL's main.py and agents: two critics without pessimism.
    ("ogbench", "*"): {"steps": 1_000_000, "eval_every": 100_000, "eval_episodes": 50, "ensemble": 2, "rho": 0.0},
    # FQL's README, runs on images.
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
    ("ogbench-online", "*"): ONLINE,
    ("ogbench-online", "rlpd"): {"q_agg": "min"},  # FQL's agents/sac.py.
    # QAM's main.py and experiments/reproduce.py.
    ("ogbench-advanced", "*"): {
        "steps": 1_000_000,
        "online_steps": 500_000,
        "learning_starts": 5000,
        "eval_every": 50_000,
        "eval_episodes": 50,
        "ensemble": 10,
    },
    ("ogbench-advanced", "ifql"): {"q_agg": "mean", "critic_weight": 1.0, "num_samples": 32},  # QAM's agents/ifql.py.
    ("ogbench-advanced", "rlpd"): {"steps": 0},  # QAM's experiments/reproduce_rlpd.py.
    ("ogbench-advanced", "rql"): {"online_steps": 0, "eval_every": 100_000},  # RQL's main.py.
    ("ogbench-advanced", "qflow"): {
        "online_steps": 0,
        "eval_every": 100_000,
    },  # Q-Flow's advanced table is offline only.
    # FQL's README, runs on D4RL.
    ("d4rl", "fql"): {
        "steps": 500_000,
        "eval_every": 100_000,
        "eval_episodes": 50,
        "gamma": 0.99,
        "ensemble": 2,
    },
    # FQL's runs on D4RL have 500k steps; QFQL's have 1M.
    **{
        ("d4rl", name): {**FQL_EVALUATION, "steps": steps, "ensemble": 2, "rho": 0.0}
        for name, steps in (("fawac", 500_000), ("fbrac", 500_000), ("ifql", 500_000), ("qfql", 1_000_000))
    },
    # DAC's main.py.
    ("d4rl", "dac_d4rl"): {
        "steps": 2_000_000,
        "batch_size": 256,
        "gamma": 0.99,
        "reward_transform": "iql_locomotion",
    },
    ("d4rl", "bdpo"): {"steps": 4_000_000, "batch_size": 256, "gamma": 0.99},  # 2M steps of pretraining, then 2M.
    ("d4rl", "idql"): {"steps": 3_000_000, "batch_size": 512},  # IDQL's train_ddpm_iql_offline.py.
    # CEP's scripts: 600k steps for the behaviour, 1M for critic and energy; the README's q_alpha.
    ("d4rl", "qgpo"): {
        "steps": 1_600_000,
        "batch_size": 256,
        "q_alpha": 1.0,
        "eval_every": 40_000,
        "eval_episodes": 10,
    },
    ("d4rl-online", "*"): ONLINE,
    ("d4rl-online", "qflow"): {"actor_hidden_dims": WIDE, "value_hidden_dims": WIDE},
    # Q-Flow's scripts/run_qflow.sh.
    ("d4rl", "qflow"): {
        "steps": 1_000_000,
        "batch_size": 256,
        "actor_hidden_dims": WIDE,
        "value_hidden_dims": WIDE,
    },
}
REWARDS = {"no": "none", "cql": "cql_antmaze", "normalize": "normalize"}
IS = {"y": True, "n": False, "yes": True, "no": False}


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
"""Methods of QAM's experiments/reproduce_quality.py, the runs on data of other quality."""
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
        values |= {"rotate_every": 1000} if "-100m-" in data else {}  # QAM's main.py.
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
            if own == 0:  # These runs are those of plain QAM.
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
            yield "cac", name, {**FQL_EVALUATION, "steps": 500_000}  # These are runs of FQL's paper.
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
            # The script's ANTMAZE_ARGS.
            antmaze = {
                "value_layer_norm": True,
                "max_q_backup": True,
                "gamma": 0.995,
                "reward_transform": "antmaze100",
                "actor_hidden_dims": [512, 512, 512, 512],
                "eval_episodes": 100,
                "behavior_learning_rate": 1e-4,
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
        "steps": 1000 * int(epochs),  # An epoch of the authors has 1000 steps.
        "clip_grad_norm": float(clip),
        "eval_episodes": 10 if name.endswith("-v2") else 100,  # The authors' scripts.
        "notes": f"{epochs} epochs of 1000 steps; the authors report the checkpoint with top_k = {top}.",
    }


LOCOMOTION = [f"{robot}-{kind}-v2" for robot in ("halfcheetah", "hopper", "walker2d") for kind in KINDS.values()]
CLEAN_DIFFUSER = (5, 5, 3, 5, 4, 0.7, 3, 3, 5)
"""Guidance weights in CleanDiffuser's configs/qgpo/mujoco/task, in the order of `LOCOMOTION`."""


def per_family() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """IDQL and QGPO publish values for all of locomotion and for all antmazes, not for each dataset."""
    for name, scale in zip(LOCOMOTION, CLEAN_DIFFUSER, strict=True):
        yield "idql", f"d4rl/{name}", {"expectile": 0.7, "reward_transform": "iql_locomotion"}
        values = {"guidance_scale": float(scale), "alpha": 10.0, "num_samples": 16}
        yield "qgpo", f"d4rl/{name}", {**values, "reward_transform": "iql_locomotion"}
    for kind in SHORT.values():
        yield "idql", f"d4rl/antmaze-{kind}-v2", {"expectile": 0.9, "reward_transform": "iql_antmaze"}
        yield "qgpo", f"d4rl/antmaze-{kind}-v2", {"num_samples": 32, "alpha": 3.0, "reward_transform": "iql_antmaze"}


def all_cells() -> Cells:
    """The cells of all tables; fails where two tables disagree on a value."""
    cells: Cells = {}
    sources = (standard, online, pixels_and_examples, advanced, qfql, d4rl, diffusion_family, per_family)
    for algorithm, name, values in (cell for source in sources for cell in source()):
        known = cells.setdefault((algorithm, name), {})
        assert {key: known[key] for key in values if key in known} == {
            key: value for key, value in values.items() if key in known
        }
        known |= values
    return cells
